"""The first thing to know: four endpoints, and data that flows from node to node."""

from __future__ import annotations

from typing import Any

HELLO: dict[str, Any] = {
    "name": "hello",
    "input": {"type": "object", "properties": {"who": {"type": "string", "default": "world"}}},
    "nodes": {
        "greet": {"task": "core.echo", "params": {"value": "hello ${{ input.who }}"}},
        "shout": {"task": "core.echo", "params": {"value": {"text": "${{ nodes.greet.output }}!", "n": 10**30}}},
    },
    "output": "${{ nodes.shout.output.text }}",
}


async def test_submit_trigger_look_and_fetch_results(engine):
    """POST /workflow gives a PENDING execution, triggering makes it RUNNING; in the end it is COMPLETED."""
    created = await engine.client.post("/workflow", json=HELLO)
    assert created.status_code == 201
    execution_id = created.json()["execution_id"]
    assert created.json() == {"execution_id": execution_id, "status": "PENDING"}
    assert created.headers["location"].endswith(f"/workflows/{execution_id}")
    assert (await engine.get(f"/workflows/{execution_id}"))["status"] == "PENDING"

    triggered = await engine.client.post(f"/workflow/trigger/{execution_id}")
    assert triggered.status_code == 200
    assert triggered.json()["status"] == "RUNNING"

    view = await engine.until("COMPLETED", f"/workflows/{execution_id}", lambda v: v["status"] == "COMPLETED")
    assert view["output"] == "hello world!"
    assert view["counts"] == {"COMPLETED": 2}
    assert {n: v["status"] for n, v in view["nodes"].items()} == {"greet": "COMPLETED", "shout": "COMPLETED"}
    results = await engine.get(f"/workflows/{execution_id}/results")
    assert results["results"] == {"greet": "hello world", "shout": {"text": "hello world!", "n": 10**30}}


async def test_input_comes_with_the_submission_or_with_the_trigger(engine):
    """The envelope carries input; the trigger's input replaces it; wrong input is refused and changes nothing."""
    assert (await engine.run(HELLO, input={"who": "you"}))["output"] == "hello you!"
    created = (await engine.client.post("/workflow", json={"workflow": HELLO, "input": {"who": "you"}})).json()
    path = f"/workflow/trigger/{created['execution_id']}"
    refused = await engine.client.post(path, json={"input": {"who": 1}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/input/who"
    assert (await engine.client.post(path, json={"input": {"who": "all"}})).status_code == 200
    view = await engine.until("ended", f"/workflows/{created['execution_id']}", lambda v: v["ended_at"])
    assert view["output"] == "hello all!"


async def test_a_yaml_document_is_the_same_document(engine):
    """`application/yaml` is accepted; a node may be called `no`."""
    text = "name: yaml\nnodes:\n  no: {task: core.echo, params: {value: 012}}\n"
    answer = await engine.client.post(
        "/workflow?trigger=true&wait=20s", content=text, headers={"content-type": "application/yaml"}
    )
    assert answer.status_code == 201, answer.text
    view = await engine.get(f"/workflows/{answer.json()['execution_id']}")
    assert (view["status"], view["output"]) == ("COMPLETED", 12)


async def test_the_output_of_several_leaves_is_an_object(engine):
    """Without `output` a document yields its only leaf's output, or the leaves' outputs by id."""
    nodes = {"a": {"task": "core.echo", "params": {"value": 1}}, "b": {"task": "core.echo", "params": {"value": [2]}}}
    assert (await engine.run({"name": "leaves", "nodes": nodes}))["output"] == {"a": 1, "b": [2]}


async def test_it_is_listed_and_its_history_told(engine):
    """Listing finds it by name, label and status; events tell what happened, in order, with stable sequence numbers."""
    view = await engine.run(HELLO | {"name": f"listed-{engine.log}"}, labels={"team": f"a-{engine.log}"})
    for params in (
        {"name": f"listed-{engine.log}"},
        {"label": f"team=a-{engine.log}"},
        {"status": "COMPLETED", "label": f"team=a-{engine.log}"},
    ):
        page = await engine.get("/workflows", **params)
        assert [item["execution_id"] for item in page["items"]] == [view["execution_id"]]
    events = (await engine.get(f"/workflows/{view['execution_id']}/events", limit=100))["items"]
    assert [e["kind"] for e in events][:2] == ["execution.created", "execution.triggered"]
    assert events[-1]["status"] == "COMPLETED"
    assert [e["seq"] for e in events] == sorted((e["seq"] for e in events), key=lambda s: tuple(map(int, s.split("-"))))


async def test_a_node_shows_its_input_output_and_attempts(engine):
    """One node's page has what went in, what came out, and who ran it when."""
    view = await engine.run(HELLO)
    node = await engine.get(f"/workflows/{view['execution_id']}/nodes/greet")
    assert node["input"] == {"value": "hello world"}
    assert node["output"] == "hello world"
    (attempt,) = node["history"]
    assert attempt["status"] == "COMPLETED"
    assert attempt["worker"]
    assert attempt["queued_at"] <= attempt["started_at"] <= attempt["ended_at"]
