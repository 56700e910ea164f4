"""Redis is brought to the end of the log; what cannot be is refused, with the partitions and offsets."""

from __future__ import annotations

import asyncio

import pytest

from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.errors import SetupError
from wf_core.store.keys import InstallationKeys
from wf_orchestrator.rebuild import rebuild
from wf_orchestrator.survey import SILENT_SECONDS, check_gaps, check_nobody_works, survey

PAIR = {
    "nodes": {
        "a": {"task": "t"},
        "b": {"task": "t", "params": {"value": "${{ nodes.a.output }}"}},
    }
}


def told(said: list[int]):
    """A progress that remembers."""
    return said.append


async def forget(engine) -> None:
    """Redis loses the state; its log stays, as Kafka's would."""
    keys = InstallationKeys(engine.settings.namespace)
    kept = {keys.topics}
    async for key in engine.redis.scan_iter(match=f"{engine.settings.namespace}[:.]*", count=1000):
        name = key.decode()
        if name not in kept and not name.endswith((":log", ":log:b")):
            await engine.redis.delete(name)


async def half_done(engine) -> tuple[list[str], list[str]]:
    """Finished executions, and some whose second node nobody took; then nobody works."""
    _, task = await engine.orchestrator()
    worker = engine.worker(lambda _: 1)
    finished = [await engine.submit(PAIR) for _ in range(4)]
    await engine.ended(*finished)
    await worker.stop()
    worker = engine.worker(lambda message: 1 if message.node == "a" else None)
    middle = [await engine.submit(PAIR) for _ in range(4)]

    async def second_nodes():
        return len([token for token in worker.ran if "/b/" in token]) == 4

    await engine.until("the second nodes run", second_nodes)
    await worker.stop()
    await engine.at_rest()
    await engine.stop(task)
    return finished, middle


async def test_a_lost_state_is_folded_again_and_work_goes_on(engine):
    """All of it comes from the log, the task topics are not read again, and what was in flight is sent again."""
    finished, middle = await half_done(engine)
    await forget(engine)
    said: list[int] = []
    before = await rebuild(engine.redis, engine.log, engine.settings, told(said))
    assert said[-1] == 0
    assert said[0] == sum(place.to_fold for place in before) > 20
    await engine.verified()
    assert await engine.owners() == {}
    assert [place.state for place in await survey(engine.redis, engine.log, engine.settings)] == ["current"] * 4
    for number in range(engine.settings.task_partitions):
        key = InstallationKeys(engine.settings.namespace).task_lease("default", number)
        assert int(await engine.redis.hget(key, "off")) > 0
    await engine.orchestrator()
    worker = engine.worker(lambda _: 2)
    assert await engine.ended(*finished, *middle) == ["COMPLETED"] * 8
    assert {token.split("/")[1] for token in worker.ran} == {"b"}
    await engine.at_rest()
    await engine.verified()


async def test_a_rebuild_of_what_is_whole_changes_nothing(engine):
    """Repeated, or without need, it finds nothing to fold; task partitions that Redis knows stay where they are."""
    await half_done(engine)
    key = InstallationKeys(engine.settings.namespace).task_lease("default", 0)
    await engine.redis.hset(key, "off", "1")
    said: list[int] = []
    await rebuild(engine.redis, engine.log, engine.settings, told(said))
    assert said == [0]
    assert await engine.redis.hget(key, "off") == b"1"
    await engine.verified()


async def test_a_log_that_forgot_what_was_not_folded_is_refused(engine):
    """The partitions are named with both offsets, and nothing is changed."""
    await half_done(engine)
    source = TopicPartition(topics.events(engine.settings.namespace), 1)
    await engine.log.trim(source, 3)
    await engine.redis.hset(engine.keys(1).meta, "off", "2")
    places = await survey(engine.redis, engine.log, engine.settings)
    assert [place.state for place in places] == ["current", "gap", "current", "current"]
    with pytest.raises(SetupError, match="partition 1 is to be folded from offset 2 and its log begins at 3"):
        check_gaps(places)
    with pytest.raises(SetupError, match="partition 1"):
        await rebuild(engine.redis, engine.log, engine.settings, told([]))
    assert await engine.redis.hget(engine.keys(1).meta, "off") == b"2"


async def test_nobody_may_work_meanwhile(engine):
    """An orchestrator that was heard a moment ago stands in the way; one that left, or fell silent, does not."""
    await engine.orchestrator()
    await engine.all_owned()
    with pytest.raises(SetupError, match="1 orchestrators and 0 workers"):
        await rebuild(engine.redis, engine.log, engine.settings, told([]))
    await engine.close()
    await check_nobody_works(engine.redis, engine.settings)
    keys = InstallationKeys(engine.settings.namespace)
    await engine.redis.zadd(keys.orchestrators, {"o-killed": engine.clock.now_ms() - 1000 * SILENT_SECONDS - 1})
    await check_nobody_works(engine.redis, engine.settings)


async def test_settings_that_are_not_those_of_the_installation_are_refused(engine):
    """Numbers of partitions are compared with the log's, and wrong ones are not left behind as the installed ones."""
    await half_done(engine)
    await forget(engine)
    wrong = engine.settings.model_copy(update={"partitions": 8})
    with pytest.raises(SetupError, match="APP_PARTITIONS must be what it was"):
        await rebuild(engine.redis, engine.log, wrong, told([]))
    wrong = engine.settings.model_copy(update={"task_partitions": 16})
    with pytest.raises(SetupError, match="has 2 partitions and not 16"):
        await rebuild(engine.redis, engine.log, wrong, told([]))
    await rebuild(engine.redis, engine.log, engine.settings, told([]))
    await engine.verified()


async def test_without_a_log_there_is_nothing_to_rebuild_from(engine):
    """An empty log is said to be one, with what to restore where the log lies in Redis."""
    with pytest.raises(SetupError, match="keeps it in this very Redis"):
        await rebuild(engine.redis, engine.log, engine.settings, told([]))
    assert [key async for key in engine.redis.scan_iter(match=f"{engine.settings.namespace}*")] == []


async def test_a_partition_at_work_can_be_verified(engine):
    """Reads and fold meet at one offset each time, however quickly the partition moves on."""
    await engine.orchestrator()
    engine.worker(lambda _: 1)
    running = [await engine.submit(PAIR, partition=0) for _ in range(40)]
    ending = asyncio.ensure_future(engine.ended(*running, seconds=60))
    rounds = 0
    while not ending.done():
        await engine.verified()
        rounds += 1
    assert await ending == ["COMPLETED"] * 40
    assert rounds > 1
