"""Credits on a real server: what owners hear and say, and how much of an outbox they send."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest_asyncio

from wf_core import ids, wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.store.keys import InstallationKeys
from wf_orchestrator.backlogs import Backlogs, Room


class Installation:
    """Who lives, as far as Redis knows."""

    def __init__(self, engine: Any) -> None:
        self.redis = engine.redis
        self.keys = InstallationKeys(engine.settings.namespace)
        self.now = engine.clock.now_ms()
        self.backlogs = Backlogs(engine.redis, engine.settings.namespace)

    async def worker(self, name: str, *, silent_ms: int = 0, **said: Any) -> None:
        await self.redis.zadd(self.keys.workers, {name: self.now - silent_ms})
        await self.redis.set(self.keys.worker(name), msgspec.json.encode({"id": name, **said}))

    async def owner(self, name: str, *, silent_ms: int = 0) -> None:
        await self.redis.zadd(self.keys.orchestrators, {name: self.now - silent_ms})

    async def exchange(self, name: str, **own: list[int]) -> Room:
        since = self.now - 1000
        return await self.backlogs.exchange(name, own, owners_since=since, workers_since=since)


@pytest_asyncio.fixture
async def installation(engine: Any) -> Installation:
    return Installation(engine)


async def test_free_slots_are_those_of_live_workers(installation):
    """Each queue has the slots of all workers that take from it; the silent and the leaving have none."""
    await installation.worker("a", queues=["default", "gpu"], free=3, waiting=0)
    await installation.worker("b", queues=["default"], free=4, waiting=2)
    await installation.worker("full", queues=["gpu", "cpu"], free=0, waiting=0)
    await installation.worker("dead", queues=["default"], free=9, silent_ms=5000)
    await installation.worker("old", queues=["old"], free=1)
    room = await installation.exchange("o")
    assert room.free == {"default": 7, "gpu": 3, "cpu": 0, "old": 1}
    assert (room.idle, room.busy) == ({"default", "gpu"}, {"default", "old"})


async def test_owners_hear_what_waits_at_the_others(installation):
    """The silent do not count, and what is left of those that are gone is removed."""
    for name in ("one", "two", "three"):
        await installation.owner(name)
    await installation.owner("silent", silent_ms=5000)
    for name in ("silent", "gone"):
        await installation.exchange(name, default=[9])
    await installation.exchange("two", default=[0, 5], gpu=[1])
    await installation.exchange("three", default=[2])
    room = await installation.exchange("one", default=[4, 4])
    assert {queue: sorted(levels) for queue, levels in room.others.items()} == {"default": [[0, 5], [2]], "gpu": [[1]]}
    assert set(await installation.redis.hkeys(installation.keys.backlogs)) == {b"one", b"two", b"three", b"silent"}


async def sent(engine: Any, queue: str = "default") -> list[str]:
    """The nodes whose messages lie in a queue's topic."""
    found = []
    reader = engine.log.reader()
    topic = topics.tasks(engine.settings.namespace, queue)
    reader.assign({TopicPartition(topic, n): 0 for n in range(engine.settings.task_partitions)})
    while batches := await reader.read(0.1):
        found += [wire.decode_task(record).node for batch in batches for record in batch.records]
    await reader.close()
    return found


async def test_no_more_is_sent_than_workers_have_room_for(engine, installation):
    """The rest waits in the outbox, and what is more urgent goes before it when room comes, wherever it was ready."""
    await installation.worker("w", queues=["default"], free=2, waiting=0)
    await engine.orchestrator(death_seconds=60.0)
    await engine.all_owned()
    await engine.submit({"nodes": {f"low{i}": {"task": "t", "priority": 1} for i in range(300)}}, partition=0)

    async def some() -> list[str]:
        return await sent(engine)

    await engine.until("something is sent", some)
    assert len(await sent(engine)) <= 1 + 2 * 2
    urgent = {"nodes": {f"urgent{i}": {"task": "t", "priority": 9} for i in range(5)}}
    await engine.submit(urgent, partition=0)
    await engine.submit(urgent, partition=1)
    await engine.until("one of the other partition is sent", lambda: holds(engine, "urgent"))
    await installation.worker("w2", queues=["default"], free=9, waiting=0)
    await engine.until("all that is urgent is sent", lambda: counts(engine, "urgent", 10))
    nodes = await sent(engine)
    assert len([node for node in nodes if node.startswith("low")]) <= 1 + 2 * 11 - 8


async def holds(engine: Any, prefix: str) -> bool:
    return any(node.startswith(prefix) for node in await sent(engine))


async def counts(engine: Any, prefix: str, number: int) -> bool:
    return len([node for node in await sent(engine) if node.startswith(prefix)]) == number


async def test_without_a_worker_one_message_of_a_partition_is_sent(engine):
    """A worker that nobody has heard of may take it, and then gets more and more."""
    service, _ = await engine.orchestrator()
    executions = [await engine.submit({"nodes": {f"n{i}": {"task": "t"} for i in range(50)}}, p) for p in (0, 1)]
    await engine.until("one of each partition is sent", lambda: counts(engine, "n", 2))
    assert service.counters.get("dispatched_total") == 2
    engine.worker(lambda _: 1)
    assert await engine.ended(*executions) == ["COMPLETED", "COMPLETED"]
    await engine.verified()


async def test_a_new_owner_sends_what_waits(engine):
    """Credits are kept nowhere: what is in flight and what is claimed say how much may be sent."""
    _, task = await engine.orchestrator()
    executions = [await engine.submit({"nodes": {f"n{i}": {"task": "t"} for i in range(40)}}, 0) for _ in range(2)]
    await engine.until("one is sent", lambda: holds(engine, "n"))
    await engine.crash(task)
    await engine.orchestrator()
    engine.worker(lambda _: 1)
    assert await engine.ended(*executions) == ["COMPLETED", "COMPLETED"]
    assert {ids.partition_of(execution) for execution in executions} == {0}
    await engine.verified()


async def test_what_is_critical_is_sent_before_what_has_waited_longer(engine):
    """The policy orders what waits in the outbox again whenever a node becomes ready."""
    await engine.orchestrator()
    leaves = {f"leaf{i}": {"task": "t"} for i in range(400)}
    links = {f"link{i}": {"task": "t", "depends_on": [f"link{i - 1}"] if i else []} for i in range(8)}
    worker = engine.worker(lambda message: 1 if message.node.startswith("link") else None)
    await engine.submit({"scheduling": "critical_path", "nodes": {**leaves, **links}})

    async def last_but_one() -> bool:
        return any("/link6/" in token for token in worker.ran)

    await engine.until("the last link but one runs", last_but_one)
    assert len(worker.ran) < 200
