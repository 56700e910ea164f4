"""Who serves what: shares follow who is alive, and what a dead orchestrator leaves is taken at once."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time

import pytest

from wf_core.errors import UnavailableError
from wf_core.store.keys import InstallationKeys
from wf_orchestrator import checkpoint, ownership
from wf_orchestrator.context import PartitionLostError
from wf_orchestrator.crew import Crew
from wf_orchestrator.ownership import BALANCE_SECONDS, Ownership, until_next
from wf_orchestrator.service import OrchestratorService
from wf_orchestrator.work import Work


async def ghost(engine, partitions, lease_ms, heard_ms_ago=0):
    """Another orchestrator, which holds partitions and says nothing more."""
    orchestrators = InstallationKeys(engine.settings.namespace).orchestrators
    await engine.redis.zadd(orchestrators, {"ghost": engine.clock.now_ms() - heard_ms_ago})
    for number in partitions:
        assert await engine.scripts.lease(engine.keys(number), "ghost.1", lease_ms)


def test_the_next_look_is_when_the_next_lease_ends():
    """Sooner than usual when something will be free before; what is over already changes nothing."""
    assert until_next([], 1000) == BALANCE_SECONDS
    assert until_next([900, 5000], 1000) == BALANCE_SECONDS
    assert until_next([5000, 1100], 1000) == 0.105


async def test_what_a_dead_orchestrator_held_is_taken_when_its_leases_end(engine):
    """Its share goes to the others in that moment, and not when they count each other the next time."""
    lease = 15.0
    await ghost(engine, range(engine.settings.partitions), 1000, heard_ms_ago=round(lease * 1000) - 1000)
    begun = time.monotonic()
    service, _ = await engine.orchestrator(lease_seconds=lease)
    owners = await engine.all_owned()
    while set(owners.values()) != {service.context.id}:
        owners = await engine.all_owned()
        assert time.monotonic() - begun < lease / 2.5 - 1, "a whole beat has passed"


async def test_what_another_takes_at_the_same_moment_costs_no_round(engine, monkeypatch):
    """Two that see the same free partitions go on to those that the other left: none stays free until the next look."""
    monkeypatch.setattr(ownership.random, "shuffle", lambda _free: None)
    service = OrchestratorService(engine.settings)
    await service.start()
    async with service._exits:
        context, seen = service.context, await service.context.queries.owners(range(4))
        await ghost(engine, [0, 1], 60_000)

        async def owners(_wanted):
            return seen  # as of a moment before the other leased its own

        monkeypatch.setattr(context.queries, "owners", owners)
        mine = Ownership(context, Crew(), lambda _partition: None)
        await mine.beat()
        await mine.balance()
        assert (mine.share, sorted(mine.partitions)) == (2, [2, 3])
        await mine.leave()


@contextlib.asynccontextmanager
async def owning(engine):
    """An orchestrator's leases, without the steps that repeat themselves."""
    service, crew = OrchestratorService(engine.settings), Crew()
    await service.start()
    async with service._exits:
        mine = Ownership(service.context, crew, lambda _partition: None)
        await mine.beat()
        yield service.context, mine
        await crew.end()
        await mine.leave()


async def test_what_others_gave_up_is_taken_beyond_the_share(engine, monkeypatch):
    """What one cannot serve another one takes at once and keeps, but only as long as that one cannot."""
    monkeypatch.setattr(ownership, "STOPPED_SECONDS", 600.0)
    async with owning(engine) as (context, mine), owning(engine) as (_, other):
        await mine.balance()
        await other.balance()
        assert (len(mine.partitions), len(other.partitions)) == (2, 2)
        for partition in list(other.partitions.values()):
            async with other.contained(partition):
                raise ZeroDivisionError
        await mine.balance()
        assert len(mine.partitions) == 2
        await other.beat()
        for _ in range(2):
            await other.balance()
            await mine.balance()
            assert (mine.share, len(mine.partitions), len(other.partitions)) == (2, 4, 0)
        other._stopped.clear()
        await other.beat()
        await mine.balance()

        async def shared():
            await other.balance()
            return len(other.partitions) == len(mine.partitions) == 2

        await engine.until("each has its share again", shared)
        keys = InstallationKeys(context.namespace)
        await engine.redis.hset(keys.given_up, "gone", "1 2 3")
        await mine.beat()
        assert await engine.redis.exists(keys.given_up) == 0


async def test_a_long_fold_does_not_keep_what_is_free_from_being_taken(engine):
    """A partition that is to be given back is released when its batch is written; nothing else waits for that."""
    async with owning(engine) as (context, mine):
        await mine.balance()
        assert len(mine.partitions) == 4
        async with contextlib.AsyncExitStack() as folds:
            for partition in mine.partitions.values():
                await folds.enter_async_context(partition.lock)
            await ghost(engine, [], 0)
            async with asyncio.timeout(5):
                for _ in range(2):
                    await mine.balance()
            assert (mine.share, len(mine.partitions)) == (2, 4)
            await engine.redis.delete(InstallationKeys(context.namespace).orchestrators)
            lost = next(iter(mine.partitions.values()))
            mine.drop(lost, "its memory cannot be trusted")
            await mine.balance()
            assert mine.partitions[lost.number] is not lost

        async def released():
            return len(mine.partitions) < 4

        await engine.until("the surplus is released", released)


async def test_a_write_from_before_a_drop_finds_itself_fenced(engine):
    """What was under way when a partition was dropped must not land after it was leased again, which is at once."""
    async with owning(engine) as (context, mine):
        await mine.balance()
        dropped = mine.partitions[0]
        mine.drop(dropped, "a test")
        await mine.balance()
        again = mine.partitions[0]
        assert again.offset == dropped.offset
        with pytest.raises(PartitionLostError, match="FENCED"):
            await checkpoint.write(context, dropped, [])
        await checkpoint.write(context, again, [])


async def test_leases_are_looked_at_often_while_redis_is_away(engine, monkeypatch):
    """Once it is back claims wait for the owner: these pauses do not grow as those of other steps do."""
    slept = {"beat": [], "balance": []}
    stop = asyncio.Event()

    async def away(_ownership):
        raise UnavailableError("away")

    async def sleep(seconds):
        slept.get(asyncio.current_task().get_name(), []).append(seconds)
        if min(map(len, slept.values())) >= 8:
            stop.set()
        await asyncio.sleep(0)

    monkeypatch.setattr(Ownership, "beat", away)
    monkeypatch.setattr(Ownership, "balance", away)
    service = OrchestratorService(engine.settings)
    await service.start()
    async with service._exits, asyncio.timeout(10):
        work = Work(dataclasses.replace(service.context, sleep=sleep))
        work.ownership.registered.set()
        await work.run(stop)
    assert (max(slept["beat"]), max(slept["balance"])) == (0.4, 0.4)


async def test_what_an_older_release_did_not_list_is_listed_by_the_next_owner(engine):
    """Executions that ended before there was an index of ends are found by retention, and the fold agrees."""
    _, task = await engine.orchestrator()
    engine.worker(lambda _: 1)
    executions = [await engine.submit({"nodes": {"a": {"task": "t"}}}, partition=0) for _ in range(3)]
    await engine.ended(*executions)
    await engine.at_rest()
    await engine.stop(task)
    index = engine.keys(0).index("ended")
    before = await engine.redis.zrange(index, 0, -1, withscores=True)
    await engine.redis.zrem(index, *executions[1:])
    await engine.orchestrator()

    async def complete():
        return await engine.redis.zrange(index, 0, -1, withscores=True) == before

    await engine.until("the index is complete", complete)
    await engine.verified()
