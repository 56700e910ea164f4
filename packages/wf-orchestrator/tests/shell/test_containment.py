"""What fails for one partition costs that partition, never the orchestrator or the other partitions."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
import redis

from wf_core import failpoints, wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_orchestrator import batches, loading, ownership, sweeps

PAIR = {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}}
ONE = {"nodes": {"a": {"task": "t"}}}


async def failures(engine, service, name="partition_failures_total"):
    async def counted():
        return service.counters.get(name) >= 1

    await engine.until(f"{name} counts", counted)


async def test_a_bug_in_one_partition_stops_that_partition_only(engine, monkeypatch):
    """An exception that nobody expected is logged, counted, and its partition stands still; the others go on."""
    monkeypatch.setattr(ownership, "STOPPED_SECONDS", 600.0)
    fold = batches.fold

    def broken(state, executions, events):
        if any(d.event.execution == poison for d in events):
            raise ZeroDivisionError("a bug")
        return fold(state, executions, events)

    monkeypatch.setattr(batches, "fold", broken)
    poison, records = engine.records(ONE, 0)
    service, task = await engine.orchestrator()
    engine.worker(lambda _: 1)
    await engine.append(0, records)
    await failures(engine, service)
    assert await engine.ended(*[await engine.submit(PAIR, partition=n) for n in (1, 2, 3)]) == ["COMPLETED"] * 3
    assert not task.done()
    assert service.counters.get("partitions_dropped_total") == 1


async def test_a_stopped_partition_is_tried_again_after_a_while(engine, monkeypatch):
    """A passing failure heals by itself: the partition is leased again, and everything is folded once."""
    monkeypatch.setattr(ownership, "STOPPED_SECONDS", 0.5)
    real, calls = loading.take, []

    async def broken(context, partition, ids, *rest):
        calls.append(partition.number)
        if len(calls) <= 2:
            raise RuntimeError("a passing failure")
        return await real(context, partition, ids, *rest)

    monkeypatch.setattr(loading, "take", broken)
    service, task = await engine.orchestrator()
    engine.worker(lambda _: 1)
    assert await engine.ended(await engine.submit(PAIR, partition=0)) == ["COMPLETED"]
    assert service.counters.get("partition_failures_total") == 2
    assert not task.done()
    await engine.verified()


async def test_a_fold_that_outlasts_its_lease_is_left_to_who_came_meanwhile(engine, monkeypatch):
    """Else two owners would take a partition from each other for ever, and neither would come to its end."""
    monkeypatch.setattr(ownership, "STOPPED_SECONDS", 600.0)
    real, slept, quick = batches.fold, [], asyncio.Event()

    def slow(state, executions, events):
        if not quick.is_set() and any(d.event.execution == heavy for d in events):
            time.sleep(engine.settings.lease_seconds + 0.1)
            slept.append(True)
            with redis.Redis(engine.settings.redis_host, engine.settings.redis_port) as another:
                another.hset(engine.keys(0).meta, mapping={"own": "another", "lease": engine.clock.now_ms() + 500})
        return real(state, executions, events)

    monkeypatch.setattr(batches, "fold", slow)
    heavy, records = engine.records(ONE, 0)
    first, _ = await engine.orchestrator()
    engine.worker(lambda _: 1)
    await engine.append(0, records)

    async def left():
        return bool(slept) and first.counters.get("partitions_dropped_total") == 1

    await engine.until("the first owner lets go", left)
    await asyncio.sleep(1.5)  # the other's lease runs out meanwhile
    assert slept == [True]
    quick.set()
    await engine.orchestrator()
    assert await engine.ended(heavy) == ["COMPLETED"]
    assert first.counters.get("partitions_dropped_total") == 1
    await engine.verified()


@pytest.mark.parametrize("step", ["orphans", "accepted", "dead", "prune"])
async def test_a_bug_in_a_sweep_stops_its_partition_only(engine, monkeypatch, step):
    """Sweeps, timers and the outbox run per partition: a mistake in one of them ends nothing else."""
    monkeypatch.setattr(ownership, "STOPPED_SECONDS", 600.0)
    monkeypatch.setattr("wf_orchestrator.work.RARELY", 0.1)
    real = getattr(sweeps, step)

    async def broken(context, partition, *rest, **named):
        if partition.number == 0:
            raise KeyError("a bug")
        return await real(context, partition, *rest, **named)

    monkeypatch.setattr(sweeps, step, broken)
    service, task = await engine.orchestrator()
    engine.worker(lambda _: 1)
    await failures(engine, service)
    assert await engine.ended(await engine.submit(PAIR, partition=1)) == ["COMPLETED"]
    assert not task.done()


@pytest.mark.parametrize(
    "point",
    [
        "orchestrator.leased",
        "orchestrator.folded",
        "orchestrator.applied",
        "orchestrator.produced",
        "orchestrator.trimmed",
        "orchestrator.timer_appended",
        "orchestrator.condemned",
    ],
)
async def test_a_failure_at_any_step_is_survived(engine, monkeypatch, point):
    """Each fail point of the orchestrator is reached by ordinary work, and failing there once changes no outcome."""
    monkeypatch.setattr(ownership, "STOPPED_SECONDS", 0.5)
    failpoints.activate({"WF_FAIL_POINTS": f"{point}=raise@#1"})
    try:
        service, task = await engine.orchestrator()
        dead = engine.worker(lambda _: None, "dead")
        execution = await engine.submit(PAIR, partition=0)

        async def asked():
            return dead.ran

        await engine.until("the first worker runs something", asked)
        await dead.stop()
        engine.worker(lambda message: ValueError("again") if message.attempt == 2 else 1, "alive")
        assert await engine.ended(execution, seconds=30) == ["COMPLETED"]
        await failures(engine, service)
        assert not task.done()
        await engine.verified()
    finally:
        failpoints.activate({})


async def test_a_fold_that_hangs_gives_its_partition_up(engine, monkeypatch):
    """A lease is renewed during a long fold, but not for ever: the partition is let go and leased again."""
    monkeypatch.setattr(batches, "FOLD_SECONDS", 0.3)
    monkeypatch.setattr(ownership, "STOPPED_SECONDS", 0.1)
    real, hung = loading.take, []

    async def hangs(context, partition, ids, *rest):
        if not hung:
            hung.append(partition)
            await asyncio.Event().wait()
        return await real(context, partition, ids, *rest)

    monkeypatch.setattr(loading, "take", hangs)
    service, task = await engine.orchestrator()
    engine.worker(lambda _: 1)
    assert await engine.ended(await engine.submit(PAIR, partition=0)) == ["COMPLETED"]
    assert (hung[0].closed, service.counters.get("partition_failures_total")) == (True, 1)
    assert not task.done()
    await engine.verified()


def newer(**fields):
    """A record of a release to come."""
    common = {"execution": "0" * 28, "ts": 1, "source": "newer", "v": 1}
    return msgspec.msgpack.encode(common | fields)


CREATED = {"kind": "created", "id": "create", "document": "d", "name": "n"}


@pytest.mark.parametrize(
    "record",
    [
        newer(kind="suspended"),
        newer(kind="lost", v=3, why="?"),
        newer(**CREATED, rules=wire.RULES + 1),
        newer(kind="timer", v=9),
    ],
)
async def test_a_record_of_a_newer_release_is_left_to_a_newer_orchestrator(engine, record, monkeypatch):
    """It is no dead letter: the partition is released for whoever knows it, and left alone by this one; said once."""
    monkeypatch.setattr(ownership, "STOPPED_SECONDS", 0.5)
    service, task = await engine.orchestrator()
    engine.worker(lambda _: 1)
    await engine.all_owned()
    source = TopicPartition(topics.events(engine.settings.namespace), 0)
    await engine.log.append(source, [record])

    async def dropped():
        return service.counters.get("partitions_dropped_total") >= 3 and 0 not in await engine.owners()

    await engine.until("it was given back, again and again", dropped)
    assert service.counters.get("newer_records_total") == 1
    assert service.counters.get("dead_letters_total") == 0
    assert await engine.ended(await engine.submit(ONE, partition=1)) == ["COMPLETED"]
    assert await engine.redis.hget(engine.keys(0).meta, "off") in (None, b"0")
    assert not task.done()


async def test_an_execution_with_newer_rules_is_left_to_a_newer_orchestrator(engine):
    """What a newer orchestrator began is not decided by older rules, however old the record that comes."""
    service, _ = await engine.orchestrator()
    execution = await engine.submit(ONE, partition=0)
    await engine.at_rest()
    service.context.executions.forget(0)
    await engine.redis.hset(engine.keys(0).execution(execution), "rules", str(wire.RULES + 1))
    cancel = wire.Cancelled(execution=execution, ts=engine.clock.now_ms(), source="test", id="c")
    await engine.append(0, [cancel])
    await failures(engine, service, "newer_records_total")
    assert await engine.status(execution) == "RUNNING"

    async def free():
        return 0 not in await engine.owners()

    await engine.until("the partition is free for another", free)
