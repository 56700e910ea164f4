"""Child executions on real servers: started, told, closed, and told of, through the log alone."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from wf_core import ids, wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.schema.canonical import canonical_bytes, document_hash
from wf_core.schema.validation import parse_document
from wf_core.wire import FrozenSettings, RetrySettings

STEP = {"task": "t", "params": {"value": "${{ input.n }}"}}
INLINE = {"kind": "workflow", "nodes": {"a": STEP}, "input": {"n": "${{ input.n }}"}}


def value_of(message: wire.TaskMessage) -> Any:
    """A worker that gives back the value that it was given."""
    return json.loads(message.params)["value"]


def records(engine, document: dict[str, Any], given: Any, **definitions: dict[str, Any]) -> tuple[str, list[Any]]:
    """Id and records of a parent as the API makes them: definitions are pinned, their documents go ahead."""
    now = engine.clock.now_ms()
    execution_id = ids.new_execution_id(0, now)
    common: dict[str, Any] = {"execution": execution_id, "ts": now, "source": "test"}
    documents = {name: canonical_bytes(parse_document({"name": name, **body})) for name, body in definitions.items()}
    own = canonical_bytes(parse_document({"name": "parent", **document}))
    parts = [
        wire.Document(**common, hash=document_hash(data), part=0, parts=1, data=zlib.compress(data))
        for data in [*documents.values(), own]
    ]
    created = wire.Created(
        **common,
        id="create",
        document=document_hash(own),
        name="parent",
        labels={"team": "blue"},
        input=json.dumps(given).encode(),
        settings=FrozenSettings(retry=RetrySettings(max_retries=0)),
        definitions={name: document_hash(data) for name, data in documents.items()},
    )
    return execution_id, [*parts, created, wire.Triggered(**common, id="trigger")]


async def started(engine, document: dict[str, Any], given: Any = None, **definitions: dict[str, Any]) -> str:
    """The id of a parent that runs."""
    execution_id, made = records(engine, document, given or {"n": 7}, **definitions)
    await engine.append(0, made)
    return execution_id


async def field(engine, execution_id: str, name: str) -> Any:
    return await engine.redis.hget(engine.keys(0).execution(execution_id), name)


async def no_timers(engine) -> None:
    """Until nothing is left to be done elsewhere."""

    async def none() -> bool:
        return not await engine.redis.zrange(engine.keys(0).timers, 0, -1)

    await engine.until("no timer is left", none)


def child_of(execution_id: str, path: str = "c", attempt: int = 1) -> str:
    return ids.child_execution_id(ids.token(execution_id, path, attempt))


async def test_an_inline_child(engine):
    """The child is an execution of its own in its parent's partition; its output is its node's."""
    await engine.orchestrator()
    worker = engine.worker(value_of)
    parent = await started(
        engine, {"nodes": {"c": INLINE, "z": {"task": "t", "params": {"value": "${{ nodes.c.output }}"}}}}
    )
    assert await engine.ended(parent) == ["COMPLETED"]
    child = child_of(parent)
    assert await engine.status(child) == "COMPLETED"
    assert await field(engine, child, "output") == b"7"
    assert await field(engine, parent, "output") == b"7"
    assert json.loads(await field(engine, child, "labels")) == {"team": "blue"}
    assert worker.ran == [f"{child}/a/1", f"{parent}/z/1"]
    await no_timers(engine)
    await engine.verified()


async def test_a_registered_child_with_its_own(engine):
    """Pinned definitions run at any depth; siblings run their own."""
    await engine.orchestrator()
    engine.worker(value_of)
    calls = {"kind": "workflow", "workflow": "leaf", "input": {"n": "${{ input.n }}"}}
    parent = await started(
        engine,
        {
            "nodes": {
                "c": {"kind": "workflow", "workflow": "middle", "input": {"n": 3}},
                "d": {**calls, "input": {"n": 4}},
            }
        },
        middle={"nodes": {"inner": calls}},
        leaf={"nodes": {"a": STEP}},
    )
    assert await engine.ended(parent) == ["COMPLETED"]
    assert json.loads(await field(engine, parent, "output")) == {"c": 3, "d": 4}
    grandchild = child_of(child_of(parent), "inner")
    assert await engine.status(grandchild) == "COMPLETED"
    assert await field(engine, grandchild, "depth") == b"2"
    await no_timers(engine)
    await engine.verified()


async def test_a_child_that_fails(engine):
    """The parent fails with the child's own error."""
    await engine.orchestrator()
    engine.worker(lambda _: RuntimeError("broken"))
    parent = await started(engine, {"nodes": {"c": INLINE}})
    assert await engine.ended(parent) == ["FAILED"]
    assert await engine.status(child_of(parent)) == "FAILED"
    (attempt,) = await engine.attempts(parent, "c")
    assert (attempt.error.type, attempt.error.message) == ("RuntimeError", "broken")
    await no_timers(engine)
    await engine.verified()


async def test_a_retry_runs_another_child(engine):
    """Each attempt of the node has its own child."""
    await engine.orchestrator()
    seen: list[str] = []

    def once(message: wire.TaskMessage) -> Any:
        seen.append(message.execution)
        return RuntimeError("broken") if len(seen) == 1 else 5

    engine.worker(once)
    retry = {"retry": {"max_retries": 1, "delay": "10ms"}}
    parent = await started(engine, {"nodes": {"c": {**INLINE, **retry}}})
    assert await engine.ended(parent) == ["COMPLETED"]
    assert seen == [child_of(parent), child_of(parent, attempt=2)]
    await engine.verified()


@pytest.mark.parametrize("close", ["cancel", "abandon"])
async def test_a_cancelled_parent(engine, close):
    """A cancel reaches the children, unless they are to be abandoned."""
    await engine.orchestrator()
    engine.worker(lambda message: None if close == "cancel" else value_of(message))
    node = {**INLINE, "on_parent_close": close}
    parent = await started(engine, {"nodes": {"c": node, "w": {"task": "t", "params": {"value": 1}}}})
    child = child_of(parent)

    async def runs() -> bool:
        return await engine.status(child) in ("RUNNING", "COMPLETED")

    await engine.until("the child runs", runs)
    cancel = wire.Cancelled(execution=parent, ts=engine.clock.now_ms(), source="test", id="stop", reason="enough")
    await engine.append(0, [cancel])
    found = await engine.ended(parent, child)
    assert found[1] == {"cancel": "CANCELLED", "abandon": "COMPLETED"}[close]
    await no_timers(engine)
    await engine.verified()


async def test_a_parent_that_is_cancelled_at_once(engine):
    """However early the cancel comes, no child is left that runs for nobody."""
    await engine.orchestrator()
    engine.worker(lambda _: None)
    parents = []
    for _ in range(10):
        execution_id, made = records(engine, {"nodes": {"c": INLINE}}, {"n": 1})
        cancel = wire.Cancelled(execution=execution_id, ts=engine.clock.now_ms(), source="test", id="stop")
        await engine.append(0, made)
        await engine.append(0, [cancel])
        parents.append(execution_id)
    assert await engine.ended(*parents) == ["CANCELLED"] * 10
    await engine.at_rest()
    for parent in parents:

        async def over(child: str = child_of(parent)) -> bool:
            return await engine.status(child) in ("", "CANCELLED")

        await engine.until("the child is cancelled, or never was", over)


async def test_input_that_the_child_refuses(engine):
    """A child whose definition refuses its input never is; its node says why."""
    await engine.orchestrator()
    strict = {"input": {"type": "object", "required": ["day"]}, "nodes": {"a": {"task": "t"}}}
    parent = await started(engine, {"nodes": {"c": {"kind": "workflow", "workflow": "strict"}}}, strict=strict)
    assert await engine.ended(parent) == ["FAILED"]
    (attempt,) = await engine.attempts(parent, "c")
    assert attempt.error.type == "InvalidInputError"
    assert "'day' is missing" in attempt.error.message
    assert await engine.status(child_of(parent)) == ""
    await no_timers(engine)
    await engine.verified()


async def test_records_that_come_twice(engine):
    """Every record of a child's life again, in the same order: nothing changes."""
    await engine.orchestrator()
    engine.worker(value_of)
    parent = await started(engine, {"nodes": {"c": INLINE}})
    assert await engine.ended(parent) == ["COMPLETED"]
    await no_timers(engine)
    reader = engine.log.reader()
    reader.assign({TopicPartition(topics.events(engine.settings.namespace), 0): 0})
    batches = await reader.read(0.2)
    await reader.close()
    await engine.append(0, [wire.decode_event(record) for batch in batches for record in batch.records])
    await engine.at_rest()
    assert await engine.status(child_of(parent)) == "COMPLETED"
    await no_timers(engine)
    await engine.verified()


async def test_an_orchestrator_that_dies_between(engine):
    """The timer of a child that nobody started lies in Redis: the next owner starts it."""
    _, task = await engine.orchestrator()
    await engine.all_owned()
    parents = [await started(engine, {"nodes": {"c": INLINE}}) for _ in range(20)]
    await engine.crash(task)
    await engine.orchestrator()
    engine.worker(value_of)
    assert await engine.ended(*parents, seconds=30) == ["COMPLETED"] * 20
    assert {await engine.status(child_of(parent)) for parent in parents} == {"COMPLETED"}
    await no_timers(engine)
    await engine.verified()


async def test_dynamic_nodes(engine):
    """What a node returns is checked, frozen and run; a refusal says what is wrong."""
    await engine.orchestrator()
    given = {
        "a": {"task": "t", "params": {"value": "${{ input.n }}"}},
        "b": {"task": "t", "params": {"value": "${{ nodes.a.output }}"}},
        "c": {"kind": "workflow", "workflow": "leaf", "input": {"n": 9}},
    }
    plan = {"task": "t", "params": {"value": "${{ input.plan }}"}}
    node = {"kind": "dynamic", "nodes": "${{ nodes.plan.output }}", "allow": ["t"]}

    def quoted(message: wire.TaskMessage) -> Any:
        value = value_of(message)
        return json.loads(value) if isinstance(value, str) else value

    engine.worker(quoted)
    document = {"nodes": {"plan": plan, "d": node}}
    fine, wrong = [
        await started(engine, document, {"n": 5, "plan": json.dumps(nodes)}, leaf={"nodes": {"a": STEP}})
        for nodes in (given, {**given, "x": {"task": "shell.run"}})
    ]
    assert await engine.ended(fine, wrong) == ["COMPLETED", "FAILED"]
    assert json.loads(await field(engine, fine, "output")) == {"a": 5, "b": 5, "c": 9}
    (attempt,) = await engine.attempts(wrong, "d")
    assert attempt.error.type == "ExpansionError"
    assert "'shell.run' is not allowed" in attempt.error.message
    await no_timers(engine)
    await engine.verified()


async def test_a_pause_reaches_the_children(engine):
    """A pause of the parent pauses its child, what was said last holds, and both go on after it."""
    await engine.orchestrator()
    held = engine.worker(lambda _: None)
    two = {"a": STEP, "b": {"task": "t", "params": {"value": "${{ nodes.a.output }}"}}}
    parent = await started(engine, {"nodes": {"c": {**INLINE, "nodes": two}}})
    child = child_of(parent)

    async def runs() -> bool:
        return f"{child}/a/1" in held.ran

    await engine.until("the child runs", runs)

    async def say(kind: type[Any], command: str) -> None:
        record = kind(execution=parent, ts=engine.clock.now_ms(), source="test", id=command)
        await engine.append(0, [record])

    async def both(status: str) -> None:
        async def are() -> bool:
            return [await engine.status(one) for one in (parent, child)] == [status, status]

        await engine.until(f"both are {status}", are)

    await say(wire.Paused, "p1")
    await both("PAUSED")
    now = engine.clock.now_ms()
    result = wire.Result(
        execution=child, ts=now, source="t", node="a", attempt=1, worker="w", started_at=now, ended_at=now, output=b"3"
    )
    await engine.append(0, [result])
    await engine.at_rest()
    assert [status for status, _, _ in await engine.nodes(child, 2)] == ["COMPLETED", "PENDING"]
    for number in range(5):
        await say(wire.Resumed, f"r{number}")
        await say(wire.Paused, f"q{number}")
    await engine.at_rest()
    await both("PAUSED")
    await say(wire.Resumed, "r")
    await both("RUNNING")

    async def goes_on() -> bool:
        return f"{child}/b/1" in held.ran

    await engine.until("the child goes on", goes_on)
    cancel = wire.Cancelled(execution=parent, ts=engine.clock.now_ms(), source="test", id="stop")
    await engine.append(0, [cancel])
    assert await engine.ended(parent, child) == ["CANCELLED", "CANCELLED"]
    await no_timers(engine)
    await engine.verified()


async def test_a_pause_before_the_child_is_started(engine):
    """Nothing starts during a pause: the child is made after it, and runs."""
    await engine.orchestrator()
    engine.worker(value_of)
    parent, made = records(engine, {"nodes": {"c": INLINE}}, {"n": 7})
    common = {"execution": parent, "ts": engine.clock.now_ms(), "source": "test"}
    await engine.append(0, [*made, wire.Paused(**common, id="p")])
    await engine.at_rest()
    assert await engine.status(parent) == "PAUSED"
    assert not await engine.status(child_of(parent))
    await engine.append(0, [wire.Resumed(**common, id="r")])
    assert await engine.ended(parent) == ["COMPLETED"]
    await no_timers(engine)
    await engine.verified()
