"""Appends to Kafka: explicit batches, so that a group of records lands whole and in order, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from wf_core.broker.group_commit import Append, split
from wf_core.broker.kafka_client import Replaceable, options
from wf_core.broker.protocol import RecordTooLargeError, TopicPartition
from wf_core.settings import Settings

_BATCH_BYTES = 1024 * 1024
"""One record always fits (MAX_RECORD_BYTES); with its framing a batch stays below Kafka's `max.message.bytes`."""

Record = tuple[bytes | None, bytes]
"""Key and value."""


class Producer:
    """aiokafka's producer: all replicas acknowledge, no idempotence (copies are harmless), replaced when it fails."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Replaceable[Any] = Replaceable(
            settings, lambda: AIOKafkaProducer(acks="all", max_batch_size=_BATCH_BYTES, **options(settings))
        )

    async def start(self) -> None:
        """Connects. Raises LogUnavailableError."""
        await self._client.get()

    async def close(self) -> None:
        """Disconnects."""
        await self._client.close()

    async def send(self, group: Sequence[Append]) -> list[list[int]]:
        """Appends a group whose appends have one partition; the offsets of each. Raises as `GroupCommit` wants it."""
        records = [(append.key, record) for append in group for record in append.records]
        return split(group, await self._append(group[0].source, records, alone=len(group) == 1))

    async def _append(self, source: TopicPartition, records: Sequence[Record], *, alone: bool) -> list[int]:
        """Batch after batch: what follows a batch that failed must not land before it.

        A batch that is too large is cut only when it is one append's `alone`: else each will be sent by itself, and
        what was sent before that would land twice.
        """
        offsets: list[int] = []
        most = len(records)
        while len(offsets) < len(records):
            async with self._client.use() as client:
                batch = client.create_batch()
                count = _fill(batch, records[len(offsets) : len(offsets) + most])
                first = await _deliver(client, batch, source)
            if first is not None:
                offsets.extend(range(first, first + count))
            elif count == 1 or not alone:
                raise RecordTooLargeError(
                    f"{source.topic} refuses a record of {len(records[len(offsets)][1]):,} bytes; "
                    "raise the topic's max.message.bytes to 1048588"
                )
            else:
                most = count // 2
        return offsets


async def _deliver(client: Any, batch: Any, source: TopicPartition) -> int | None:
    """The offset of the batch's first record; None when the broker finds the batch too large."""
    try:
        acknowledged = await client.send_batch(batch, source.topic, partition=source.partition)
        acknowledged.add_done_callback(_look_at)
        return int((await asyncio.shield(acknowledged)).offset)
    except (MessageSizeTooLargeError, RecordListTooLargeError):
        return None


def _look_at(acknowledged: asyncio.Future[Any]) -> None:
    """A batch may fail when its caller has given up, and asyncio complains of an error that nobody looked at."""
    if not acknowledged.cancelled():
        acknowledged.exception()


def _fill(batch: Any, records: Sequence[Record]) -> int:
    """Puts in as many records as fit, at least one; their number."""
    for count, (key, value) in enumerate(records):
        if batch.append(timestamp=None, key=key, value=value) is None:
            return count
    return len(records)
