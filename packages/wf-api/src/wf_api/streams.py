"""Server-sent events: an execution's history as it grows. Polling, bounded in number, time and pace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog

from wf_api.answers import encode
from wf_api.bounded import ANSWER_SECONDS
from wf_api.heads import read_head
from wf_api.problems import ProblemError, unknown_execution
from wf_core.states import ExecutionStatus
from wf_core.store import reads
from wf_core.store.client import redis_errors

if TYPE_CHECKING:
    from wf_api.context import ApiContext

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.25
SILENCE_SECONDS = 15.0
LONGEST_SECONDS = 600.0
"""A stream ends after so long; the client comes back with Last-Event-ID and misses nothing."""
PAGE = 500
RETRY_MS = 1000
_AWAY: tuple[type[Exception], ...] = (ProblemError, *redis_errors)


async def stream_events(context: ApiContext, execution_id: str, after: str | None) -> AsyncIterator[bytes]:
    """Frames of `text/event-stream` after the event `after`; the frame `end` comes with the execution's end."""
    loop = asyncio.get_running_loop()
    until, spoke = loop.time() + LONGEST_SECONDS, loop.time()
    ended = False
    async with context.streams:
        yield f"retry: {RETRY_MS}\n\n".encode()
        try:
            while loop.time() < until and not context.closing.is_set():
                page = await _page(context, execution_id, after)
                if page.items:
                    yield b"".join(_frame(event) for event in page.items)
                    after, spoke = page.items[-1].seq, loop.time()
                elif ended:
                    yield b"event: end\ndata: {}\n\n"
                    return
                elif loop.time() - spoke > SILENCE_SECONDS:
                    yield b": still here\n\n"
                    spoke = loop.time()
                if page.next_cursor is None and not ended:
                    # Looked at before the next page is read: what that page lacks then will never come.
                    ended = await _has_ended(context, execution_id)
                    if not ended:
                        await _pause(context.closing)
        except _AWAY as error:
            log.warning("stream ended", execution=execution_id, error=str(error))


async def _page(context: ApiContext, execution_id: str, after: str | None) -> reads.EventPage:
    namespace = context.settings.namespace
    async with asyncio.timeout(ANSWER_SECONDS):
        page = await reads.read_events(context.redis, namespace, execution_id, after_seq=after, limit=PAGE)
    if page is None:
        raise unknown_execution()
    return page


async def _has_ended(context: ApiContext, execution_id: str) -> bool:
    async with asyncio.timeout(ANSWER_SECONDS):
        head = await read_head(context.redis, context.settings.namespace, execution_id)
    return ExecutionStatus(head.status).is_terminal


async def _pause(closing: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(POLL_SECONDS):
            await closing.wait()


def _frame(event: reads.EventView) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.seq.encode(), event.kind.encode(), encode(event))
