"""What a broker is told in a fetch session, and what is made of its answers; the connections are a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    CorruptRecordException,
    FetchSessionIdNotFound,
    KafkaConnectionError,
    KafkaError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownError,
)
from structlog.testing import capture_logs

from wf_core.broker import kafka_fetcher
from wf_core.broker.kafka_fetcher import Fetched, Fetcher
from wf_core.broker.protocol import TopicPartition
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
        prepared = request.prepare({1: (4, self.version)})
        self.requests.append(prepared)
        await asyncio.sleep(self.delays[broker])
        given = next(self.answers[broker], None)
        if given is None:
            await asyncio.Event().wait()
        if isinstance(given, Exception):
            raise given
        response = given()
        if getattr(prepared, "session_epoch", 0) == -1:
            response.session_id = 0  # no session was wanted
        return response


@pytest.fixture
def fetcher(monkeypatch) -> Fetcher:
    monkeypatch.setattr(kafka_fetcher, "Connections", Connections)
    monkeypatch.setattr(kafka_fetcher, "RETRY_SECONDS", 0.001)
    return Fetcher(Settings())


async def fetch(fetcher: Fetcher, wanted: dict[TopicPartition, int]) -> list[Fetched]:
    fetcher.begin(wanted)
    return await fetcher.take(1)


def told(request: Any) -> tuple[int, int, list[Any], list[Any]]:
    """Session, epoch, partitions with offsets, partitions to forget."""
    partitions = [(TopicPartition(topic, p), offset) for topic, items in request.topics for p, _, offset, *_ in items]
    return request.session_id, request.session_epoch, sorted(partitions), request.forgotten_topics_data


async def test_a_broker_is_told_what_changed(fetcher):
    """Everything at first, and again for a session; then what was read, what is new and what is no longer wanted."""
    fetcher._client.answers[1] = iter([answer(), answer((A, None, b"batch")), answer(), answer()])
    assert await fetch(fetcher, {A: 3, B: 0}) == []
    assert await fetch(fetcher, {A: 3, B: 0}) == [Fetched(A, 3, b"batch")]
    assert await fetch(fetcher, {A: 4, B: 0}) == []
    assert await fetch(fetcher, {A: 4, C: 8}) == []
    assert [told(request) for request in fetcher._client.requests] == [
        (0, -1, [(A, 3), (B, 0)], []),
        (0, 0, [(A, 3), (B, 0)], []),
        (5, 1, [(A, 4)], []),
        (5, 2, [(C, 8)], [("a", [1])]),
    ]


@pytest.mark.parametrize(
    ("given", "epoch"),
    [
        (answer(error=FetchSessionIdNotFound.errno), 0),  # it was restarted, or had too many
        (answer(session=0), 0),  # it has too many
        (KafkaConnectionError(), -1),
    ],
)
async def test_a_broker_that_knows_no_session_is_told_everything_again(fetcher, given, epoch):
    """What was asked in a session that is gone was not heard."""
    fetcher._client.answers[1] = iter([answer(), answer(), given, answer()])
    for _ in range(4):
        assert await fetch(fetcher, {A: 3, B: 0}) == []
    assert told(fetcher._client.requests[2]) == (5, 1, [], [])
    assert told(fetcher._client.requests[3]) == (0, epoch, [(A, 3), (B, 0)], [])


async def test_without_a_session_nobody_is_always_asked_for_last(fetcher):
    """An answer that is full has nothing for the last, and in each the same would be."""
    fetcher._client.answers[1] = repeat(answer(session=0))
    for _ in range(50):
        assert await fetch(fetcher, {A: 3, B: 0, C: 8}) == []
    last = {(topic, items[-1][0]) for request in fetcher._client.requests for topic, items in request.topics[-1:]}
    assert last == {A, B, C}


async def test_only_a_leader_may_answer(fetcher):
    """A follower that has less would say that the position is out of range; before version 11 it refuses."""
    fetcher._client.version = 17
    fetcher._client.answers[1] = iter([answer()])
    assert await fetch(fetcher, {A: 3}) == []
    assert [request.API_VERSION for request in fetcher._client.requests] == [10]


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
    assert fetcher._client.refreshed > 0


async def test_a_position_that_is_out_of_range_has_the_leader_looked_up(fetcher):
    """Who said so may not know of its successor."""
    fetcher._client.answers[1] = iter([answer((B, OffsetOutOfRangeError, b""))])
    assert await fetch(fetcher, {A: 1, B: 2}) == [Fetched(B, 2, None)]
    assert fetcher._client.refreshed == 1


@pytest.mark.parametrize("code", [UnknownError, CorruptRecordException])
async def test_a_partition_that_will_not_recover_spoils_no_other(fetcher, code):
    """The others are read on, and it is said, but not each time."""
    fetcher._client.answers[1] = iter([answer((A, code, b""), (B, None, b"batch")), *[answer((A, code, b""))] * 3])
    with capture_logs() as logs:
        assert await fetch(fetcher, {A: 1, B: 2}) == [Fetched(B, 2, b"batch")]
        for _ in range(3):
            assert await fetch(fetcher, {A: 1, B: 3}) == []
    assert [entry["event"] for entry in logs] == ["a partition cannot be read"]
    assert "a[0]" in logs[0]["error"]


async def test_a_broker_whose_partitions_will_not_recover_spoils_no_other(fetcher):
    """It is asked again, as long as others answer, be it that they have nothing."""
    connections = fetcher._client
    connections.leaders[B] = 2
    connections.answers = {1: repeat(answer((A, UnknownError, b""))), 2: repeat(answer())}
    await fetch_for(0.1, fetcher)
    await fetcher.stop()


async def test_what_came_is_not_thrown_away_for_a_broker_that_failed(fetcher, monkeypatch):
    """It would be again and again."""
    monkeypatch.setattr(kafka_fetcher, "REQUEST_SECONDS", 0)
    connections = fetcher._client
    connections.leaders[B] = 2
    connections.answers = {1: repeat(KafkaConnectionError()), 2: repeat(answer((B, None, b"batch")))}
    fetcher.begin({A: 0, B: 0})
    await asyncio.wait(fetcher._fetches.values())
    assert await fetcher.take(0) == [Fetched(B, 0, b"batch")]
    with pytest.raises(KafkaConnectionError):
        await fetch(fetcher, {A: 0})
    await fetcher.stop()


async def test_what_nobody_asked_for_is_not_taken(fetcher):
    """An answer may still speak of a partition that was forgotten."""
    fetcher._client.answers[1] = iter([answer((C, None, b"batch"), (A, None, b"batch"))])
    assert await fetch(fetcher, {A: 1}) == [Fetched(A, 1, b"batch")]


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
