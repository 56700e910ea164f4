"""A log that lost its tail and went on: the owner knows the record before its offset again, or starts at the end."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.metrics import Counters
from wf_core.store.commands import unpack_command
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_orchestrator.checkpoint import digest
from wf_orchestrator.context import PartitionLostError
from wf_orchestrator.machine.state import PartitionState
from wf_orchestrator.partition import Partition
from wf_orchestrator.recovery import Doubts, check_last
from wf_orchestrator.verify import UnverifiableError, verify

PAIR = {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}}
ONE = {"nodes": {"a": {"task": "t"}}}


async def worked(engine):
    """One execution went through partition 0, and its orchestrator stopped."""
    _, task = await engine.orchestrator()
    engine.worker(lambda _: 1)
    assert await engine.ended(await engine.submit(ONE, partition=0), seconds=30) == ["COMPLETED"]
    await engine.at_rest()
    await engine.stop(task)


async def replace_last(engine, count):
    """The last `count` records are gone, and others stand in their places."""
    source = TopicPartition(topics.events(engine.settings.namespace), 0)
    keys, end = InstallationKeys(engine.settings.namespace), await engine.log.end(source)
    stream, bounds = keys.log(*source), keys.log_bounds(*source)
    records = [fields[b"r"] for _, fields in await engine.redis.xrange(stream)]
    await engine.redis.delete(stream, bounds)
    await engine.log.append(source, records[:-count])
    stale = wire.Lost(execution="0" * 28, ts=1, source="test", node="x", attempt=1, reason="dead")
    await engine.append(0, [stale] * count)
    assert await engine.log.end(source) == end


@pytest.mark.parametrize("log_driver", ["redis", "kafka"])
async def test_the_next_owner_finds_the_record_before_its_offset_and_goes_on(engine, log_driver):
    """The record is looked at on the way, by the read that begins one record early; nothing is folded twice."""
    await worked(engine)
    service, _ = await engine.orchestrator()
    assert await engine.ended(await engine.submit(PAIR, partition=0), seconds=30) == ["COMPLETED"]
    assert service.counters.get("log_tail_lost_total") == 0
    assert service.counters.get("partitions_dropped_total") == 0
    await engine.verified()


async def test_what_was_folded_is_not_folded_again_although_redis_forgot_the_incarnation(engine):
    """A roll-back may undo the first REBASE alone: the offset that was written since stands; nothing is repeated."""
    await worked(engine)
    await engine.redis.hdel(engine.keys(0).meta, "inc")
    service, _ = await engine.orchestrator()
    await engine.all_owned()
    await engine.at_rest()
    assert service.counters.get("events_total") == 0
    await engine.verified()


async def test_a_tail_that_was_replaced_moves_the_offset_to_the_end(engine):
    """Found twice: whatever the log holds now is passed over, loudly, and the partition takes new work."""
    await worked(engine)
    await replace_last(engine, 2)
    service, _ = await engine.orchestrator()

    async def moved():
        return service.counters.get("log_tail_lost_total") == 1

    await engine.until("the partition moved", moved)
    assert await engine.ended(await engine.submit(PAIR, partition=0)) == ["COMPLETED"]
    assert service.counters.get("partitions_dropped_total") == 2
    with pytest.raises(UnverifiableError, match="outlived its log"):
        await verify(engine.redis, engine.log, engine.settings.namespace, 0)


async def test_a_command_that_was_passed_over_is_appended_again(engine, monkeypatch):
    """What the API accepted lies beside the log until it is folded, so moving to the end loses no promise."""
    monkeypatch.setattr("wf_orchestrator.sweeps.ACCEPTED_SECONDS", 0.2)
    await worked(engine)
    await replace_last(engine, 1)
    execution = await engine.accept(ONE)
    command = await engine.redis.hgetall(engine.keys(0).accepted)
    records = [record for stored in command.values() for record in unpack_command(stored).record]
    await engine.log.append(TopicPartition(topics.events(engine.settings.namespace), 0), records)
    service, _ = await engine.orchestrator()
    assert await engine.ended(execution) == ["COMPLETED"]
    assert service.counters.get("log_tail_lost_total") == 1
    assert service.counters.get("accepted_again_total") >= 1


async def test_one_look_is_no_proof():
    """A new leader of the log may lag at first: an offset moves when the other record is seen twice in a row."""
    rebased: list[int] = []

    async def end(_source):
        return 9

    async def rebase(_keys, _nonce, _incarnation, offset):
        rebased.append(offset)
        return True

    context = SimpleNamespace(
        log=SimpleNamespace(end=end),
        scripts=SimpleNamespace(rebase=rebase),
        counters=Counters(),
        events=lambda number: TopicPartition("events", number),
    )
    doubts = Doubts()
    partition = Partition(
        0,
        PartitionKeys.of("ns", 0),
        "nonce",
        "i",
        0,
        5,
        9,
        PartitionState(0, 0),
        last=digest(b"folded"),
        unchecked=True,
    )
    for record, moved in ((b"other", False), (b"folded", False), (b"other", False), (b"other", True)):
        with pytest.raises(PartitionLostError) if record == b"other" else contextlib.nullcontext():
            await check_last(context, doubts, partition, record)
        assert bool(rebased) is moved
    assert rebased == [9]


async def test_a_record_that_the_log_forgot_is_not_missed(engine):
    """Retention may have taken the record before the offset: then there is nothing to compare, and work goes on."""
    await worked(engine)
    for number in range(engine.settings.partitions):
        source = TopicPartition(topics.events(engine.settings.namespace), number)
        await engine.log.trim(source, await engine.log.end(source))
    service, _ = await engine.orchestrator()
    assert await engine.ended(await engine.submit(PAIR, partition=0)) == ["COMPLETED"]
    assert service.counters.get("partitions_dropped_total") == 0


async def test_a_log_that_forgot_what_was_not_folded_stops_its_partition(engine):
    """Retention was too short: nobody skips records in silence. The partition stands still, the others go on."""
    source = TopicPartition(topics.events(engine.settings.namespace), 0)
    await engine.submit(ONE, partition=0)
    await engine.log.trim(source, 2)
    service, _ = await engine.orchestrator()
    engine.worker(lambda _: 1)

    async def stopped():
        return service.counters.get("partitions_dropped_total") >= 2 and 0 not in await engine.owners()

    await engine.until("the partition stands still", stopped)
    assert await engine.ended(await engine.submit(ONE, partition=1)) == ["COMPLETED"]
    assert await engine.redis.hget(engine.keys(0).meta, "off") == b"0"
