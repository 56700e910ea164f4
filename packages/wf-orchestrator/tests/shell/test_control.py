"""Commands, keys, caches and timeouts on real servers: what the shell carries for the machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wf_core import ids, wire
from wf_core.broker.protocol import Batch, TopicPartition
from wf_core.store.keys import InstallationKeys
from wf_orchestrator.batches import chunks

pytestmark = pytest.mark.asyncio
ONE: dict[str, Any] = {"nodes": {"a": {"task": "t"}}}


def command(engine, kind, execution_id, name, **values):
    return kind(execution=execution_id, ts=engine.clock.now_ms(), source="test", id=name, **values)


async def say(engine, kind, execution_id, name, **values):
    await engine.append(ids.partition_of(execution_id), [command(engine, kind, execution_id, name, **values)])


async def test_a_piece_begins_with_each_retry():
    """A batch is cut before each `retried` record, wherever it stands."""
    common = {"execution": "x", "ts": 1, "source": "s"}
    records = [
        wire.encode(record)
        for record in (
            wire.Triggered(**common, id="1"),
            wire.Retried(**common, id="2"),
            wire.Retried(**common, id="3"),
            wire.Triggered(**common, id="4"),
        )
    ]
    pieces = list(chunks(Batch(TopicPartition("t", 0), 7, records)))
    assert [(offset, len(piece)) for offset, piece in pieces] == [(7, 1), (8, 1), (9, 2)]


async def test_a_whole_life_in_one_batch(engine):
    """An execution that fails and is retried, twice, within one batch goes on; the fold of the log says the same."""
    document = {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "params": {"a": "${{ nodes.a.output }}"}}}}
    execution_id, records = engine.records(document, 1)
    now = engine.clock.now_ms()
    common: dict[str, Any] = {"execution": execution_id, "ts": now, "source": "test"}
    times: dict[str, Any] = {"worker": "w", "started_at": now, "ended_at": now}
    error = wire.Failure(type="Oops", message="m", fatal=True)

    def fails(attempt: int) -> list[wire.Record]:
        said: dict[str, Any] = {"delay_ms": None, "reason": "", "policy": "p"}
        return [
            wire.Result(**common, **times, node="b", attempt=attempt, status="FAILED", error=error),
            wire.Decision(**common, **said, node="b", attempt=attempt),
        ]

    await engine.append(
        1,
        [
            *records,
            wire.Result(**common, **times, node="a", attempt=1, output=b"5"),
            *fails(1),
            wire.Retried(**common, id="first"),
            *fails(2),
            wire.Retried(**common, id="second"),
        ],
    )
    worker = engine.worker(lambda message: {"got": message.params.decode()})
    await engine.orchestrator()
    await engine.until("it completed", lambda: _is(engine, execution_id, "COMPLETED"))
    assert worker.ran == [f"{execution_id}/b/3"]
    assert [(a.status, a.era) for a in await engine.attempts(execution_id, "b")] == [
        ("FAILED", 0),
        ("FAILED", 1),
        ("COMPLETED", 2),
    ]
    await engine.at_rest()
    await engine.verified()


async def test_retry_of_an_execution_long_ended(engine):
    """It is loaded with its results, goes on, and is in the right indexes; the fold of the log says the same."""
    fail = True

    def behave(message):
        return RuntimeError("no") if fail and message.node == "m[1]" else {"n": 1}

    engine.worker(behave)
    await engine.orchestrator()
    document = {"nodes": {"m": {"kind": "map", "items": [1, 2, 3], "task": "t"}}}
    execution_id = await engine.submit(document, max_retries=0)
    assert await engine.ended(execution_id) == ["FAILED"]
    keys = engine.keys(ids.partition_of(execution_id))
    assert await engine.redis.zscore(keys.index("ended"), execution_id)
    fail = False
    await say(engine, wire.Retried, execution_id, "again")
    await engine.until("it completed", lambda: _is(engine, execution_id, "COMPLETED"))
    assert await engine.redis.zscore(keys.index("s:FAILED"), execution_id) is None
    assert await engine.redis.hget(keys.execution(execution_id), "error") is None
    await engine.at_rest()
    await engine.verified()


async def _is(engine, execution_id, status):
    return await engine.status(execution_id) == status


async def test_pause_and_resume(engine):
    """Between the two commands nothing starts; the fold says the same."""
    engine.worker(lambda _: {"n": 1})
    document = {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}}
    execution_id, records = engine.records(document, 2)
    await engine.append(2, [*records, command(engine, wire.Paused, execution_id, "p")])
    await engine.orchestrator()

    async def a_is_done():
        return (await engine.nodes(execution_id, 2))[0][0] == "COMPLETED"

    await engine.until("what ran has ended", a_is_done)
    assert (await engine.status(execution_id), (await engine.nodes(execution_id, 2))[1][0]) == ("PAUSED", "PENDING")
    await say(engine, wire.Resumed, execution_id, "r")
    assert await engine.ended(execution_id) == ["COMPLETED"]
    await engine.at_rest()
    await engine.verified()


@pytest.mark.parametrize("crash", [False, True])
async def test_a_concurrency_key_across_partitions(engine, crash):
    """Executions of several partitions with one key run one after the other, also when orchestrators crash."""
    running: set[str] = set()
    most = 0

    def behave(message):
        nonlocal most
        running.add(message.execution) if message.node == "a" else running.discard(message.execution)
        most = max(most, len(running))
        return {"n": 1}

    engine.worker(behave)
    _, task = await engine.orchestrator()
    await engine.all_owned()
    document = {
        "concurrency": {"key": "the one", "limit": 1},
        "nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}},
    }
    executions = [await engine.submit(document, partition) for partition in (0, 1, 2, 3, 0, 1)]
    if crash:
        await asyncio.sleep(0.2)
        await engine.crash(task)
        await engine.orchestrator()
    assert set(await engine.ended(*executions, seconds=40)) == {"COMPLETED"}
    assert most == 1

    async def given_back():
        place = ids.partition_of_key("the one", engine.settings.partitions)
        return not await engine.redis.exists(engine.keys(place).concurrency)

    await engine.until("the key is free", given_back)
    await engine.until("nothing is left to say", lambda: _no_timers(engine))
    await engine.at_rest()
    await engine.verified()


async def _no_timers(engine):
    counts = [await engine.redis.zcard(engine.keys(n).timers) for n in range(engine.settings.partitions)]
    return not any(counts)


async def test_cancel_running_across_partitions(engine):
    """The newest execution takes over: the one that ran is cancelled, wherever it lives."""
    engine.worker(lambda message: {"n": 1} if message.params == b'{"quick":true}' else None)
    await engine.orchestrator()
    await engine.all_owned()
    concurrency = {"key": "deploy", "limit": 1, "on_conflict": "cancel_running"}
    slow = {"concurrency": concurrency, **ONE}
    quick = {"concurrency": concurrency, "nodes": {"a": {"task": "t", "params": {"quick": True}}}}
    first = await engine.submit(slow, 0)

    async def runs():
        return (await engine.nodes(first, 1))[0][0] == "QUEUED"

    await engine.until("the first one runs", runs)
    second = await engine.submit(quick, 1)
    assert await engine.ended(first, second) == ["CANCELLED", "COMPLETED"]
    await engine.until("nothing is left to say", lambda: _no_timers(engine))
    await engine.at_rest()
    await engine.verified()


async def test_the_cache(engine):
    """The second execution takes the output of the first; an entry that is gone is a miss."""
    worker = engine.worker(lambda _: {"n": 1})
    await engine.orchestrator()
    document = {"nodes": {"a": {"task": "t", "cache": {"key": "k", "ttl": "1h"}}}}
    first = await engine.submit(document, 0)
    assert await engine.ended(first) == ["COMPLETED"]

    async def entries():
        return [key async for key in engine.redis.scan_iter(match=f"{engine.settings.namespace}:cache:*")]

    (key,) = await engine.until("the output is kept", entries)
    assert 0 < await engine.redis.pttl(key) <= 3_600_000
    second = await engine.submit(document, 1)
    assert await engine.ended(second) == ["COMPLETED"]
    assert (await engine.attempts(second, "a"))[0].reason == "from the cache"
    await engine.redis.delete(key)
    third = await engine.submit(document, 2)
    assert await engine.ended(third) == ["COMPLETED"]
    assert worker.ran == [f"{first}/a/1", f"{third}/a/1"]
    await engine.at_rest()
    await engine.verified()


async def test_nobody_takes_it(engine):
    """An attempt that no worker takes within `queue_timeout` fails with QueueTimeoutError; one that runs does not."""
    engine.worker(lambda _: {"n": 1})
    await engine.orchestrator()
    document = {"nodes": {"a": {"task": "t", "queue": "nobody", "queue_timeout": "200ms"}}}
    execution_id = await engine.submit(document, max_retries=0)
    quick = await engine.submit({"nodes": {"a": {"task": "t", "queue_timeout": "5s"}}})
    assert await engine.ended(execution_id, quick) == ["FAILED", "COMPLETED"]
    (attempt,) = await engine.attempts(execution_id, "a")
    assert (attempt.status, attempt.error.type) == ("TIMED_OUT", "QueueTimeoutError")
    await engine.at_rest()
    await engine.verified()


async def test_keys_of_the_cache_are_of_the_installation():
    """The cache is shared by all partitions of an installation."""
    assert InstallationKeys("wf").cached("abc") == "wf:cache:abc"
