"""What `wf verify` says about each partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.broker.protocol import Log
from wf_core.errors import SetupError
from wf_core.store.keys import InstallationKeys
from wf_orchestrator.verify import UnverifiableError, examine

_LONGEST = 200


class DifferenceReport(msgspec.Struct, frozen=True):
    """Where Redis is not what the log says; values as text, long ones cut, null for absence."""

    key: str
    field: str
    expected: str | None
    found: str | None


class Report(msgspec.Struct, frozen=True):
    """One partition. `state` is `equal`, `different`, or `unverifiable` with the reason."""

    partition: int
    state: str
    records: int | None = None
    executions: int | None = None
    differences: list[DifferenceReport] = []
    reason: str | None = None


async def verify_all(redis: Redis, log: Log, namespace: str, partitions: Sequence[int]) -> list[Report]:
    """Verifies these partitions, or all of them, one after the other: each is in memory while it is compared.

    Raises SetupError when nothing is installed there, or no such partition.
    """
    installation = InstallationKeys(namespace).installation
    stored = cast("bytes | None", await cast("Any", redis.hget(installation, "partitions")))
    if stored is None:
        raise SetupError(f"nothing is installed in the namespace {namespace!r} of this Redis")
    number = int(stored)
    if unknown := [p for p in partitions if p >= number]:
        raise SetupError(f"there is no partition {unknown[0]}; the {number} are numbered from 0")
    return [await _report(redis, log, namespace, p) for p in dict.fromkeys(partitions or range(number))]


async def _report(redis: Redis, log: Log, namespace: str, partition: int) -> Report:
    try:
        found = await examine(redis, log, namespace, partition)
    except UnverifiableError as error:
        return Report(partition, "unverifiable", reason=str(error))
    differences = [DifferenceReport(d.key, d.field, _text(d.expected), _text(d.found)) for d in found.differences]
    state = "different" if differences else "equal"
    return Report(partition, state, found.offset, found.executions, differences)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
