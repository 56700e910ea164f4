"""Reads from Kafka: one fetcher a reader, no group, positions that the caller gives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from wf_core.broker.kafka_client import AWAY, Replaceable, unavailable
from wf_core.broker.kafka_fetcher import Fetched, Fetcher
from wf_core.broker.protocol import Batch, OffsetOutOfRangeError, TopicPartition
from wf_core.settings import Settings


class KafkaReader:
    """Takes what was fetched into buffers, and hands it out in parts of `max_records`.

    `_positions` is what the caller has not read yet, `_next` what was not fetched yet: what lies between is buffered.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fetcher: Replaceable[Fetcher] = Replaceable(settings, lambda: Fetcher(settings))
        self._positions: dict[TopicPartition, int] = {}
        self._buffers: dict[TopicPartition, list[bytes]] = {}
        self._next: dict[TopicPartition, int] = {}

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these partitions from the next read on."""
        self._positions = dict(positions)
        self._buffers = {source: [] for source in positions}
        self._next = dict(positions)

    async def read(self, max_wait: float, max_records: int = 500) -> list[Batch]:
        """What has come; waits up to `max_wait` seconds for the first record."""
        if not self._positions:
            await asyncio.sleep(max_wait)
            return []
        await asyncio.sleep(0)  # a caller that never waits must not stop the fetcher
        clock = asyncio.get_running_loop().time
        deadline = clock() + max_wait
        await self._fetch(0.0, max_records)  # what came for one partition does not wait behind another's buffer
        while not (batches := self._hand_out(max_records)) and (wait := deadline - clock()) > 0:
            await self._fetch(wait, max_records)
        return batches

    async def close(self) -> None:
        """Disconnects."""
        await self._fetcher.close()

    def _hand_out(self, max_records: int) -> list[Batch]:
        batches = []
        for source, buffer in self._buffers.items():
            if buffer:
                records, self._buffers[source] = buffer[:max_records], buffer[max_records:]
                batches.append(Batch(source, self._positions[source], records))
                self._positions[source] += len(records)
        return batches

    async def _fetch(self, wait: float, max_records: int) -> None:
        """Takes in what was fetched, and has more fetched while the caller is busy with it.

        What fails is raised only when nothing else is there to hand out: it is met again.
        """
        fetcher = await self._fetcher.get()
        try:
            if not fetcher.asking:
                fetcher.begin(self._wanted(max_records))
            self._take_all_in(await fetcher.take(wait))
        except AWAY as error:
            if not any(self._buffers.values()):
                self._fetcher.retire(fetcher)
                raise unavailable(self._settings, error) from error
            fetcher.warn(error)
        fetcher.begin(self._wanted(max_records))

    def _wanted(self, max_records: int) -> dict[TopicPartition, int]:
        """The partitions whose buffers the next reading empties: more than that and one answer is not held."""
        return {source: self._next[source] for source, buffer in self._buffers.items() if len(buffer) <= max_records}

    def _take_all_in(self, answer: Iterable[Fetched]) -> None:
        """Raises OffsetOutOfRangeError or CorruptRecordException, after all others were taken in."""
        missing: Fetched | None = None
        damage: CorruptRecordException | None = None
        for fetched in answer:
            try:
                if not self._take_in(fetched):
                    missing = missing or fetched
            except CorruptRecordException as error:
                damage = error
        if missing:
            raise OffsetOutOfRangeError(missing.source, missing.offset)
        if damage:
            raise damage

    def _take_in(self, fetched: Fetched) -> bool:
        """False when the log does not hold the record that comes next."""
        source, offset, data = fetched
        if self._next.get(source) != offset:
            return True  # fetched under an older assignment
        values = None if data is None else _values(data, offset)
        if values is None:
            return False
        self._buffers[source] += values
        self._next[source] += len(values)
        return True


def _values(data: bytes, offset: int) -> list[bytes] | None:
    """The records from `offset` on, up to a gap; None when that is where the gap begins."""
    values: list[bytes] = []
    batches = MemoryRecords(data)
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"a record batch behind offset {offset} is damaged")
        for record in batch:  # the first batch may begin before `offset`
            expected = offset + len(values)
            if record.offset > expected or batch.is_control_batch:
                return values or None
            if record.offset == expected:
                values.append(record.value)
    return values
