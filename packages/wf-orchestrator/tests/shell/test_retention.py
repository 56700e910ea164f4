"""Executions that ended long ago are deleted by records in the log, on a real server; nothing brings them back."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from wf_core import ids, wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.store.commands import pack_command
from wf_core.store.keys import InstallationKeys
from wf_core.store.reads.executions import read_execution
from wf_orchestrator import retention, work
from wf_orchestrator.machine.decide import LATE_MS
from wf_orchestrator.machine.state import PartitionState
from wf_orchestrator.partition import Partition
from wf_orchestrator.retention import Retention

ONE = {"nodes": {"a": {"task": "t"}}}
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The sweep runs every tenth of a second, three executions at a time."""
    monkeypatch.setattr(work, "RETENTION", 0.1)
    monkeypatch.setattr(retention, "MOST", 3)


@pytest.fixture
def looks(monkeypatch) -> list[int]:
    """The partitions that the sweep has looked at."""
    looked: list[int] = []
    step = Retention.step

    async def counted(self: Retention, partition: Partition) -> None:
        await step(self, partition)
        looked.append(partition.number)

    monkeypatch.setattr(Retention, "step", counted)
    return looked


async def looked_again(engine, looks: list[int]) -> None:
    """Waits until the sweep has looked at partition 0 twice more."""
    before = looks.count(0)

    async def twice() -> bool:
        return looks.count(0) >= before + 2

    await engine.until("retention has looked twice", twice)


async def ended_ago(engine, partition: int, age_ms: int) -> tuple[str, list[Any]]:
    """An execution that was created and cancelled so long ago, and its records (without a trigger)."""
    execution, records = engine.records(ONE, partition)
    cancelled = wire.Cancelled(execution=execution, ts=0, source="test", id="cancel")
    moment = engine.clock.now_ms() - age_ms
    records = [msgspec.structs.replace(record, ts=moment) for record in (*records, cancelled)]
    del records[2]
    await engine.append(partition, records)
    return execution, records


async def left(engine, *executions: str) -> list[str]:
    """Those of the executions that exist."""
    return [execution for execution in executions if await engine.status(execution)]


async def only(engine, executions: list[str], expected: list[str]) -> None:
    """Waits until some of the executions were deleted, and only the expected ones exist."""

    async def holds() -> bool:
        return bool(await engine.redis.get(engine.keys(0).expired)) and await left(engine, *executions) == expected

    await engine.until("the others are deleted", holds)


async def test_what_ended_days_ago_goes(engine):
    """By default what ended 30 days ago is deleted, and nothing of it stays; a fold of the log says the same."""
    old = [(await ended_ago(engine, 0, 50 * DAY_MS - n))[0] for n in range(7)]
    young, _ = await ended_ago(engine, 0, 29 * DAY_MS)
    pending, records = engine.records(ONE, 0)
    await engine.append(0, [msgspec.structs.replace(records[1], ts=1)])
    service, _ = await engine.orchestrator()
    await only(engine, [*old, young, pending], [young, pending])
    mentions = [key async for key in engine.redis.scan_iter(match=f"{engine.settings.namespace}:*{old[0]}*")]
    assert mentions == []
    assert await read_execution(engine.redis, engine.settings.namespace, old[0]) is None
    assert await engine.redis.zrange(engine.keys(0).index("all"), 0, -1) == sorted([young.encode(), pending.encode()])
    assert service.counters.get("executions_expired_total", reason="age") == 7
    await engine.verified()


async def test_more_than_are_kept_go(engine):
    """Of too many the oldest go; the number is shared by the partitions."""
    hour = 6 * LATE_MS
    old = [(await ended_ago(engine, 0, hour - n))[0] for n in range(5)]
    new = [(await ended_ago(engine, 0, 1000 - n))[0] for n in range(3)]
    elsewhere = [(await ended_ago(engine, 1, hour - n))[0] for n in range(2)]
    await engine.orchestrator(retention_days=0, retention_count=15)
    await only(engine, [*old, *new, *elsewhere], [old[4], *new, *elsewhere])
    await engine.verified()


async def test_what_ended_just_now_stays(engine, looks):
    """It counts, so others go for it, but it is not even asked to go itself."""
    old = [(await ended_ago(engine, 0, 6 * LATE_MS - n))[0] for n in range(2)]
    new = [(await ended_ago(engine, 0, 1000 - n))[0] for n in range(3)]
    service, _ = await engine.orchestrator(retention_days=0, retention_count=1)
    await only(engine, [*old, *new], new)
    await looked_again(engine, looks)
    assert service.counters.total("executions_expired_total") == 2
    await engine.verified()


async def test_a_partition_that_lags_is_asked_once(engine):
    """While records about the oldest are still to be folded nothing more is appended; what was lost is asked again."""
    for n in range(4):
        await ended_ago(engine, 0, 40 * DAY_MS - n)
    service, _ = await engine.orchestrator(retention_days=0)
    await engine.all_owned()
    await engine.at_rest()
    source = TopicPartition(topics.events(engine.settings.namespace), 0)
    folded = await engine.log.end(source)
    lagging = Partition(0, engine.keys(0), "nonce", "i", 0, folded, 0, PartitionState(), live=True)
    sweep = Retention(dataclasses.replace(service.context, settings=engine.settings))
    for _ in range(3):
        await sweep.step(lagging)
    assert await engine.log.end(source) == folded + 3
    lagging.offset = folded + 3
    await engine.at_rest()
    await sweep.step(lagging)
    assert await engine.log.end(source) == folded + 4


async def test_without_limits_everything_stays(engine, looks):
    """Zero days and a count of zero mean that nothing is ever deleted."""
    execution, _ = await ended_ago(engine, 0, 5000 * DAY_MS)
    service, _ = await engine.orchestrator(retention_days=0)
    assert await engine.ended(execution) == ["CANCELLED"]
    await looked_again(engine, looks)
    await engine.at_rest()
    assert await left(engine, execution) == [execution]
    assert service.counters.total("executions_expired_total") == 0


async def test_a_whole_life_in_one_batch(engine):
    """Redis was emptied, or an orchestrator lags: what was dispatched, ended and was deleted may come all at once."""
    execution, records = engine.records(ONE, 0)
    cancelled = wire.Cancelled(execution=execution, ts=0, source="test", id="cancel")
    moment = engine.clock.now_ms() - LATE_MS - 1
    lived = [msgspec.structs.replace(record, ts=moment) for record in (*records, cancelled)]
    expired = wire.Expired(execution=execution, ts=engine.clock.now_ms(), source="test", reason="age")
    await engine.append(0, [*lived, expired])
    await engine.orchestrator()
    await engine.at_rest()
    assert await engine.redis.get(engine.keys(0).expired)
    assert not await engine.status(execution)
    await engine.verified()


async def test_a_late_copy_does_not_run_again(engine):
    """Records of a deleted execution that come again, even to the next owner, create nothing and start nothing."""
    worker = engine.worker(lambda _: 1)
    execution, records = await ended_ago(engine, 0, 40 * DAY_MS)
    _, task = await engine.orchestrator()
    await only(engine, [execution], [])
    await engine.crash(task)
    await engine.orchestrator()
    triggered = wire.Triggered(execution=execution, ts=records[0].ts + 1, source="test", id="trigger")
    await engine.append(0, [*records[:2], triggered, *records[2:]])
    again = await engine.submit(ONE, partition=0)
    assert await engine.ended(again) == ["COMPLETED"]
    assert await left(engine, execution) == []
    assert worker.ran == [ids.token(again, "a", 1)]
    await engine.verified()


async def test_an_id_that_is_used_again(engine):
    """A creation under the id of an execution that is deleted in the same batch makes another one, which runs."""
    execution, records = await ended_ago(engine, 0, 40 * DAY_MS)
    now = engine.clock.now_ms()
    triggered = wire.Triggered(execution=execution, ts=now, source="test", id="trigger")
    expired = wire.Expired(execution=execution, ts=now, source="test")
    await engine.append(0, [expired, msgspec.structs.replace(records[1], ts=now), triggered])
    engine.worker(lambda _: 1)
    await engine.orchestrator()

    async def again() -> bool:
        return await engine.status(execution) == "COMPLETED"

    await engine.until("the new one has run", again)
    await engine.verified()


async def test_a_command_that_waits_is_folded_before_anything_newer_is_deleted(engine):
    """After an outage of the log an accepted creation is carried out, however old it is by then."""
    ended, _ = await ended_ago(engine, 0, 40 * DAY_MS)
    execution, records = engine.records(ONE, 0)
    accepted_at = engine.clock.now_ms() - 41 * DAY_MS
    waiting = [wire.encode(msgspec.structs.replace(record, ts=accepted_at)) for record in records]
    command = pack_command(accepted_at, waiting, "")
    await engine.scripts.accept(engine.keys(0), execution, "create", command, [""])
    other, _ = engine.records(ONE, 0)
    await engine.scripts.accept(engine.keys(0), other, "create", b"what nobody can read", [""])
    engine.worker(lambda _: 1)
    await engine.orchestrator()
    await only(engine, [ended], [])
    assert await engine.ended(execution) == ["COMPLETED"]
    await engine.verified()


async def test_nothing_is_deleted_while_very_many_commands_wait(engine, looks, monkeypatch):
    """After an outage of the log there may be gigabytes of them: they are counted, not read."""
    monkeypatch.setattr(retention, "MOST_WAITING", 2)
    ended, _ = await ended_ago(engine, 0, 40 * DAY_MS)
    keys, now = engine.keys(0), engine.clock.now_ms()
    waiting = {f"{engine.records(ONE, 0)[0]}/trigger": pack_command(now, [], "") for _ in range(3)}
    await engine.redis.hset(keys.accepted, mapping=waiting)
    await engine.orchestrator()
    assert await engine.ended(ended) == ["CANCELLED"]
    await looked_again(engine, looks)
    assert await left(engine, ended) == [ended]
    await engine.redis.hdel(keys.accepted, next(iter(waiting)))
    await only(engine, [ended], [])


async def test_catalogues_of_workers_that_are_gone(engine):
    """What a living worker can run stays published; what only workers could that are gone is deleted."""
    service, _ = await engine.orchestrator()
    keys = InstallationKeys(engine.settings.namespace)
    await engine.redis.hset(keys.catalogues, mapping={"used": "{}", "old": "{}"})
    await engine.redis.set(keys.worker("w"), b'{"id": "w", "catalogue": "used", "slots": 1}')
    await engine.redis.zadd(keys.workers, {"w": 1, "gone": 2})
    await engine.redis.set(keys.worker("gone"), "what a worker of the future says")
    await service.context.queries.prune_catalogues()
    assert await engine.redis.hlen(keys.catalogues) == 2
    await engine.redis.delete(keys.worker("gone"))
    await service.context.queries.prune_catalogues()
    assert await engine.redis.hkeys(keys.catalogues) == [b"used"]
    await engine.redis.delete(keys.worker("w"))
    await service.context.queries.prune_catalogues()
    assert await engine.redis.hkeys(keys.catalogues) == []
