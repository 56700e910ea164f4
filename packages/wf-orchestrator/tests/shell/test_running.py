"""What an orchestrator does while nothing goes wrong."""

from __future__ import annotations

import asyncio
import time

import msgspec

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.wire import DeadLetter
from wf_orchestrator import outbox, sending, timers, work

PAIR = {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "params": {"x": "${{ nodes.a.output }}"}}}}
ONE = {"nodes": {"a": {"task": "t"}}}


async def test_nodes_run_in_order_and_the_log_alone_gives_the_same_state(engine):
    """A result makes the next node ready; folding the whole log again gives what Redis holds, byte for byte."""
    await engine.orchestrator()
    worker = engine.worker(lambda message: {"node": message.node})
    executions = [await engine.submit(PAIR) for _ in range(8)]
    assert await engine.ended(*executions) == ["COMPLETED"] * 8
    assert worker.ran.count(f"{executions[0]}/a/1") == 1
    assert worker.ran.index(f"{executions[0]}/a/1") < worker.ran.index(f"{executions[0]}/b/1")
    await engine.verified()


async def test_a_wide_and_a_deep_graph_complete(engine):
    """A fan-out of 300 and a chain of 40 complete, whatever fits into one batch or one window."""
    await engine.orchestrator()
    engine.worker(lambda _: 1)
    leaves = {f"n{i}": {"task": "t", "depends_on": ["root"]} for i in range(300)}
    end = {"task": "t", "depends_on": list(leaves)}
    wide = await engine.submit({"nodes": {"root": {"task": "t"}, **leaves, "end": end}})
    links = {f"n{i}": {"task": "t", "depends_on": [f"n{i - 1}"] if i else []} for i in range(40)}
    deep = await engine.submit({"nodes": links})
    assert await engine.ended(wide, deep, seconds=30) == ["COMPLETED", "COMPLETED"]
    await engine.verified()


async def test_an_outbox_longer_than_the_window_is_sent_all_the_same(engine, monkeypatch):
    """Memory holds the first entries; the rest is fetched from Redis when those are sent."""
    monkeypatch.setattr(outbox, "WINDOW", 7)
    monkeypatch.setattr(sending, "WINDOW", 7)
    monkeypatch.setattr(sending, "MOST", 3)
    await engine.orchestrator()
    engine.worker(lambda _: 1)
    execution = await engine.submit({"nodes": {f"n{i}": {"task": "t", "priority": i % 3} for i in range(40)}})
    assert await engine.ended(execution) == ["COMPLETED"]
    await engine.verified()


async def test_what_is_due_at_once_waits_for_no_look(engine, monkeypatch):
    """Retries, their verdicts, children and what they tell: each timer that is due when it is set fires by itself."""
    monkeypatch.setattr(work, "STEP_MS", 3_600_000)
    monkeypatch.setattr(timers, "AGAIN_MS", 3_600_000)
    await engine.orchestrator()
    engine.worker(lambda message: ValueError("not yet") if message.attempt < 3 else "done")
    child = {"kind": "workflow", "depends_on": ["a"], "nodes": {"b": {"task": "t"}}}
    document = {"nodes": {"a": {"task": "t"}, "child": child, "last": {"task": "t", "depends_on": ["child"]}}}
    execution = await engine.submit(document, delay_ms=0)
    assert await engine.ended(execution) == ["COMPLETED"]


async def test_a_single_orchestrator_has_every_partition_at_once(engine):
    """The first pass takes all that is free; nobody waits for a rebalance."""
    begun = time.monotonic()
    service, _ = await engine.orchestrator()
    owners = await engine.all_owned()
    assert set(owners.values()) == {service.context.id}
    assert time.monotonic() - begun < 2


async def test_a_failed_node_is_tried_again_when_its_policy_says_so(engine):
    """The policy's verdict is a record, a timer waits for the delay, and every attempt is kept with its reason."""
    await engine.orchestrator()
    engine.worker(lambda message: ValueError("not yet") if message.attempt < 3 else "done")
    execution = await engine.submit(ONE)
    assert await engine.ended(execution) == ["COMPLETED"]
    attempts = await engine.attempts(execution, "a")
    assert [(a.attempt, str(a.status), a.decision) for a in attempts] == [
        (1, "FAILED", "retry"),
        (2, "FAILED", "retry"),
        (3, "COMPLETED", ""),
    ]
    assert attempts[0].reason.startswith("retry 1 of 3")
    assert attempts[1].queued_at - attempts[0].ended_at >= 15
    await engine.verified()


async def test_retries_end_with_the_budget(engine):
    """`max_retries: 1` means two attempts; then the node and the execution fail."""
    await engine.orchestrator()
    worker = engine.worker(lambda _: ValueError("never"))
    execution = await engine.submit({"nodes": {"a": {"task": "t", "retry": {"max_retries": 1}}}})
    assert await engine.ended(execution) == ["FAILED"]
    assert len(worker.ran) == 2
    await engine.verified()


async def test_a_policy_that_this_orchestrator_lacks_stops_the_node_with_the_reason(engine):
    """Nobody waits for a plugin that is not installed: the decision is `stop` and names what there is."""
    await engine.orchestrator()
    engine.worker(lambda _: ValueError("no"))
    execution = await engine.submit(ONE, policy="fibonacci")
    assert await engine.ended(execution) == ["FAILED"]
    (attempt,) = await engine.attempts(execution, "a")
    assert attempt.decision == "stop"
    assert "no 'fibonacci'" in attempt.reason
    assert "exponential" in attempt.reason


async def test_a_failure_withdraws_what_no_worker_has_claimed(engine):
    """On halt an attempt that waits in a queue is taken back, so the execution ends although nobody serves it."""
    await engine.orchestrator()
    engine.worker(lambda _: RuntimeError("fatal"))
    execution = await engine.submit({"nodes": {"bad": {"task": "t"}, "stuck": {"task": "t", "queue": "nobody"}}})
    assert await engine.ended(execution) == ["FAILED"]
    assert [status for status, _, _ in await engine.nodes(execution, 2)] == ["FAILED", "CANCELLED"]
    await engine.verified()


async def test_an_attempt_that_is_not_wanted_any_more_is_cancelled_at_once(engine):
    """A document's timeout ends what runs, and the channel tells workers within milliseconds."""
    await engine.orchestrator()
    worker = engine.worker(lambda _: None)
    async with engine.redis.pubsub() as channel:
        await channel.subscribe(f"{engine.settings.namespace}:cancel")
        execution = await engine.submit({**ONE, "timeout": "400ms"})
        assert await engine.ended(execution) == ["FAILED"]

        async def told():
            message = await channel.get_message(ignore_subscribe_messages=True)
            return message and message["data"].decode() == f"{execution}/a/1"

        await engine.until("the channel told of the attempt", told)

    async def cancelled():
        return worker.cancelled == [f"{execution}/a/1"]

    await engine.until("the worker's heartbeat told of it as well", cancelled)
    await engine.verified()


async def test_a_record_that_nobody_can_read_is_buried_and_stops_nothing(engine):
    """Undecodable bytes go to the dead letters with the reason; the records after them are folded."""
    service, _ = await engine.orchestrator()
    engine.worker(lambda _: 1)
    source = TopicPartition(topics.events(engine.settings.namespace), 0)
    await engine.log.append(source, [b"\xc1 garbage"])
    execution = await engine.submit(ONE, partition=0)
    assert await engine.ended(execution) == ["COMPLETED"]
    reader = engine.log.reader()
    reader.assign({TopicPartition(topics.dead_letters(engine.settings.namespace), 0): 0})
    (batch,) = await reader.read(2)
    await reader.close()
    letter = msgspec.msgpack.decode(batch.records[0], type=DeadLetter)
    assert (letter.partition, letter.offset, letter.record) == (0, 0, b"\xc1 garbage")
    assert service.counters.get("dead_letters_total") == 1
    await engine.verified()


async def test_a_message_that_the_log_refuses_fails_its_node_and_blocks_no_other(engine):
    """An attempt that cannot be sent is an event; what stands behind it in the outbox is sent."""
    await engine.orchestrator()
    engine.worker(lambda _: 1)
    odd = topics.tasks(engine.settings.namespace, "odd")
    await engine.log.ensure_topics({odd: engine.settings.task_partitions + 5})
    refused = await engine.submit({"nodes": {"a": {"task": "t", "queue": "odd"}}}, partition=0)
    fine = await engine.submit(ONE, partition=0)
    assert await engine.ended(refused, fine) == ["FAILED", "COMPLETED"]
    (attempt,) = await engine.attempts(refused, "a")
    assert attempt.error.type == "MessageRefusedError"
    await engine.verified()


async def test_what_is_sent_twice_runs_once(engine):
    """Copies of records and of commands change nothing."""
    await engine.orchestrator()
    worker = engine.worker(lambda _: 1)
    execution, records = engine.records(PAIR, 1)
    await engine.append(1, [record for record in records for _ in range(2)])
    await engine.append(1, records)
    assert await engine.ended(execution) == ["COMPLETED"]
    await engine.append(1, records)
    await engine.at_rest()
    assert sorted(worker.ran) == [f"{execution}/a/1", f"{execution}/b/1"]
    await engine.verified()


async def test_cancel_ends_every_node(engine):
    """A cancelled execution ends at once; what its worker says later changes nothing."""
    await engine.orchestrator()
    worker = engine.worker(lambda _: None)
    execution = await engine.submit(PAIR, partition=2)

    async def running():
        return worker.ran

    await engine.until("the first node runs", running)
    now = engine.clock.now_ms()
    cancel = wire.Cancelled(execution=execution, ts=now, source="test", id="cancel", reason="enough")
    await engine.append(2, [cancel])
    assert await engine.ended(execution) == ["CANCELLED"]
    late = wire.Result(
        execution=execution,
        ts=now,
        source="w0",
        node="a",
        attempt=1,
        worker="w0",
        started_at=now,
        ended_at=now,
        output=b"1",
    )
    await engine.append(2, [late])
    await engine.at_rest()
    assert await engine.status(execution) == "CANCELLED"
    await engine.verified()


async def test_a_stopped_orchestrator_leaves_nothing_held(engine):
    """SIGTERM gives every partition back and takes the orchestrator off the list."""
    _, task = await engine.orchestrator()
    await engine.all_owned()
    await asyncio.wait_for(engine.stop(task), 5)
    assert await engine.owners() == {}
    assert await engine.redis.zcard(f"{engine.settings.namespace}:orch") == 0
