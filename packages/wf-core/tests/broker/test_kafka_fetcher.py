"""What a broker is told in a fetch session, and what is made of its answers; the connections are a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    FetchSessionIdNotFound,
    KafkaConnectionError,
    KafkaError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from wf_core.broker import kafka_fetcher, kafka_reader
from wf_core.broker.kafka_client import Replaceable
from wf_core.broker.kafka_fetcher import Fetched, Fetcher
from wf_core.broker.kafka_reader import KafkaReader
from wf_core.broker.protocol import Batch, LogUnavailableError, TopicPartition
from wf_core.broker.protocol import OffsetOutOfRangeError as OutOfRange
from wf_core.settings import Settings

A, B, C = (TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0))

Answer = Callable[[], Any]


def answer(*parts: tuple[TopicPartition, type[KafkaError] | None, bytes], session: int = 5, error: int = 0) -> Answer:
    """A broker's: for each partition an error or none, and data."""
    topics = [(s.topic, [(s.partition, code.errno if code else 0, 9, 9, 0, [], data)]) for s, code, data in parts]
    return lambda: SimpleNamespace(session_id=session, error_code=error, topics=topics)


class Connections:
    """Stands in for aiokafka's client: notes each request, and answers it with its broker's next answer, else never."""

    def __init__(self, **_: Any) -> None:
        self.version = 11
        self.leaders: dict[TopicPartition, int] = {A: 1, B: 1, C: 1}
        self.cluster = SimpleNamespace(leader_for_partition=self.leaders.get)
        self.requests: list[Any] = []
        self.answers: dict[int, Iterator[Answer | Exception]] = {1: iter(()), 2: iter(())}
        self.refreshed = 0
        self.delays: dict[int, float] = {1: 0.001, 2: 0.001}

    async def bootstrap(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def add_topic(self, topic: str) -> None:
        self.leaders.setdefault(TopicPartition(topic, 7), 2)

    def force_metadata_update(self) -> None:
        self.refreshed += 1

    async def send(self, broker: int, request: Any) -> Any:
        self.requests.append(request.prepare({1: (4, self.version)}))
        await asyncio.sleep(self.delays[broker])
        given = next(self.answers[broker], None)
        if given is None:
            await asyncio.Event().wait()
        if isinstance(given, Exception):
            raise given
        return given()


@pytest.fixture
def fetcher(monkeypatch) -> Fetcher:
    monkeypatch.setattr(kafka_fetcher, "AIOKafkaClient", Connections)
    monkeypatch.setattr(kafka_fetcher, "RETRY_SECONDS", 0.001)
    return Fetcher(Settings())


async def fetch(fetcher: Fetcher, wanted: dict[TopicPartition, int]) -> list[Fetched]:
    fetcher.begin(wanted)
    return await fetcher.take(1)


def told(request: Any) -> tuple[int, int, list[Any], list[Any]]:
    """Session, epoch, partitions with offsets, partitions to forget."""
    partitions = [(TopicPartition(topic, p), offset) for topic, items in request.topics for p, _, offset, *_ in items]
    return request.session_id, request.session_epoch, partitions, request.forgotten_topics_data


async def test_a_broker_is_told_what_changed(fetcher):
    """Everything at first; then what was read, what is new and what is no longer wanted."""
    fetcher._client.answers[1] = iter([answer((A, None, b"batch")), answer(), answer()])
    assert await fetch(fetcher, {A: 3, B: 0}) == [Fetched(A, 3, b"batch")]
    assert await fetch(fetcher, {A: 4, B: 0}) == []
    assert await fetch(fetcher, {A: 4, C: 8}) == []
    assert [told(request) for request in fetcher._client.requests] == [
        (0, 0, [(A, 3), (B, 0)], []),
        (5, 1, [(A, 4)], []),
        (5, 2, [(C, 8)], [("a", [1])]),
    ]


@pytest.mark.parametrize(
    "given",
    [
        answer(error=FetchSessionIdNotFound.errno),  # it was restarted, or had too many
        answer(session=0),  # it has too many
        KafkaConnectionError(),
    ],
)
async def test_a_broker_that_knows_no_session_is_told_everything_again(fetcher, given):
    """What was asked in a session that is gone was not heard."""
    fetcher._client.answers[1] = iter([answer(), given, answer()])
    for _ in range(3):
        assert await fetch(fetcher, {A: 3, B: 0}) == []
    assert told(fetcher._client.requests[1]) == (5, 1, [], [])
    assert told(fetcher._client.requests[2]) == (0, 0, [(A, 3), (B, 0)], [])


async def test_a_broker_that_is_too_old_for_sessions_is_asked_in_full(fetcher):
    """Its requests have no place for a session."""
    fetcher._client.version = 6
    fetcher._client.answers[1] = iter([lambda: SimpleNamespace(topics=[])] * 2)
    for _ in range(2):
        assert await fetch(fetcher, {A: 3}) == []
    assert [[topic for topic, _ in request.topics] for request in fetcher._client.requests] == [["a"], ["a"]]
    assert fetcher._client.requests[1].encode()


async def test_a_broker_is_asked_one_thing_at_a_time(fetcher):
    """What is wanted meanwhile is asked when it has answered; another broker is not waited for."""
    connections = fetcher._client
    connections.leaders[B] = 2
    connections.delays[1] = 0.05
    connections.answers = {1: iter([answer((A, None, b"batch")), answer()]), 2: iter([answer()])}
    fetcher.begin({A: 0})
    await asyncio.sleep(0)
    assert await fetch(fetcher, {A: 0, B: 0, C: 0}) == []
    assert [told(request)[2] for request in connections.requests] == [[(A, 0)], [(B, 0)]]
    assert await fetcher.take(1) == [Fetched(A, 0, b"batch")]
    assert await fetch(fetcher, {A: 1, C: 0}) == []
    assert told(connections.requests[2])[2] == [(A, 1), (C, 0)]


async def test_what_one_partition_answers_spoils_no_other(fetcher):
    """The leader is looked up of one that moved; a position that is wrong is said; the records of others are there."""
    parts = (A, NotLeaderForPartitionError, b""), (B, OffsetOutOfRangeError, b""), (C, None, b"batch")
    fetcher._client.answers[1] = iter([answer(*parts)])
    assert await fetch(fetcher, {A: 1, B: 2, C: 3}) == [Fetched(B, 2, None), Fetched(C, 3, b"batch")]
    assert fetcher._client.refreshed == 1


async def test_a_topic_that_may_not_be_read_is_an_error(fetcher):
    """It will not pass by itself."""
    fetcher._client.answers[1] = iter([answer((A, TopicAuthorizationFailedError, b""))])
    with pytest.raises(TopicAuthorizationFailedError):
        await fetch(fetcher, {A: 1})


async def test_a_topic_that_is_not_known_yet_is_looked_up(fetcher):
    """Its leader is asked with the next fetch."""
    new = TopicPartition("new", 7)
    fetcher._client.answers[2] = iter([answer((new, None, b"batch"))])
    assert await fetch(fetcher, {new: 0}) == []
    assert await fetch(fetcher, {new: 0}) == [Fetched(new, 0, b"batch")]


async def test_brokers_that_all_fail_are_an_error_after_a_while(fetcher, monkeypatch):
    """At first it is tried again; a broker that answers lets the others fail as long as they like."""
    monkeypatch.setattr(kafka_fetcher, "REQUEST_SECONDS", 0.1)
    connections, loop = fetcher._client, asyncio.get_running_loop()
    connections.leaders[B] = 2
    connections.answers = {1: repeat(KafkaConnectionError()), 2: repeat(answer())}
    await fetch_for(0.3, fetcher)
    connections.delays[1] = 0.2  # it hangs
    await fetch_for(0.5, fetcher)
    connections.delays[1] = 0.001
    connections.answers[2] = repeat(KafkaConnectionError())
    begun = loop.time()
    with pytest.raises(KafkaConnectionError):
        await fetch_for(5, fetcher)
    assert loop.time() - begun > 0.09
    await fetcher.stop()


async def fetch_for(seconds: float, fetcher: Fetcher) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        assert await fetch(fetcher, {A: 0, B: 0}) == []


async def test_a_partition_that_moved_is_not_waited_for_where_it_was(fetcher, monkeypatch):
    """Its old leader hangs: the new one is asked meanwhile."""
    monkeypatch.setattr(kafka_fetcher, "_LATE_SECONDS", 0.01)
    async with asyncio.timeout(0.5):
        assert await fetch(fetcher, {A: 0}) == []
    fetcher._client.leaders[A] = 2
    fetcher._client.answers[2] = iter([answer((A, None, b"batch"))])
    assert await fetch(fetcher, {A: 0}) == [Fetched(A, 0, b"batch")]
    await fetcher.stop()


class Stored:
    """Stands in for a fetcher: has one batch, with the records of some offsets, whatever it is asked for."""

    def __init__(self, data: bytes) -> None:
        self.asking = False
        self.data = data
        self.wanted: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    def begin(self, wanted: dict[TopicPartition, int]) -> None:
        self.wanted = dict(wanted)

    async def take(self, _: float) -> list[Fetched]:
        return [Fetched(source, offset, self.data) for source, offset in self.wanted.items()]


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


def reading(data: bytes, position: int) -> KafkaReader:
    reader = KafkaReader(Settings())
    reader._fetcher = Replaceable(Settings(), lambda: Stored(data))  # type: ignore[arg-type,return-value]
    reader.assign({A: position})
    return reader


async def test_a_batch_may_begin_before_the_position():
    """Kafka sends whole batches."""
    reader = reading(bytes(stored(0, 1, 2, 3)), 2)
    assert await reader.read(1) == [Batch(A, 2, [b"2", b"3"])]
    await reader.close()


async def test_records_that_are_missing_are_out_of_range():
    """What is before the gap is read, the rest never as if it came next."""
    reader = reading(bytes(stored(0, 1, 3)), 0)
    assert await reader.read(1) == [Batch(A, 0, [b"0", b"1"])]
    with pytest.raises(OutOfRange) as caught:
        await reader.read(1)
    assert (caught.value.source, caught.value.offset) == (A, 2)
    await reader.close()


async def test_marks_of_a_transaction_are_no_records():
    """Somebody else's: they take up offsets, so there is a gap."""
    data = stored(0, 1)
    data[22] |= 0x20  # the attribute "control batch"
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    reader = reading(bytes(data), 0)
    with pytest.raises(OutOfRange):
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


def test_old_remains_are_thrown_away():
    """A fetch that was under way when the assignment changed is no answer to what is wanted now."""
    reader = KafkaReader(Settings())
    reader.assign({A: 2})
    data = bytes(stored(0, 1, 2, 3))
    assert reader._take_in(Fetched(A, 0, data))
    assert reader._take_in(Fetched(B, 0, None))
    assert reader._next == {A: 2}
    assert kafka_reader._values(data, 2) == [b"2", b"3"]
