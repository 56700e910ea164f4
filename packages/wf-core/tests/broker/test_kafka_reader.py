"""What the reader makes of what was fetched; the fetcher is a stand-in, needs no broker."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from wf_core.broker import kafka_reader
from wf_core.broker.kafka_client import Replaceable
from wf_core.broker.kafka_fetcher import Fetched
from wf_core.broker.kafka_reader import KafkaReader
from wf_core.broker.protocol import Batch, LogUnavailableError, OffsetOutOfRangeError, TopicPartition
from wf_core.settings import Settings

A, B = (TopicPartition("a", 0), TopicPartition("a", 1))


class Stored:
    """Stands in for a fetcher: has the same batch for every partition that it is asked for, or others for some."""

    def __init__(self, data: bytes) -> None:
        self.asking = False
        self.data = data
        self.others: dict[TopicPartition, bytes] = {}
        self.wanted: dict[TopicPartition, int] = {}
        self.warnings: list[Exception] = []

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    def begin(self, wanted: dict[TopicPartition, int]) -> None:
        self.wanted = dict(wanted)

    async def take(self, _: float) -> list[Fetched]:
        wanted = self.wanted.items()
        return [Fetched(source, offset, self.others.get(source, self.data)) for source, offset in wanted]

    def warn(self, error: Exception) -> None:
        self.warnings.append(error)


def stored(*offsets: int) -> bytearray:
    """A batch as Kafka stores it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=10_000,
    )
    for offset in offsets:
        builder.append(offset, timestamp=None, key=None, value=b"%d" % offset, headers=[])
    data: bytearray = builder.build()
    return data


def reading_from(fetcher: Stored, positions: dict[TopicPartition, int]) -> KafkaReader:
    reader = KafkaReader(Settings())
    reader._fetcher = Replaceable(Settings(), lambda: fetcher)  # type: ignore[arg-type,return-value]
    reader.assign(positions)
    return reader


def reading(data: bytes, position: int) -> KafkaReader:
    return reading_from(Stored(data), {A: position})


async def test_a_batch_may_begin_before_the_position():
    """Kafka sends whole batches."""
    reader = reading(bytes(stored(0, 1, 2, 3)), 2)
    assert await reader.read(1) == [Batch(A, 2, [b"2", b"3"])]
    await reader.close()


async def test_records_that_are_missing_are_out_of_range():
    """What is before the gap is read, the rest never as if it came next."""
    reader = reading(bytes(stored(0, 1, 3)), 0)
    assert await reader.read(1) == [Batch(A, 0, [b"0", b"1"])]
    with pytest.raises(OffsetOutOfRangeError) as caught:
        await reader.read(1)
    assert (caught.value.source, caught.value.offset) == (A, 2)
    await reader.close()


async def test_marks_of_a_transaction_are_no_records():
    """Somebody else's: they take up offsets, so there is a gap."""
    data = stored(0, 1)
    data[22] |= 0x20  # the attribute "control batch"
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    reader = reading(bytes(data), 0)
    with pytest.raises(OffsetOutOfRangeError):
        await reader.read(1)
    await reader.close()


async def test_a_batch_that_is_cut_off_is_no_gap():
    """An answer that is full ends in the middle of one; the next answer begins with it."""
    reader = reading(bytes(stored(0, 1)[:-3]), 0)
    assert await reader.read(0) == []
    await reader.close()


async def test_a_damaged_batch_is_not_read():
    """It may be whole when it is fetched again."""
    data = stored(0, 1)
    data[-2] ^= 1
    reader = reading(bytes(data), 0)
    with pytest.raises(LogUnavailableError, match="damaged"):
        await reader.read(1)
    await reader.close()


async def test_a_damaged_batch_spoils_no_other_partition():
    """The others are read first; the damage is an error once there is nothing else."""
    damaged = stored(0, 1)
    damaged[-2] ^= 1
    fetcher = Stored(bytes(damaged))
    fetcher.others = {B: bytes(stored(0, 1))}
    reader = reading_from(fetcher, {A: 0, B: 0})
    assert await reader.read(1) == [Batch(B, 0, [b"0", b"1"])]
    assert "damaged" in str(fetcher.warnings[0])
    fetcher.others = {B: b""}
    with pytest.raises(LogUnavailableError, match="damaged"):
        await reader.read(1)
    await reader.close()


async def test_fresh_records_do_not_wait_behind_a_buffer():
    """One partition's is handed out in parts; what comes for another meanwhile is handed out with them."""
    fetcher = Stored(b"")
    fetcher.others = {A: bytes(stored(*range(6)))}
    reader = reading_from(fetcher, {A: 0, B: 0})
    assert await reader.read(1, 2) == [Batch(A, 0, [b"0", b"1"])]
    fetcher.others = {B: bytes(stored(0))}
    assert fetcher.wanted == {B: 0}  # there is enough of A
    assert await reader.read(1, 2) == [Batch(A, 2, [b"2", b"3"]), Batch(B, 0, [b"0"])]
    assert await reader.read(1, 2) == [Batch(A, 4, [b"4", b"5"])]
    assert fetcher.wanted == {A: 6, B: 1}
    await reader.close()


def test_old_remains_are_thrown_away():
    """A fetch that was under way when the assignment changed is no answer to what is wanted now."""
    reader = KafkaReader(Settings())
    reader.assign({A: 2})
    data = bytes(stored(0, 1, 2, 3))
    assert reader._take_in(Fetched(A, 0, data))
    assert reader._take_in(Fetched(B, 0, None))
    assert reader._next == {A: 2}
    assert kafka_reader._values(data, 2) == [b"2", b"3"]
