"""The loop: one reader for all leased partitions; what has come is folded, then the next is read."""

from __future__ import annotations

import asyncio

from wf_core.broker.protocol import Batch, LogReader, OffsetOutOfRangeError
from wf_orchestrator import batches
from wf_orchestrator.context import TRANSIENT, Context, for_each
from wf_orchestrator.ownership import Ownership
from wf_orchestrator.partition import Partition

MAX_WAIT = 0.1
"""Seconds that a read waits for the first record, and so the longest time until a new assignment is read."""
GATHER = 0.002
"""Seconds until the next read while workers go on by themselves. Nobody waits for the fold of what began the next node
already, and one fold of several results costs little more than one of a single one."""
_BEGIN = b"\xa5begin"
"""In the bytes of every such result; in other records it does no harm."""
AT_ONCE = 16
"""Partitions that are folded at once: while one waits for Redis, another one computes."""


class Loop:
    """Reads and folds. `step` is one round; `run` repeats it."""

    def __init__(self, context: Context, ownership: Ownership) -> None:
        self._context = context
        self._ownership = ownership
        self._reader: LogReader = context.log.reader()
        self._out_of_range: dict[int, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        delay = 0.0
        while True:
            try:
                await self.step()
                delay = 0.0
            except TRANSIENT as error:
                self._context.health.failed(error)
                self._ownership.changed.set()  # where the reader stands is not known: assign again
                delay = min(2.0, max(0.1, 2 * delay))
                await self._context.sleep(delay)

    async def close(self) -> None:
        """Gives the reader back."""
        await self._reader.close()

    async def step(self) -> None:
        """Reads what has come and folds it."""
        ownership = self._ownership
        if not ownership.partitions:
            await self._wait_for_partitions()
            return
        if ownership.changed.is_set():
            ownership.changed.clear()
            positions = {self._context.events(n): p.position for n, p in ownership.partitions.items()}
            self._reader.assign(positions)
        try:
            found = await self._reader.read(MAX_WAIT, batches.MOST_EVENTS)
        except OffsetOutOfRangeError as error:
            await self._lost_position(error)
            return
        self._context.health.answered("log")
        await for_each(found, self._process, at_once=AT_ONCE)
        if found and all(_BEGIN in record for batch in found for record in batch.records):
            await self._context.sleep(GATHER)

    async def _wait_for_partitions(self) -> None:
        self._ownership.changed.set()
        await self._context.sleep(0.02)

    async def _process(self, batch: Batch) -> None:
        partition = self._ownership.partitions.get(batch.source.partition)
        if partition is None:
            return
        async with self._ownership.contained(partition):
            try:
                await self._fold(partition, batch)
            except TRANSIENT as error:
                self._context.health.failed(error)
                self._ownership.drop(partition, f"a server was away: {error}")
            except asyncio.CancelledError:
                partition.close()  # half-folded: nobody may use what is in memory
                raise

    async def _fold(self, partition: Partition, batch: Batch) -> None:
        if partition.position != batch.offset:  # read under an older assignment
            self._ownership.changed.set()
            return
        if partition.unchecked:
            await self._ownership.check_last(partition, batch.records[0])
            batch = Batch(batch.source, batch.offset + 1, batch.records[1:])
        await batches.process(self._context, partition, batch)
        self._out_of_range.pop(batch.source.partition, None)

    async def _lost_position(self, error: OffsetOutOfRangeError) -> None:
        """The log does not hold the position: the next lease finds out why. An end above it means a lost beginning."""
        number = error.source.partition
        partition = self._ownership.partitions.get(number)
        if partition is None:
            self._ownership.changed.set()
            return
        if partition.unchecked:
            await self._spare_checks()
            if not partition.unchecked:
                return
        end = await self._context.log.end(error.source)
        headless = end >= error.offset and self._out_of_range.get(number) == error.offset
        self._out_of_range[number] = error.offset
        reason = f"the log has no record at offset {error.offset}, it ends at {end}"
        if headless:
            reason = (
                f"the log has forgotten records from offset {error.offset} on that were not folded: retention is too "
                "short. This partition stands still; restore a backup of Redis that is newer, or the log"
            )
        self._ownership.drop(partition, reason, stop=headless)

    async def _spare_checks(self) -> None:
        """Of records that the log has forgotten by now: before an offset nobody needs them."""

        async def one(partition: Partition) -> None:
            begin = await self._context.log.begin(self._context.events(partition.number))
            partition.unchecked = begin <= partition.position

        unchecked = [p for p in self._ownership.partitions.values() if p.unchecked]
        await for_each(unchecked, one, at_once=AT_ONCE)
        self._ownership.changed.set()
