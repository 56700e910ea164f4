"""What the sender makes of a broker's answers; the connections are a stand-in, needs no broker."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NoError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from wf_core.broker import kafka_sender
from wf_core.broker.kafka_sender import Sender
from wf_core.broker.protocol import TopicPartition
from wf_core.settings import Settings

A, B, C = (TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0))


class Connections:
    """Stands in for aiokafka's client: notes each request, and answers it with the next of `answers`, else with 7."""

    def __init__(self, **_: Any) -> None:
        self.leaders: dict[TopicPartition, int] = {A: 1, B: 1, C: 1}
        self.cluster = SimpleNamespace(leader_for_partition=self.leaders.get)
        self.requests: list[tuple[int, dict[TopicPartition, bytes]]] = []
        self.timeouts: list[int] = []
        self.answers: list[Any] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.refreshed = 0
        self.closed = False

    async def bootstrap(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        self.closed = True

    async def add_topic(self, topic: str) -> None:
        """Every topic is known."""

    async def force_metadata_update(self) -> None:
        self.refreshed += 1
        if self.refreshed == 2:
            self.leaders[A] = 2

    async def send(self, broker: int, request: Any) -> Any:
        batches = {
            TopicPartition(topic, partition): batch
            for topic, batches in request._topics
            for partition, batch in batches
        }
        self.requests.append((broker, batches))
        self.timeouts.append(request._timeout)
        await self.answering.wait()
        answer = self.answers.pop(0) if self.answers else NoError
        if isinstance(answer, Exception):
            raise answer
        topics = [(source.topic, [(source.partition, answer.errno, 7, -1, 0)]) for source in batches]
        return SimpleNamespace(topics=topics)


@pytest.fixture
def sender(monkeypatch) -> Sender:
    monkeypatch.setattr(kafka_sender, "Connections", Connections)
    monkeypatch.setattr(kafka_sender, "RETRY_SECONDS", 0.001)
    return Sender(Settings())


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_while_a_request_is_under_way_travels_with_the_next(sender):
    """One request at a time to a broker, with a batch for each partition; another broker is not waited for."""
    connections = sender._client
    connections.leaders[C] = 2
    connections.answering.clear()
    async with asyncio.TaskGroup() as delivering:
        delivering.create_task(sender.deliver(A, b"first"))
        await turns()
        delivering.create_task(sender.deliver(B, b"second"))
        delivering.create_task(sender.deliver(TopicPartition("a", 2), b"third"))
        connections.leaders[TopicPartition("a", 2)] = 1
        delivering.create_task(sender.deliver(C, b"other"))
        await turns()
        assert connections.requests == [(1, {A: b"first"}), (2, {C: b"other"})]
        connections.answering.set()
    assert connections.requests[2:] == [(1, {B: b"second", TopicPartition("a", 2): b"third"})]


@pytest.mark.parametrize(
    "error", [NotLeaderForPartitionError, UnknownTopicOrPartitionError, KafkaConnectionError(), RequestTimedOutError()]
)
async def test_what_may_pass_is_tried_again_where_the_leader_is_by_then(sender, error):
    """The batch is sent to the leader of fresher metadata, until it is there."""
    sender._client.answers = [error, error]
    assert await sender.deliver(A, b"batch") == 7
    assert sender._client.requests == [(1, {A: b"batch"}), (1, {A: b"batch"}), (2, {A: b"batch"})]


async def test_a_partition_without_a_leader_is_waited_for(sender):
    """Nothing is sent meanwhile."""
    sender._client.leaders[A] = -1
    assert await sender.deliver(A, b"batch") == 7
    assert sender._client.requests == [(2, {A: b"batch"})]


async def test_what_will_not_pass_is_raised_at_once(sender):
    """Somebody has to give us the right first."""
    sender._client.answers = [TopicAuthorizationFailedError]
    with pytest.raises(TopicAuthorizationFailedError):
        await sender.deliver(A, b"batch")
    assert len(sender._client.requests) == 1


async def test_a_batch_that_is_too_large_is_no_error(sender):
    """It is the caller's business to cut it."""
    sender._client.answers = [MessageSizeTooLargeError]
    assert await sender.deliver(A, b"batch") is None


async def test_what_does_not_pass_in_time_is_raised(sender, monkeypatch):
    """The caller learns the broker's own reason."""
    monkeypatch.setattr(kafka_sender, "REQUEST_SECONDS", 0.05)
    sender._client.answers = [NotLeaderForPartitionError] * 1000
    async with asyncio.timeout(5):
        with pytest.raises(NotLeaderForPartitionError):
            await sender.deliver(A, b"batch")
    assert len(sender._client.requests) > 1


async def test_a_caller_that_gives_up_disturbs_no_other(sender):
    """Its batch is not sent later: the caller may repeat it by then. What was to travel with it is answered."""
    connections = sender._client
    connections.answering.clear()
    connections.answers = [NoError, KafkaConnectionError()]
    first = asyncio.create_task(sender.deliver(A, b"first"))
    await turns()
    gone, beside = (asyncio.create_task(sender.deliver(source, b"next")) for source in (B, C))
    await turns()
    first.cancel()
    gone.cancel()
    connections.answering.set()
    assert await beside == 7  # at the second attempt
    assert await sender.deliver(B, b"again") == 7
    assert [list(batches) for _, batches in connections.requests] == [[A], [C], [C], [B]]


async def test_a_request_that_nobody_waits_for_is_not_sent(sender):
    """All its callers gave up before its turn came."""
    connections = sender._client
    connections.answering.clear()
    first = asyncio.create_task(sender.deliver(A, b"first"))
    await turns()
    gone = asyncio.create_task(sender.deliver(B, b"gone"))
    await turns()
    gone.cancel()
    await turns()
    connections.answering.set()
    assert await first == 7
    await turns()
    assert connections.requests == [(1, {A: b"first"})]
    assert not sender._requests
    assert not sender._next


async def test_what_a_request_has_no_room_for_travels_with_the_next(sender, monkeypatch):
    """A request of all partitions' megabytes would not be answered in time."""
    monkeypatch.setattr(kafka_sender, "_REQUEST_BYTES", 10)
    connections = sender._client
    connections.answering.clear()
    async with asyncio.TaskGroup() as delivering:
        delivering.create_task(sender.deliver(C, b"first"))
        await turns()
        delivering.create_task(sender.deliver(A, b"123456"))
        await turns()
        delivering.create_task(sender.deliver(B, b"123456"))
        await turns()
        connections.answering.set()
    assert [list(batches) for _, batches in connections.requests] == [[C], [A], [B]]
    assert not sender._next


async def test_a_broker_gives_up_before_it_is_given_up(sender):
    """Replicas that are late are its answer; without one, it would be taken for dead."""
    await sender.deliver(A, b"batch")
    assert sender._client.timeouts == [int(kafka_sender.REQUEST_SECONDS * 500)]


async def test_an_error_that_nobody_waits_for_is_no_noise(sender, caplog):
    """It would be: a task complains of an error that nobody looked at."""
    sender._client.answering.clear()
    sender._client.answers = [KafkaConnectionError()]
    alone = asyncio.create_task(sender.deliver(A, b"batch"))
    await turns()
    alone.cancel()
    await turns()
    sender._client.answering.set()
    await turns()
    del alone  # its frames hold the request
    gc.collect()
    assert not sender._requests
    assert not caplog.records


async def test_a_sender_that_stops_waits_for_what_is_on_its_way(sender):
    """It is replaced when one call fails, and others may still be answered; nothing is tried again."""
    connections = sender._client
    connections.answering.clear()
    connections.answers = [NoError, NotLeaderForPartitionError]
    answered = asyncio.create_task(sender.deliver(A, b"first"))
    await turns()
    failing = asyncio.create_task(sender.deliver(B, b"second"))
    await turns()
    stopping = asyncio.create_task(sender.stop())
    await turns()
    assert not connections.closed
    connections.answering.set()
    await stopping
    assert connections.closed
    assert await answered == 7
    with pytest.raises(NotLeaderForPartitionError):
        await failing
    with pytest.raises(KafkaConnectionError, match="stopped"):
        await sender.deliver(A, b"late")
    assert len(connections.requests) == 2
