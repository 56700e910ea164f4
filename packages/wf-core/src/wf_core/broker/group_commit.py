"""Appends that come while another is under way travel together: many small appends cost few round trips.

The order of appends to one partition is the order of the calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from wf_core.broker.protocol import MAX_RECORD_BYTES, LogUnavailableError, RecordTooLargeError, TopicPartition

log = structlog.get_logger(__name__)

_BATCH_BYTES = 512 * 1024


@dataclass(eq=False, slots=True)
class Append:
    """One caller's records, and the future of their offsets."""

    source: TopicPartition
    records: Sequence[bytes]
    key: bytes | None
    size: int
    offsets: asyncio.Future[list[int]]


class GroupCommit:
    """One lane of appends; one group is on its way at a time.

    `send` appends a group's records in order and returns their offsets, a list for each append. It raises
    LogUnavailableError or RecordTooLargeError, and is bounded in time.
    """

    def __init__(self, send: Callable[[Sequence[Append]], Awaitable[list[list[int]]]]) -> None:
        self._send = send
        self._waiting: deque[Append] = deque()
        self._task: asyncio.Task[None] | None = None

    async def append(self, source: TopicPartition, records: Sequence[bytes], key: bytes | None) -> list[int]:
        """The offsets of `records`, once the log acknowledged them. Raises what `Log.append` raises."""
        if not records:
            return []
        largest = max(map(len, records))
        if largest > MAX_RECORD_BYTES:
            raise RecordTooLargeError(
                f"a record of {largest:,} bytes for {source.topic} is longer than the {MAX_RECORD_BYTES:,} that fit"
            )
        offsets: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.append(Append(source, records, key, sum(map(len, records)), offsets))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="log appends")
        return await offsets

    async def close(self) -> None:
        """Waits for what is on its way."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._commit(self._take())
        finally:
            self._task = None
            self._fail(self._waiting, LogUnavailableError("the log was closed"))
            self._waiting.clear()

    def _take(self) -> list[Append]:
        group = [self._waiting.popleft()]
        size = group[0].size
        while self._waiting and size + self._waiting[0].size <= _BATCH_BYTES:
            group.append(self._waiting.popleft())
            size += group[-1].size
        return group

    async def _commit(self, group: Sequence[Append]) -> bool:
        """Whether the log answered; if not, the group will be repeated, and what follows must not land before that."""
        try:
            offsets = await self._send(group)
        except RecordTooLargeError as error:
            if len(group) > 1:
                return await self._commit_singly(group)
            self._fail(group, error)
        except LogUnavailableError as error:
            # Whoever waits behind would wait as long again and learn the same.
            self._fail([*group, *self._waiting], error)
            self._waiting.clear()
            return False
        except asyncio.CancelledError:
            self._fail(group, LogUnavailableError("the log was closed"))
            raise
        except Exception as error:
            log.exception("append failed", topics=sorted({append.source.topic for append in group}))
            self._fail(group, LogUnavailableError(f"the append failed: {type(error).__name__}: {error}"))
            return False
        else:
            for append, own in zip(group, offsets, strict=True):
                if not append.offsets.done():
                    append.offsets.set_result(own)
        return True

    async def _commit_singly(self, group: Sequence[Append]) -> bool:
        try:
            for append in group:
                if not await self._commit([append]):
                    return False
        finally:
            self._fail(group, LogUnavailableError("the log was away for an append before this one"))
        return True

    @staticmethod
    def _fail(group: Sequence[Append], error: LogUnavailableError | RecordTooLargeError) -> None:
        for append in group:
            if not append.offsets.done():
                append.offsets.set_exception(type(error)(str(error)))


def split(group: Sequence[Append], offsets: Sequence[int]) -> list[list[int]]:
    """Hands the offsets of a group's records, in order, to its appends."""
    shares, start = [], 0
    for append in group:
        end = start + len(append.records)
        shares.append(list(offsets[start:end]))
        start = end
    return shares
