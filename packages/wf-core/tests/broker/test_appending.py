"""The contract of the log, on every driver: what `append`, `end`, `trim` and `ensure_topics` promise."""

from __future__ import annotations

import asyncio
import time

import pytest

from wf_core.broker.open import open_log
from wf_core.broker.protocol import (
    MAX_RECORD_BYTES,
    LogUnavailableError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicPartition,
)
from wf_core.errors import SetupError
from wf_core.store.client import connect


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


async def test_offsets_are_consecutive_and_start_at_zero(log, source):
    """The first record of a partition has offset 0, each next one more, over several appends."""
    assert await log.append(source, [b"a", b"b"], b"key") == [0, 1]
    assert await log.append(source, [b"c"]) == [2]
    assert await log.append(source, []) == []


async def test_partitions_count_for_themselves(log, topic):
    """An append to one partition moves no other's offsets."""
    assert await log.append(TopicPartition(topic, 0), [b"a", b"b"]) == [0, 1]
    assert await log.append(TopicPartition(topic, 2), [b"a"]) == [0]


async def test_end_is_the_offset_of_the_next_record(log, source):
    """An empty partition ends at 0; after three records the end is 3."""
    assert await log.end(source) == 0
    await log.append(source, numbered(3))
    assert await log.end(source) == 3


async def test_the_beginning_is_the_oldest_record_that_is_there(log, source):
    """0 in a new partition, whatever was appended; an empty partition begins where it ends."""
    assert await log.begin(source) == await log.end(source) == 0
    await log.append(source, numbered(3))
    assert await log.begin(source) == 0


async def test_ten_thousand_records_in_one_append_keep_their_order(log, source, reader, collect):
    """A large append is split on its way and arrives as it was given."""
    records = numbered(10_000)
    assert await log.append(source, records) == list(range(10_000))
    reader.assign({source: 0})
    found = await collect(reader, 10_000)
    assert found[source] == list(enumerate(records))


async def test_records_of_nearly_the_limit_travel(log, source, reader, collect):
    """Megabytes in one append, more than any one request takes."""
    records = [bytes([number]) * MAX_RECORD_BYTES for number in range(6)]
    assert await log.append(source, records) == list(range(6))
    reader.assign({source: 0})
    found = await collect(reader, 6)
    assert found[source] == list(enumerate(records))


async def test_a_record_that_is_too_large_is_refused_alone(log, source):
    """It is refused for good, nothing of its append is written, and appends beside it go on."""
    beside = asyncio.create_task(log.append(source, [b"beside"]))
    with pytest.raises(RecordTooLargeError, match=r"1,000,001"):
        await log.append(source, [b"small", b"x" * (MAX_RECORD_BYTES + 1)])
    assert await beside == [0]
    assert await log.end(source) == 1


@pytest.mark.parametrize("log_driver", ["kafka"], indirect=True)
async def test_a_record_that_the_topic_refuses_fails_no_neighbour(log, source, kafka_server, configure):
    """Appends that travelled with it are acknowledged, in their order and once each; its own caller alone is told."""
    if kafka_server.kind == "stand-in":
        pytest.skip("the stand-in takes records of any size")
    await configure(source.topic, {"max.message.bytes": "10000"})
    small, large = [b"s" * 2000], [b"x" * 50_000]
    first = asyncio.create_task(log.append(source, [b"first"]))  # the others wait for it, and then travel together
    sizes = [small, large, small, [b"half" * 1500, b"half" * 1500], small]
    results = await asyncio.gather(*(log.append(source, records) for records in sizes), return_exceptions=True)
    assert await first == [0]
    assert isinstance(results[1], RecordTooLargeError)
    assert "50,000 bytes" in str(results[1])
    assert "max.message.bytes" in str(results[1])
    assert [result for result in results if isinstance(result, list)] == [[1], [2], [3, 4], [5]]
    assert await log.end(source) == 6


async def test_concurrent_appends_keep_each_ones_order(log, topic, reader, collect):
    """A hundred callers at once: every offset is given once, and each caller's records stay in their order."""
    appends = [(TopicPartition(topic, caller % 3), [b"%d/%d" % (caller, n) for n in range(20)]) for caller in range(99)]
    offsets = await asyncio.gather(*(log.append(source, records) for source, records in appends))
    reader.assign({TopicPartition(topic, partition): 0 for partition in range(3)})
    found = await collect(reader, 99 * 20)
    for (source, records), own in zip(appends, offsets, strict=True):
        assert own == sorted(own)
        assert [dict(found[source])[offset] for offset in own] == records
    for partition in range(3):
        assert [offset for offset, _ in found[TopicPartition(topic, partition)]] == list(range(33 * 20))


async def test_appends_of_one_caller_arrive_in_the_order_of_the_calls(log, source, reader, collect):
    """Calls that were made one after the other, none awaited, land in that order."""
    await asyncio.gather(*(log.append(source, [record]) for record in numbered(500)))
    reader.assign({source: 0})
    found = await collect(reader, 500)
    assert [record for _, record in found[source]] == numbered(500)


async def test_a_cancelled_append_does_not_disturb_others(log, source):
    """Cancelling one caller leaves the appends beside it alone."""
    tasks = [asyncio.create_task(log.append(source, [record])) for record in numbered(20)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[3], asyncio.CancelledError)
    assert all(isinstance(result, list) for number, result in enumerate(results) if number != 3)


async def test_topics_may_be_ensured_again(log, topic, source):
    """Every service does so at its start; the records stay."""
    await log.append(source, [b"a"])
    await log.ensure_topics({topic: 3, f"{topic}.more": 1})
    assert await log.end(source) == 1
    assert await log.append(TopicPartition(f"{topic}.more", 0), [b"a"]) == [0]


async def test_another_number_of_partitions_is_refused(log, topic):
    """A topic keeps the number of partitions that it was created with; the sentence names both."""
    with pytest.raises(SetupError, match=rf"{topic} has 3 partitions and not 4"):
        await log.ensure_topics({topic: 4})


async def test_topics_may_be_created_by_several_at_once(log, settings):
    """Two services that start together both succeed."""
    name = f"{settings.namespace}.race"
    await asyncio.gather(*(log.ensure_topics({name: 2}) for _ in range(3)))
    assert await log.append(TopicPartition(name, 1), [b"a"]) == [0]


async def test_trimming_keeps_what_is_not_below(log, source, reader, collect):
    """Records from `before` on stay readable and offsets go on, even when nothing is left."""
    await log.append(source, numbered(10))
    await log.trim(source, 4)
    reader.assign({source: 4})
    found = await collect(reader, 6)
    assert found[source] == list(enumerate(numbered(10)))[4:]
    await log.trim(source, 10)
    assert await log.end(source) == 10
    assert await log.append(source, [b"next"]) == [10]
    found = await collect(reader, 1)
    assert found[source] == [(10, b"next")]


@pytest.mark.parametrize("log_driver", ["redis"], indirect=True)
async def test_the_redis_log_forgets_what_is_trimmed(log, source, reader):
    """Whoever still wants a trimmed record is told so, parked or not, and a later trim to below changes nothing."""
    await log.append(source, numbered(10))
    await log.trim(source, 99)
    await log.trim(source, 5)
    assert await log.begin(source) == 10
    for position in (0, 9):
        reader.assign({source: position})
        with pytest.raises(OffsetOutOfRangeError):
            await reader.read(0.1)
    reader.assign({source: 10})
    assert await reader.read(0.01) == []


async def test_a_log_that_is_away_at_the_start_is_given_up_in_time(settings, redis, log_driver):
    """`start` tries for `connect_seconds` and then says where it looked."""
    away = settings.model_copy(
        update={"connect_seconds": 0.5, "kafka_bootstrap_servers": "127.0.0.1:1", "redis_host": "127.0.0.1"}
    )
    client = redis
    if log_driver == "redis":
        away = away.model_copy(update={"redis_port": 1})
        client = connect(away)
    log = open_log(away, client)
    begun = time.monotonic()
    with pytest.raises(LogUnavailableError, match=r"127\.0\.0\.1:1"):
        await log.start()
    assert time.monotonic() - begun < 5
    await log.close()
    if log_driver == "redis":
        await client.aclose()
