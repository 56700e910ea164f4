"""Appends to Kafka: explicit batches, so that a group of records lands whole and in order, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from wf_core.broker.group_commit import Append, split
from wf_core.broker.kafka_client import AWAY, CALL_SECONDS, Replaceable, options, unavailable
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
        return split(group, await self._append(group[0].source, records))

    async def _append(self, source: TopicPartition, records: Sequence[Record]) -> list[int]:
        """Batch after batch: what follows a batch that failed must not land before it."""
        offsets: list[int] = []
        most = len(records)
        while len(offsets) < len(records):
            client = await self._client.get()
            batch = client.create_batch()
            count = _fill(batch, records[len(offsets) : len(offsets) + most])
            try:
                first = await self._deliver(client, batch, source)
            except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
                if count == 1:
                    raise RecordTooLargeError(
                        f"{source.topic} refuses a record of {len(records[len(offsets)][1]):,} bytes; "
                        "raise the topic's max.message.bytes to 1048588"
                    ) from error
                most = count // 2
                continue
            offsets.extend(range(first, first + count))
        return offsets

    async def _deliver(self, client: Any, batch: Any, source: TopicPartition) -> int:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                acknowledged = await client.send_batch(batch, source.topic, partition=source.partition)
                return int((await acknowledged).offset)
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            raise
        except AWAY as error:
            self._client.retire(client)
            raise unavailable(self._settings, error) from error


def _fill(batch: Any, records: Sequence[Record]) -> int:
    """Puts in as many records as fit, at least one; their number."""
    for count, (key, value) in enumerate(records):
        if batch.append(timestamp=None, key=key, value=value) is None:
            return count
    return len(records)
