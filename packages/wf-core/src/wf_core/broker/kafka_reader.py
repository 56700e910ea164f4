"""Reads from Kafka: one aiokafka consumer a reader, no group, positions that the caller gives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import OffsetOutOfRangeError as KafkaOffsetOutOfRangeError

from wf_core.broker.kafka_client import AWAY, REQUEST_SECONDS, Replaceable, options, unavailable
from wf_core.broker.protocol import Batch, OffsetOutOfRangeError, TopicPartition
from wf_core.settings import Settings

# A connection answers one request at a time, so a parked fetch delays whatever comes after it by this much.
_FETCH_WAIT_MS = 50


class KafkaReader:
    """Takes what the consumer fetched into buffers of its own, and hands it out in parts of `max_records`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Replaceable[Any] = Replaceable(settings, lambda: _consumer(settings))
        self._positions: dict[TopicPartition, int] = {}
        self._buffers: dict[TopicPartition, list[bytes]] = {}
        self._gaps: dict[TopicPartition, int] = {}
        self._epoch = 0
        self._applied: tuple[Any, int] | None = None
        self._heard_at = 0.0
        self._heard: int | None = None

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these partitions from the next read on."""
        self._positions = dict(positions)
        self._buffers = {source: [] for source in positions}
        self._gaps = {}
        self._epoch += 1

    async def read(self, max_wait: float, max_records: int = 500) -> list[Batch]:
        """What has come; waits up to `max_wait` seconds for the first record."""
        if not self._positions:
            await asyncio.sleep(max_wait)
            return []
        await asyncio.sleep(0)  # a caller that never waits must not stop the fetcher
        clock = asyncio.get_running_loop().time
        deadline = clock() + max_wait
        while not (batches := self._hand_out(max_records)):
            wait = deadline - clock()
            await self._fetch(max(0.0, wait))
            if wait <= 0:
                return self._hand_out(max_records)
        return batches

    async def close(self) -> None:
        """Disconnects."""
        await self._client.close()

    def _hand_out(self, max_records: int) -> list[Batch]:
        batches = []
        for source, buffer in self._buffers.items():
            if buffer:
                records, self._buffers[source] = buffer[:max_records], buffer[max_records:]
                batches.append(Batch(source, self._positions[source], records))
                self._positions[source] += len(records)
        return batches

    async def _fetch(self, wait: float) -> None:
        consumer = await self._client.get()
        epoch = self._epoch
        if self._applied != (consumer, epoch):
            self._apply(consumer)
        try:
            fetched = await consumer.getmany(timeout_ms=int(wait * 1000))
        except KafkaOffsetOutOfRangeError as error:
            self._applied = None
            source, offset = next(iter(error.args[0].items()))
            raise OffsetOutOfRangeError(TopicPartition(*source), offset) from error
        except AWAY as error:
            self._client.retire(consumer)
            raise unavailable(self._settings, error) from error
        if epoch != self._epoch:
            return  # read under an older assignment; the next fetch seeks every partition
        for source, records in fetched.items():
            self._take(consumer, TopicPartition(*source), records)
        self._listen(consumer)

    def _apply(self, consumer: Any) -> None:
        """`assign` forgets what was fetched and where, so every partition is sought. Nothing runs in between."""
        consumer.assign([KafkaPartition(*source) for source in self._positions])
        for source in self._positions:
            consumer.seek(KafkaPartition(*source), self._next(source))
        self._applied = (consumer, self._epoch)
        self._heard_at = asyncio.get_running_loop().time()
        self._heard = None

    def _next(self, source: TopicPartition) -> int:
        return self._positions[source] + len(self._buffers[source])

    def _take(self, consumer: Any, source: TopicPartition, records: Sequence[Any]) -> None:
        expected = self._next(source)
        if records[0].offset != expected or records[-1].offset != expected + len(records) - 1:
            records = [record for record in records if record.offset >= expected]
            whole = next((i for i, record in enumerate(records) if record.offset != expected + i), len(records))
            if whole < len(records):
                self._doubt(consumer, source, expected + whole)
            records = records[:whole]
        self._buffers[source].extend(record.value for record in records)

    def _doubt(self, consumer: Any, source: TopicPartition, offset: int) -> None:
        """A gap may be the remains of an older fetch: it is believed when a fresh one shows it again."""
        if self._gaps.get(source) == offset:
            self._applied = None
            raise OffsetOutOfRangeError(source, offset)
        self._gaps[source] = offset
        consumer.seek(KafkaPartition(*source), offset)

    def _listen(self, consumer: Any) -> None:
        """The fetcher hides a broker that is away; this notices that no fetch was answered for too long."""
        answered = (consumer.last_poll_timestamp(KafkaPartition(*source)) for source in self._positions)
        heard = max((time for time in answered if time is not None), default=None)
        now = asyncio.get_running_loop().time()
        if heard != self._heard:
            self._heard, self._heard_at = heard, now
        elif now - self._heard_at > REQUEST_SECONDS:
            self._client.retire(consumer)
            raise unavailable(self._settings, TimeoutError(f"no fetch was answered for {REQUEST_SECONDS:g} s"))


def _consumer(settings: Settings) -> Any:
    return AIOKafkaConsumer(
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        **options(settings),
    )
