"""Child executions and dynamic nodes through every service: submitted, run, looked at, cancelled, failed."""

from __future__ import annotations

from typing import Any

ECHO = {"task": "core.echo", "params": {"value": "${{ input.n }}"}}


async def put(engine: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Registers a document."""
    answer = await engine.client.put(f"/definitions/{document['name']}", json=document)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def child_of(engine: Any, execution_id: str, node: str = "c") -> dict[str, Any]:
    """The child of a node, once it is there."""
    path = f"/workflows/{execution_id}/nodes/{node}"
    shown = await engine.until("child is known", path, lambda one: one["child"])
    child_id = shown["child"]["execution_id"]
    for _ in range(100):
        answer = await engine.client.get(f"/workflows/{child_id}")
        if answer.status_code == 200:
            found: dict[str, Any] = answer.json()
            return found
    raise AssertionError(f"there is no child {child_id}")


async def test_a_registered_child(engine):
    """A node runs a registered definition as an execution of its own, which names its parent; the version is pinned."""
    await put(engine, {"name": "leaf", "version": "1", "nodes": {"a": ECHO}})
    node = {"kind": "workflow", "workflow": "leaf", "input": {"n": 42}}
    document = {
        "name": "top",
        "nodes": {"c": node, "z": {"task": "core.echo", "params": {"value": "${{ nodes.c.output }}"}}},
    }
    view = await engine.run(document, labels={"team": "blue"})
    assert (view["status"], view["output"]) == ("COMPLETED", 42)
    child = await child_of(engine, view["execution_id"])
    assert (child["name"], child["version"], child["status"], child["output"]) == ("leaf", "1", "COMPLETED", 42)
    assert child["parent"] == {"execution_id": view["execution_id"], "node": "c"}
    assert child["labels"] == {"team": "blue"}
    await put(
        engine, {"name": "leaf", "version": "2", "nodes": {"a": {"task": "core.echo", "params": {"value": "new"}}}}
    )
    assert (await engine.run(document))["output"] == "new"
    pinned = {"name": "top", "nodes": {"c": {**node, "version": "1"}}}
    assert (await engine.run(pinned))["output"] == 42


async def test_a_definition_runs_by_its_name(engine):
    """`POST /definitions/{name}/executions` runs the newest version, or the one that is asked for."""
    await put(engine, {"name": "named", "nodes": {"a": ECHO}})
    answer = await engine.client.post("/definitions/named/executions?trigger=true&wait=30s", json={"input": {"n": 5}})
    assert (answer.status_code, answer.json()["status"], answer.json()["output"]) == (201, "COMPLETED", 5)


async def test_a_failed_child_fails_its_parent(engine):
    """With the child's own error; retrying the child alone changes nothing about its parent."""
    bad = {"task": "core.fail", "params": {"times": 1, "message": "no stock"}, "retry": {"max_retries": 0}}
    view = await engine.run({"name": "top", "nodes": {"c": {"kind": "workflow", "nodes": {"bad": bad}}}})
    assert view["status"] == "FAILED"
    assert view["error"]["node"] == "c"
    assert "no stock" in view["error"]["message"]
    child = await child_of(engine, view["execution_id"])
    assert (child["status"], child["error"]["node"]) == ("FAILED", "bad")
    path = f"/workflows/{child['execution_id']}"
    answer = await engine.client.post(f"{path}/retry")
    assert answer.status_code in (200, 202), answer.text
    await engine.until("the child has completed", path, lambda shown: shown["status"] == "COMPLETED")
    assert (await engine.get(f"/workflows/{view['execution_id']}"))["status"] == "FAILED"


async def test_a_cancel_reaches_the_grandchildren(engine):
    """Cancelling an execution cancels what runs below it, at any depth."""
    nap = {"task": "core.sleep", "params": {"seconds": 60}}
    inner = {"kind": "workflow", "nodes": {"nap": nap}}
    execution_id = await engine.submit({"name": "top", "nodes": {"c": {"kind": "workflow", "nodes": {"c": inner}}}})
    child = await child_of(engine, execution_id)
    grandchild = await child_of(engine, child["execution_id"])
    path = f"/workflows/{grandchild['execution_id']}/nodes/nap"
    await engine.until("the task runs", path, lambda one: one["status"] == "RUNNING")
    answer = await engine.client.post(f"/workflows/{execution_id}/cancel", json={"reason": "enough"})
    assert answer.status_code == 200
    for one in (execution_id, child["execution_id"], grandchild["execution_id"]):
        await engine.until("cancelled", f"/workflows/{one}", lambda shown: shown["status"] == "CANCELLED")
    await engine.until("the task is cancelled", path, lambda one: one["status"] == "CANCELLED")


async def test_dynamic_nodes(engine):
    """What a task returned becomes nodes; what is wrong with them fails the node before any of them starts."""
    plan = {
        "a": {"task": "core.echo", "params": {"value": "$${{ input.n }}"}},
        "b": {"task": "core.echo", "params": {"value": "$${{ nodes.a.output + 1 }}"}},
    }
    document = {
        "name": "made",
        "nodes": {
            "plan": {"task": "core.echo", "params": {"value": plan}},
            "d": {"kind": "dynamic", "nodes": "${{ nodes.plan.output }}", "allow": ["core.*"]},
        },
    }
    view = await engine.run(document, input={"n": 3})
    assert (view["status"], view["output"]) == ("COMPLETED", {"a": 3, "b": 4})
    document["nodes"]["d"]["allow"] = ["shop.*"]
    view = await engine.run(document, input={"n": 3})
    assert (view["status"], view["error"]["type"]) == ("FAILED", "ExpansionError")
    assert "'core.echo' is not allowed" in view["error"]["message"]
