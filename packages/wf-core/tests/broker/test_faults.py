"""The contract under faults: a server that is killed, one that hangs, a client that dies."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from wf_testservers import start_redis

from wf_core.broker.protocol import LogUnavailableError, OffsetOutOfRangeError


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    """A Redis whose kill loses nothing: with `everysec` a write may wait in its memory while a slow fsync goes on."""
    with start_redis(tmp_path_factory.mktemp("redis"), ["--appendfsync", "always"]) as server:
        yield server


async def until(condition, what: str, seconds: float = 30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.01)


class Appender:
    """Appends numbered records, each until it is acknowledged, and keeps what was acknowledged where."""

    def __init__(self, log, source):
        self.acknowledged: dict[int, bytes] = {}
        self.failures = 0
        self.stopping = False
        self._log = log
        self._source = source

    async def run(self):
        number = 0
        while not self.stopping:
            record = str(number).encode()
            try:
                (offset,) = await self._log.append(self._source, [record])
            except LogUnavailableError:
                self.failures += 1
                await asyncio.sleep(0.05)
                continue
            self.acknowledged[offset] = record
            number += 1


@pytest.mark.timeout(180)
async def test_nothing_that_was_acknowledged_is_lost_by_a_kill(log, source, reader, durable_server, collect):
    """SIGKILL while records are appended: appends fail as unavailable or succeed, and a parked reader sees them all."""
    appender = Appender(log, source)
    reader.assign({source: 0})
    appending = asyncio.create_task(appender.run())
    reading = asyncio.create_task(collect(reader, 10**9, seconds=150))
    await until(lambda: len(appender.acknowledged) > 50, "the first records")
    for _ in range(2):
        before = len(appender.acknowledged)
        await asyncio.to_thread(durable_server.restart)
        await until(lambda before=before: len(appender.acknowledged) > before + 50, "appends after the restart", 60)
    appender.stopping = True
    await appending
    assert not reading.done()  # neither OffsetOutOfRangeError nor anything else ended it
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    end = await log.end(source)
    again = log.reader()
    again.assign({source: 0})
    found = dict((await collect(again, end))[source])
    await again.close()
    assert sorted(found) == list(range(end))
    assert appender.acknowledged.items() <= found.items()


@pytest.mark.timeout(180)
async def test_a_reader_survives_a_kill_and_reads_each_record_once(log, source, reader, durable_server, collect):
    """The same reader goes on after a restart, in order and without gaps or repeats, while others append."""
    appender = Appender(log, source)
    reader.assign({source: 0})
    appending = asyncio.create_task(appender.run())
    first = await collect(reader, 30)
    await asyncio.to_thread(durable_server.restart)
    await until(lambda: max(appender.acknowledged, default=0) > len(first[source]) + 100, "appends", 60)
    appender.stopping = True
    await appending
    end = await log.end(source)
    found = first[source] + (await collect(reader, end - len(first[source]), seconds=60))[source]
    assert [offset for offset, _ in found] == list(range(end))
    assert appender.acknowledged.items() <= dict(found).items()


@pytest.mark.timeout(180)
async def test_a_server_that_hangs_is_unavailable_in_bounded_time(log, source, reader, server, collect):
    """SIGSTOP leaves connections open: append, end and read give up, and all work again after SIGCONT."""
    await log.append(source, [b"before"])
    reader.assign({source: 0})
    await collect(reader, 1)
    process = getattr(server, "process", None) or server.node.process
    process.pause()
    try:
        begun = time.monotonic()
        results = await asyncio.gather(
            log.append(source, [b"during"]), log.end(source), _read_until_error(reader), return_exceptions=True
        )
        assert [type(result) for result in results] == [LogUnavailableError] * 3
        assert time.monotonic() - begun < 30
    finally:
        process.resume()
    appender = Appender(log, source)
    appending = asyncio.create_task(appender.run())
    await until(lambda: appender.acknowledged, "an append after the pause")
    appender.stopping = True
    await appending
    found = (await collect(reader, await log.end(source) - 1))[source]
    assert [offset for offset, _ in found] == list(range(1, len(found) + 1))
    assert appender.acknowledged.items() <= dict(found).items()


async def _read_until_error(reader, *, patient=False):
    """Reads until an error; a patient caller tries again while the log is unavailable."""
    async with asyncio.timeout(30):
        while True:
            try:
                await reader.read(0.5)
            except LogUnavailableError:
                if not patient:
                    raise


@pytest.mark.parametrize("log_driver", ["redis"], indirect=True)
async def test_the_redis_log_survives_forgotten_scripts(log, source, redis):
    """SCRIPT FLUSH between two appends changes nothing."""
    await log.append(source, [b"a"])
    await redis.script_flush()
    assert await log.append(source, [b"b"]) == [1]


@pytest.mark.parametrize("log_driver", ["redis"], indirect=True)
async def test_a_redis_log_that_rolled_back_tells_its_readers(log, source, reader, redis):
    """A tail that is gone (a power cut) puts a reader past the end: an error, never a silent wait."""
    await log.append(source, [b"a", b"b", b"c"])
    reader.assign({source: 3})
    assert await reader.read(0.05) == []
    await redis.delete(*[key async for key in redis.scan_iter(match=f"{source.topic.split('.')[0]}:*log*")])
    with pytest.raises(OffsetOutOfRangeError):
        await reader.read(0.05)


@pytest.mark.parametrize("log_driver", ["kafka"], indirect=True)
async def test_a_sender_that_is_broken_is_replaced(log, source, monkeypatch):
    """A connection may be lost to an unexpected error: that append fails, the next one has a new connection."""
    await log.append(source, [b"a"])
    sender = await log._producer._sender.get()

    async def broken(*_):
        raise RuntimeError("as if by a bug")

    monkeypatch.setattr(sender._client, "send", broken)
    with pytest.raises(LogUnavailableError):
        await log.append(source, [b"b"])
    assert await log.append(source, [b"c"]) == [1]
    assert await log._producer._sender.get() is not sender


@pytest.mark.parametrize("log_driver", ["kafka"], indirect=True)
async def test_records_that_kafka_deleted_are_out_of_range(log, source, reader, settings, kafka_server):
    """Retention moved the start of the log above a position: the reader says so."""
    if kafka_server.kind == "stand-in":
        pytest.skip("the stand-in deletes no records")
    from aiokafka import TopicPartition as KafkaPartition
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

    await log.append(source, [b"a", b"b", b"c"])
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    await admin.delete_records({KafkaPartition(*source): RecordsToDelete(2)}, timeout_ms=5000)
    await admin.close()
    assert await log.begin(source) == 2
    reader.assign({source: 1})
    with pytest.raises(OffsetOutOfRangeError):
        await _read_until_error(reader)
    reader.assign({source: 2})
    (batch,) = await reader.read(10)
    assert (batch.offset, list(batch.records)) == (2, [b"c"])


@pytest.mark.parametrize("log_driver", ["kafka"], indirect=True)
async def test_a_topic_that_was_deleted_and_created_again_is_out_of_range(
    log, source, reader, collect, admin, kafka_server
):
    """A reader that waits at the old end is told, though the new topic has records; from its beginning it reads them.

    Only a new topic that already reaches that far goes unnoticed here: the hash of the last folded record, and the
    log's incarnation, are for that.
    """
    if kafka_server.kind == "stand-in":
        pytest.skip("the stand-in creates a topic by itself when a reader asks for it")
    await log.append(source, [b"a", b"b", b"c"])
    reader.assign({source: 0})
    await collect(reader, 3)
    waiting = asyncio.create_task(_read_until_error(reader, patient=True))
    await admin.delete_topics([source.topic])
    await until_created(log, source.topic)
    assert await log.append(source, [b"new"]) == [0]
    with pytest.raises(OffsetOutOfRangeError) as caught:
        await waiting
    assert (caught.value.source, caught.value.offset) == (source, 3)
    assert (await log.begin(source), await log.end(source)) == (0, 1)
    reader.assign({source: 0})
    assert (await collect(reader, 1))[source] == [(0, b"new")]


async def until_created(log, topic):
    """The broker deletes in the background, and until then finds that the topic exists."""
    async with asyncio.timeout(30):
        while await log.examine_topics({topic: 3}):
            with contextlib.suppress(LogUnavailableError):
                await log.ensure_topics({topic: 3})
