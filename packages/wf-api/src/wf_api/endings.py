"""Waits for the end of an execution on behalf of `?wait=`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from wf_api.bounded import ANSWER_SECONDS
from wf_api.problems import of_document
from wf_core.durations import parse_duration_ms
from wf_core.errors import DocumentError, Problem
from wf_core.ids import partition_of
from wf_core.states import ExecutionStatus
from wf_core.store.client import redis_errors
from wf_core.store.keys import PartitionKeys

if TYPE_CHECKING:
    from wf_api.context import ApiContext

LONGEST_SECONDS = 300.0
_FASTEST_SECONDS = 0.005
_SLOWEST_SECONDS = 0.25


def wait_seconds(text: str | None) -> float:
    """Seconds of `?wait=`, 0 without it. Raises the problem 422."""
    if text is None:
        return 0.0
    try:
        seconds = parse_duration_ms(text) / 1000
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_SECONDS:
        detail = f"wait takes a duration such as 30s, up to {LONGEST_SECONDS:g} s."
        raise of_document(DocumentError([Problem("/query/wait", "wrong_duration", detail)]), "invalid-parameters")
    return seconds


async def wait_for_end(context: ApiContext, execution_id: str, seconds: float) -> ExecutionStatus | None:
    """The status that the execution ended with; None when it had not ended after `seconds`, or the service stops."""
    keys = PartitionKeys.of(context.settings.namespace, partition_of(execution_id))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = _FASTEST_SECONDS
    while not context.closing.is_set():
        found: bytes | None = None
        with contextlib.suppress(*redis_errors):  # Redis may come back while there is time
            async with asyncio.timeout(ANSWER_SECONDS):
                found = cast("bytes | None", await context.redis.hget(keys.execution(execution_id), "status"))
        if found is not None and ExecutionStatus(found.decode()).is_terminal:
            return ExecutionStatus(found.decode())
        if loop.time() >= deadline:
            break
        await asyncio.sleep(min(pause, max(0.0, deadline - loop.time())))
        pause = min(pause * 1.3, _SLOWEST_SECONDS)
    return None
