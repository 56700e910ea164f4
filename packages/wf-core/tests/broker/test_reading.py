"""The contract of readers, on every driver: order, positions, assignments, waiting."""

from __future__ import annotations

import asyncio
import time

import pytest

from wf_core.broker.protocol import Batch, LogReader, OffsetOutOfRangeError, TopicPartition


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


async def read_until_error(reader: LogReader) -> None:
    async with asyncio.timeout(10):
        while True:
            assert await reader.read(0.5) == []


async def test_a_reader_starts_where_it_is_told(log, source, reader, collect):
    """From offset 7 of ten records come the last three."""
    await log.append(source, numbered(10))
    reader.assign({source: 7})
    found = await collect(reader, 3)
    assert found[source] == [(7, b"7"), (8, b"8"), (9, b"9")]


async def test_a_reader_reads_all_that_it_is_assigned(log, topic, reader, collect):
    """Each partition comes in order, none is mistaken for another."""
    sources = [TopicPartition(topic, partition) for partition in range(3)]
    for source in sources:
        await log.append(source, [b"%d/%d" % (source.partition, n) for n in range(5)])
    reader.assign(dict.fromkeys(sources, 0))
    found = await collect(reader, 15)
    for source in sources:
        assert found[source] == [(n, b"%d/%d" % (source.partition, n)) for n in range(5)]


async def test_at_most_so_many_records_of_a_partition_come_at_once(log, topic, reader, collect):
    """`max_records` bounds each batch; nothing is lost between two reads."""
    sources = [TopicPartition(topic, partition) for partition in range(2)]
    for source in sources:
        await log.append(source, numbered(100))
    reader.assign(dict.fromkeys(sources, 0))
    found = await collect(reader, 200, max_records=7)
    for source in sources:
        assert found[source] == list(enumerate(numbered(100)))


async def test_two_readers_do_not_know_each_other(log, source, collect):
    """Reading takes nothing away: each reader gets everything from its own position."""
    await log.append(source, numbered(5))
    first, second = log.reader(), log.reader()
    first.assign({source: 0})
    second.assign({source: 3})
    assert (await collect(first, 5))[source] == list(enumerate(numbered(5)))
    assert (await collect(second, 2))[source] == [(3, b"3"), (4, b"4")]
    await first.close()
    await second.close()


async def test_a_new_assignment_replaces_the_old_one(log, topic, reader, collect):
    """What is no longer assigned never comes; what stays comes from the position that is given, again if it says so."""
    kept, dropped, added = (TopicPartition(topic, partition) for partition in range(3))
    for source in (kept, dropped, added):
        await log.append(source, numbered(4))
    reader.assign({kept: 0, dropped: 0})
    await collect(reader, 8)
    for source in (kept, dropped, added):
        await log.append(source, [b"new"])
    reader.assign({kept: 2, added: 1})
    found = await collect(reader, 7)
    assert found == {kept: [(2, b"2"), (3, b"3"), (4, b"new")], added: [(1, b"1"), (2, b"2"), (3, b"3"), (4, b"new")]}
    assert await reader.read(0.2) == []


async def test_records_read_under_an_older_assignment_are_thrown_away(log, source, reader, collect):
    """An assignment made while a read waits: that read returns none of the old, the next begins where it says."""
    await log.append(source, numbered(6))
    reader.assign({source: 6})
    waiting = asyncio.create_task(reader.read(5))
    await asyncio.sleep(0.05)
    reader.assign({source: 2})
    await log.append(source, [b"6"])
    first = await waiting
    assert all(batch.offset == 2 for batch in first)
    early = sum(len(batch.records) for batch in first)
    assert early in (0, 5)
    if not early:
        found = await collect(reader, 5)
        assert found[source] == [(n, str(n).encode()) for n in range(2, 7)]


async def test_assigning_again_and_again_loses_nothing(log, topic, reader, collect):
    """Leases come and go every second: positions carried over from one assignment to the next see each record once."""
    positions = {TopicPartition(topic, partition): 0 for partition in range(3)}
    got: dict[TopicPartition, list[int]] = {source: [] for source in positions}
    for turn in range(12):
        await asyncio.gather(*(log.append(source, numbered(3)) for source in positions))
        leased = {source: offset for source, offset in positions.items() if source.partition != turn % 3}
        reader.assign(leased)
        for batch in await reader.read(0.3):
            assert batch.offset == positions[batch.source]
            positions[batch.source] = batch.next
            got[batch.source] += range(batch.offset, batch.next)
    reader.assign(positions)
    for source, records in (await collect(reader, 12 * 9 - sum(positions.values()))).items():
        got[source] += [offset for offset, _ in records]
    assert got == {source: list(range(36)) for source in positions}


async def test_a_read_without_records_waits_as_long_as_it_is_told(log, source, reader):
    """Nothing came: an empty list, not before `max_wait` and not long after."""
    reader.assign({source: 0})
    await reader.read(0.5)
    begun = time.monotonic()
    assert await reader.read(0.3) == []
    assert 0.25 < time.monotonic() - begun < 2


async def test_a_read_without_an_assignment_waits_too(reader):
    """A service that owns nothing yet does not spin."""
    begun = time.monotonic()
    assert await reader.read(0.2) == []
    assert time.monotonic() - begun > 0.15


async def test_a_read_that_does_not_wait_gets_what_is_there(log, source, reader):
    """`max_wait` 0 polls, and a caller that does nothing else still gets everything."""
    await log.append(source, numbered(3))
    reader.assign({source: 0})
    records: list[bytes] = []
    async with asyncio.timeout(10):
        while len(records) < 3:
            records += [record for batch in await reader.read(0) for record in batch.records]
    assert records == numbered(3)


async def test_a_waiting_read_wakes_when_a_record_comes(log, source, reader):
    """A parked read of 30 s returns at once with the first record."""
    reader.assign({source: 0})
    assert await reader.read(0.2) == []
    waiting = asyncio.create_task(reader.read(30))
    await asyncio.sleep(0.1)
    appended = time.monotonic()
    await log.append(source, [b"hello"])
    (batch,) = await waiting
    assert (batch.source, batch.offset, list(batch.records), batch.next) == (source, 0, [b"hello"], 1)
    assert time.monotonic() - appended < 2


async def test_a_waiting_reader_keeps_no_one_else_waiting(log, source):
    """Many parked readers leave appends and reads of others as quick as before."""
    readers = [log.reader() for _ in range(8)]
    for reader in readers:
        reader.assign({source: 0})
    waiting = [asyncio.create_task(reader.read(30)) for reader in readers]
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    assert await log.end(source) == 0
    await log.append(source, [b"a"])
    for batches in await asyncio.gather(*waiting):
        assert batches[0].records == [b"a"]
    assert time.monotonic() - begun < 5
    await asyncio.gather(*(reader.close() for reader in readers))


async def test_a_cancelled_read_loses_nothing(log, source, reader, collect):
    """A service that is stopped and goes on reads on where it was."""
    reader.assign({source: 0})
    records: list[bytes] = []
    for turn in range(6):
        waiting = asyncio.create_task(reader.read(30))
        await asyncio.sleep(0.02 * turn)
        waiting.cancel()
        (batches,) = await asyncio.gather(waiting, return_exceptions=True)
        if not isinstance(batches, asyncio.CancelledError):
            records += [record for batch in batches for record in batch.records]
        await log.append(source, [b"%d" % turn])
    if missing := 6 - len(records):
        records += [record for _, record in (await collect(reader, missing))[source]]
    assert records == numbered(6)


async def test_a_position_past_the_end_is_an_error(log, source, reader):
    """The log lost its tail, or the position is another log's: the error names both, as often as one reads."""
    await log.append(source, numbered(3))
    reader.assign({source: 4})
    for _ in range(2):
        with pytest.raises(OffsetOutOfRangeError) as caught:
            await read_until_error(reader)
        assert (caught.value.source, caught.value.offset) == (source, 4)


async def test_a_bad_position_of_one_partition_spoils_no_other(log, topic, reader, collect):
    """After the error the caller assigns again, and the good partition lost nothing."""
    good, bad = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await log.append(good, numbered(5))
    reader.assign({good: 0, bad: 9})
    read: list[Batch] = []

    async def read_on() -> None:
        async with asyncio.timeout(10):
            while True:
                read.extend(await reader.read(0.5))

    with pytest.raises(OffsetOutOfRangeError):
        await read_on()
    position = sum(len(batch.records) for batch in read)
    assert [offset for batch in read for offset in range(batch.offset, batch.next)] == list(range(position))
    reader.assign({good: position, bad: 0})
    await log.append(bad, [b"a"])
    found = await collect(reader, 6 - position)
    assert found[bad] == [(0, b"a")]
    assert found.get(good, []) == list(enumerate(numbered(5)))[position:]
