"""Appends to Kafka: explicit batches, so that a group of records lands whole and in order, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from wf_core.broker.group_commit import Append, split
from wf_core.broker.kafka_client import Replaceable
from wf_core.broker.kafka_sender import Sender
from wf_core.broker.protocol import RecordTooLargeError, TopicPartition
from wf_core.settings import Settings

_BATCH_BYTES = 1024 * 1024
"""One record always fits (MAX_RECORD_BYTES); with its framing a batch stays below Kafka's `max.message.bytes`."""

Record = tuple[bytes | None, bytes]
"""Key and value."""


class Producer:
    """Builds batches and has them sent: no idempotence (copies are harmless), and a sender that fails is replaced."""

    def __init__(self, settings: Settings) -> None:
        self._sender: Replaceable[Sender] = Replaceable(settings, lambda: Sender(settings))

    async def start(self) -> None:
        """Connects. Raises LogUnavailableError."""
        await self._sender.get()

    async def close(self) -> None:
        """Disconnects."""
        await self._sender.close()

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
            count, batch = _batch(records[len(offsets) : len(offsets) + most])
            async with self._sender.use() as sender:
                first = await sender.deliver(source, batch)
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


def _batch(records: Sequence[Record]) -> tuple[int, bytes]:
    """As many records as fit, at least one: their number, and a batch of them as Kafka stores it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=_BATCH_BYTES,
    )
    count = 0
    while count < len(records):
        key, value = records[count]
        if builder.append(count, timestamp=None, key=key, value=value, headers=[]) is None:
            break
        count += 1
    return count, builder.build()
