"""What happens when processes, Redis or the log let an orchestrator down. Each test ends with completed work."""

from __future__ import annotations

import time

import pytest

from wf_core import ids, wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.errors import UnavailableError
from wf_core.store.keys import InstallationKeys
from wf_orchestrator import sweeps
from wf_orchestrator.service import OrchestratorService
from wf_orchestrator.verify import UnverifiableError, verify

PAIR = {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}}
ONE = {"nodes": {"a": {"task": "t"}}}


async def sent(engine, number=0):
    """How many task messages were ever sent."""
    topic = topics.tasks(engine.settings.namespace, "default")
    return sum([await engine.log.end(TopicPartition(topic, n)) for n in range(engine.settings.task_partitions)])


async def test_orchestrators_share_partitions_and_take_over_what_one_leaves(engine):
    """Two have half each; when one leaves, the other has all without waiting for a lease to run out."""
    first, _ = await engine.orchestrator()
    await engine.all_owned()
    second, leaving = await engine.orchestrator()
    ids = sorted([first.context.id, second.context.id])

    async def halves():
        return sorted((await engine.owners()).values()) == sorted(ids * 2)

    await engine.until("both have half of the partitions", halves)
    engine.worker(lambda _: 1)
    executions = [await engine.submit(PAIR) for _ in range(4)]
    assert await engine.ended(*executions) == ["COMPLETED"] * 4
    left = time.monotonic()
    await engine.stop(leaving)
    assert set((await engine.all_owned()).values()) == {first.context.id}
    assert time.monotonic() - left < 2
    await engine.verified()


async def test_a_dead_orchestrator_is_replaced_when_its_leases_run_out(engine):
    """Killed while executions run: another one completes them, at most half a second after the lease."""
    _, victim = await engine.orchestrator()
    engine.worker(lambda message: ValueError("again") if message.attempt == 1 else 1)
    executions = [await engine.submit(PAIR, delay_ms=300) for _ in range(8)]

    async def begun():
        return await sent(engine) >= 8

    await engine.until("work has begun", begun)
    await engine.crash(victim)
    died = time.monotonic()
    second, _ = await engine.orchestrator()

    async def taken():
        return list((await engine.owners()).values()) == [second.context.id] * 4

    await engine.until("the second one has everything", taken)
    assert time.monotonic() - died < engine.settings.lease_seconds + 1.5
    assert await engine.ended(*executions) == ["COMPLETED"] * 8
    await engine.verified()


async def test_an_attempt_of_a_dead_worker_is_lost_and_tried_again(engine):
    """A claim whose holder is silent for the death time is taken away; the next attempt is on the platform's budget."""
    await engine.orchestrator()
    dead = engine.worker(lambda _: None, "dead")
    execution = await engine.submit(ONE)

    async def claimed():
        return dead.ran

    await engine.until("the first worker runs it", claimed)
    await dead.stop()
    killed = time.monotonic()
    engine.worker(lambda _: 1, "alive")
    assert await engine.ended(execution) == ["COMPLETED"]
    assert time.monotonic() - killed < engine.settings.death_seconds + 2
    lost, completed = await engine.attempts(execution, "a")
    assert (str(lost.status), str(lost.class_), lost.worker) == ("LOST", "platform", "dead")
    assert "silent for" in lost.error.message
    assert (completed.worker, await engine.nodes(execution, 1)) == ("alive", [("COMPLETED", 2, 1)])
    await engine.verified()


async def test_a_worker_that_beats_keeps_its_attempt(engine):
    """A long task is no dead one: heartbeats guard it, far beyond the death and orphan times."""
    await engine.orchestrator()
    worker = engine.worker(lambda _: None)
    execution = await engine.submit(ONE)
    begun = time.monotonic()

    async def long_enough():
        return time.monotonic() - begun > 3

    await engine.until("three death times are over", long_enough)
    assert (await engine.status(execution), worker.ran) == ("RUNNING", [f"{execution}/a/1"])


async def test_a_message_that_was_passed_without_a_claim_is_an_orphan(engine):
    """The offset is passed, the token unclaimed: no worker will ever read it, so it goes again."""
    await engine.orchestrator()
    execution = await engine.submit(ONE)

    async def waiting():
        return await sent(engine) == 1

    await engine.until("the message is sent", waiting)
    for number in range(engine.settings.task_partitions):
        key = InstallationKeys(engine.settings.namespace).task_lease("default", number)
        await engine.scripts.task_lease(key, "gone", 1)
        await engine.scripts.task_commit(key, "gone", 1, 1)

    async def again():
        return await sent(engine) == 2

    await engine.until("it is sent again", again)
    engine.worker(lambda _: 1)
    assert await engine.ended(execution) == ["COMPLETED"]
    lost, _ = await engine.attempts(execution, "a")
    assert lost.error.message == "attempt 1 was lost: its message reached no worker"
    await engine.verified()


async def begins(engine, execution):
    """A worker runs `a`, goes on with `b` by itself, and is never heard of again."""
    keys, token = engine.keys(ids.partition_of(execution)), f"{execution}/a/1"

    async def claimed():
        return await engine.scripts.claim(keys, "gone", [token], [False]) == ["OK"]

    await engine.until("it has its claim", claimed)
    begin, now = wire.Begin(node="b", attempt=1, params=b"{}"), engine.clock.now_ms()
    times = {"ts": now, "started_at": now, "ended_at": now}
    result = wire.Result(
        execution=execution, source="gone", worker="gone", node="a", attempt=1, output=b"1", begin=begin, v=2, **times
    )
    source = TopicPartition(topics.events(engine.settings.namespace), ids.partition_of(execution))
    await engine.log.append(source, [wire.encode(result)])

    async def taken_over():
        return await engine.redis.hget(keys.claims, f"{execution}/b/1")

    claim = await engine.until("the fold took it over", taken_over)
    assert claim.startswith(b"gone|")
    assert await engine.redis.hget(keys.messages, f"{execution}/b/1") is None
    return keys


async def test_what_a_worker_began_is_lost_with_it(engine):
    """A node that its worker went on with is claimed from the start: when the worker is silent it is dispatched."""
    await engine.orchestrator()
    execution = await engine.submit(PAIR)
    await begins(engine, execution)
    await engine.verified()
    worker = engine.worker(lambda _: 1, "alive")
    assert await engine.ended(execution) == ["COMPLETED"]
    lost, completed = await engine.attempts(execution, "b")
    assert (str(lost.status), lost.worker, completed.worker) == ("LOST", "gone", "alive")
    assert f"{execution}/b/2" in worker.ran
    await engine.verified()


async def test_what_a_worker_began_and_does_not_know_is_an_orphan(engine):
    """Its claim is dropped, since no heartbeat names it: a new owner of the partition finds it as well."""
    _, first = await engine.orchestrator()
    execution = await engine.submit(PAIR)
    keys = await begins(engine, execution)
    await engine.redis.hdel(keys.claims, f"{execution}/b/1")
    await engine.crash(first)
    await engine.orchestrator()
    engine.worker(lambda _: 1, "alive")
    assert await engine.ended(execution) == ["COMPLETED"]
    lost, _ = await engine.attempts(execution, "b")
    assert lost.error.message == "attempt 1 was lost: its message reached no worker"
    await engine.verified()


async def test_an_outbox_entry_that_comes_back_is_sent_again(engine):
    """Redis may forget that a message was taken out of the outbox: a re-scan finds it. The copy is refused."""
    service, _ = await engine.orchestrator()
    execution = await engine.submit(ONE, partition=0)
    keys, token = engine.keys(0), f"{execution}/a/1"

    async def trimmed():
        return await engine.redis.hget(keys.sent, token)

    await engine.until("the message is sent", trimmed)
    await engine.redis.hdel(keys.sent, token)
    await engine.redis.zadd(keys.outbox("default"), {token: 1})

    async def copied():
        return await sent(engine) == 2

    await engine.until("a copy is sent", copied, 12)
    worker = engine.worker(lambda _: 1)
    assert await engine.ended(execution) == ["COMPLETED"]
    assert service.counters.get("outbox_resurrected_total") == 1

    async def refused():
        return (worker.ran, worker.refused) == ([token], [token])

    await engine.until("the copy is refused", refused)
    await engine.verified()


async def test_a_command_whose_records_never_reached_the_log_is_appended_again(engine, monkeypatch):
    """An API that died after ACCEPT had promised nothing, yet what it accepted is done."""
    monkeypatch.setattr(sweeps, "ACCEPTED_SECONDS", 0.2)
    await engine.orchestrator()
    engine.worker(lambda _: 1)
    execution = await engine.accept(PAIR)
    assert await engine.ended(execution) == ["COMPLETED"]
    assert await engine.redis.hlen(engine.keys(0).accepted) == 0
    await engine.verified()


async def test_a_command_that_is_never_folded_ends_in_the_dead_letters(engine, monkeypatch):
    """A poisonous command is not appended for ever."""
    monkeypatch.setattr(sweeps, "ACCEPTED_SECONDS", 0.0)
    monkeypatch.setattr(sweeps, "ACCEPTED_TRIES", 1)
    service, _ = await engine.orchestrator()
    execution, records = engine.records(ONE, 0)
    await engine.scripts.accept(engine.keys(0), execution, "create", _stored(engine, records[2:]), [""])

    async def buried():
        return service.counters.get("dead_letters_total") == 1 and not await engine.redis.hlen(engine.keys(0).accepted)

    await engine.until("it is buried", buried)


def _stored(engine, records):
    from wf_core import wire
    from wf_core.store.commands import pack_command

    return pack_command(engine.clock.now_ms(), [wire.encode(record) for record in records], "")


async def test_redis_killed_and_restarted_loses_nothing(engine, redis_server):
    """The service waits for Redis, leases again and goes on; no process is restarted."""
    _, task = await engine.orchestrator()
    engine.worker(lambda message: ValueError("again") if message.attempt == 1 else 1)
    executions = [await engine.submit(PAIR, delay_ms=200) for _ in range(8)]

    async def begun():
        return await sent(engine) >= 6

    await engine.until("work has begun", begun)
    for worker in list(engine._workers):
        await worker.stop()
    redis_server.restart()
    engine.worker(lambda _: 1, "later")
    assert await engine.ended(*executions, seconds=25) == ["COMPLETED"] * 8
    assert not task.done()
    await engine.verified()


async def test_an_owner_rewinds_when_redis_forgot_what_it_applied(engine):
    """RENEW returns the stored offset; one that is not the owner's makes it read again from there."""
    service, _ = await engine.orchestrator()
    engine.worker(lambda _: 1)
    execution = await engine.submit(ONE, partition=0)
    assert await engine.ended(execution) == ["COMPLETED"]
    await engine.at_rest()
    await engine.redis.hincrby(engine.keys(0).meta, "off", -1)

    async def rewound():
        return service.counters.get("rewinds_total") >= 1

    await engine.until("the owner noticed", rewound)
    second = await engine.submit(PAIR, partition=0)
    assert await engine.ended(second) == ["COMPLETED"]


async def wipe(engine):
    """The log is lost whole, topics and all."""
    keys = InstallationKeys(engine.settings.namespace)
    names = [t.decode() for t in await engine.redis.hkeys(keys.topics)]
    for topic in names:
        for number in range(engine.settings.partitions):
            await engine.redis.delete(keys.log(topic, number), keys.log_bounds(topic, number))
    await engine.redis.delete(keys.topics)


async def test_a_log_that_was_lost_whole_is_noticed_and_work_goes_on(engine):
    """A new incarnation: partitions are read from its beginning, and what was in the lost topics is sent again."""
    await engine.orchestrator()
    waiting = await engine.submit(PAIR, partition=0)

    async def dispatched():
        return await sent(engine) == 1

    await engine.until("the first node waits for a worker", dispatched)
    await wipe(engine)
    later = await engine.submit(ONE, partition=1)
    engine.worker(lambda _: 1)
    assert await engine.ended(waiting, later, seconds=30) == ["COMPLETED", "COMPLETED"]
    lost, _ = await engine.attempts(waiting, "a")
    assert "reached no worker" in lost.error.message
    with pytest.raises(UnverifiableError, match="outlived its log"):
        await verify(engine.redis, engine.log, engine.settings.namespace, 0)


async def test_a_log_that_lost_its_tail_is_read_from_its_end(engine):
    """An end below the offset, found twice: the partition moves to the end, loudly, and takes new work."""
    service, _ = await engine.orchestrator()
    engine.worker(lambda _: 1)
    first = await engine.submit(ONE, partition=0)
    assert await engine.ended(first) == ["COMPLETED"]
    await engine.at_rest()
    keys = InstallationKeys(engine.settings.namespace)
    stream = topics.events(engine.settings.namespace), 0
    (last,) = await engine.redis.xrevrange(keys.log(*stream), count=1)
    await engine.redis.delete(keys.log(*stream))
    await engine.redis.hset(keys.log_bounds(*stream), mapping={"start": "0", "end": "2"})

    async def moved():
        return service.counters.get("log_tail_lost_total") == 1

    await engine.until("the partition moved", moved)
    second = await engine.submit(PAIR, partition=0)
    assert await engine.ended(second) == ["COMPLETED"]
    assert last


async def test_servers_away_at_start_are_an_error_after_a_bounded_wait(engine):
    """Redis or the log away: a clear sentence within `connect_seconds`, nothing left open."""
    service = OrchestratorService(engine.settings.model_copy(update={"redis_port": 1, "connect_seconds": 0.3}))
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="did not answer within"):
        await service.start()
    assert time.monotonic() - begun < 3
    kafka = {"broker": "kafka", "kafka_bootstrap_servers": "127.0.0.1:1", "connect_seconds": 0.3}
    with pytest.raises(UnavailableError):
        await OrchestratorService(engine.settings.model_copy(update=kafka)).start()
