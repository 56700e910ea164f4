"""Who serves what: shares follow who is alive, and what a dead orchestrator leaves is taken at once."""

from __future__ import annotations

import time

from wf_core.store.keys import InstallationKeys
from wf_orchestrator import ownership
from wf_orchestrator.ownership import BALANCE_SECONDS, Ownership, until_next
from wf_orchestrator.service import OrchestratorService


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
        mine = Ownership(context, lambda _partition: None)
        await mine.beat()
        await mine.balance()
        assert (mine.share, sorted(mine.partitions)) == (2, [2, 3])
        await mine.leave()


async def test_what_others_gave_up_is_taken_beyond_the_share(engine, monkeypatch):
    """A partition that stands free for long is served by one that has its share already, and is not given up again."""
    monkeypatch.setattr(ownership, "LEFT_SECONDS", 0.2)
    await ghost(engine, [], 0)
    service = OrchestratorService(engine.settings)
    await service.start()
    async with service._exits:
        mine = Ownership(service.context, lambda _partition: None)

        async def all_mine():
            await ghost(engine, [], 0)  # it is alive, and serves nothing
            await mine.beat()
            await mine.balance()
            return len(mine.partitions) == engine.settings.partitions

        await mine.beat()
        await mine.balance()
        assert (mine.share, len(mine.partitions)) == (2, 2)
        await engine.until("every partition is served", all_mine)
        assert await all_mine()
        await mine.leave()


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
