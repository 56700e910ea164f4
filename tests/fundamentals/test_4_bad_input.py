"""Bad input is refused with the place and the remedy, creates nothing and dispatches nothing."""

from __future__ import annotations

import pytest


def document(**nodes):
    """A document of these nodes."""
    return {"name": "bad", "nodes": nodes}


ECHO = {"task": "core.echo"}
WITH_INPUT = {
    "name": "bad",
    "input": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}},
    "nodes": {"a": ECHO},
}

REFUSED = {
    "a cycle": (document(a=ECHO | {"depends_on": ["b"]}, b=ECHO | {"depends_on": ["a"]}), 422, "cycle", "a"),
    "an unknown dependency": (
        document(fetch=ECHO, b=ECHO | {"depends_on": ["fetchh"]}),
        422,
        "/nodes/b/depends_on/0",
        "fetch",
    ),
    "an unknown task": (document(a={"task": "core.ecko"}), 422, "/nodes/a/task", "core.echo"),
    "a wrong parameter type": (
        document(a={"task": "core.sleep", "params": {"seconds": "soon"}}),
        422,
        "/nodes/a/params/seconds",
        "number",
    ),
    "a wrong input": ({"workflow": WITH_INPUT, "input": {"n": "x"}}, 422, "/input/n", "integer"),
    "an unknown key": (document(a=ECHO | {"depend_on": []}), 422, "/nodes/a/depend_on", "depends_on"),
    "no nodes": ({"name": "bad", "nodes": {}}, 422, "/nodes", ""),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_bad_document_is_refused_with_its_place_and_the_remedy(engine, case):
    """422, a pointer or the ids, and the nearest known name."""
    body, status, *words = REFUSED[case]
    before = await engine.get("/workflows", name="bad")
    answer = await engine.client.post("/workflow?trigger=true", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    for word in words:
        assert word in answer.text
    assert await engine.get("/workflows", name="bad") == before


BYTES = {
    "NaN": (b'{"name": "bad", "nodes": {"a": {"task": "core.echo", "params": {"value": NaN}}}}', 400),
    "a lone surrogate": (b'{"name": "bad\\ud800", "nodes": {"a": {"task": "core.echo"}}}', 400),
    "an array 500 deep": (b'{"name": "bad", "nodes": ' + b"[" * 500 + b"]" * 500 + b"}", 400),
    "a duplicate node": (b'{"name": "bad", "nodes": {"a": {"task": "core.echo"}, "a": {"task": "core.noop"}}}', 400),
    "half a document": (b'{"name": "bad", "nodes"', 400),
    "an oversized body": (b'{"name": "' + b"x" * (17 * 2**20) + b'"}', 413),
}


@pytest.mark.parametrize("case", BYTES)
async def test_bytes_that_are_no_document_are_refused_and_not_echoed(engine, case):
    """400 or 413 as a problem; the answer does not repeat what was sent."""
    data, status = BYTES[case]
    answer = await engine.client.post("/workflow", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("/problems/")
    assert len(answer.content) < 2_000


async def test_all_problems_are_told_at_once(engine):
    """Three mistakes, three problems."""
    body = document(
        a={"task": "core.nope"},
        b=ECHO | {"depends_on": ["zzz"]},
        c=ECHO | {"params": {"value": "${{ nodes.q.output }}"}},
    )
    answer = await engine.client.post("/workflow", json=body)
    pointers = {e["pointer"] for e in answer.json()["errors"]}
    assert {"/nodes/b/depends_on/0", "/nodes/c/params/value"} <= pointers


async def test_wrong_ids_states_and_methods(engine):
    """404 for an unknown execution, 409 for a second trigger, 405 for a wrong method; all are problems."""
    unknown = "0" * 28
    for answer, status in (
        (await engine.client.get(f"/workflows/{unknown}"), 404),
        (await engine.client.get("/workflows/nonsense"), 404),
        (await engine.client.get(f"/workflows/{unknown}/results"), 404),
        (await engine.client.post(f"/workflow/trigger/{unknown}"), 404),
        (await engine.client.delete("/workflow"), 405),
        (await engine.client.post("/workflow", content=b"x", headers={"content-type": "text/plain"}), 415),
    ):
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("application/problem+json")
    execution_id = (await engine.client.post("/workflow", json=document(a=ECHO))).json()["execution_id"]
    assert (await engine.client.post(f"/workflow/trigger/{execution_id}")).status_code == 200
    assert (await engine.client.post(f"/workflow/trigger/{execution_id}")).status_code == 409


async def test_an_idempotency_key_makes_a_repeated_post_harmless(engine):
    """The same key and body return the first answer; another body is a conflict."""
    key = {"idempotency-key": f"k-{engine.log}"}
    first = await engine.client.post("/workflow", json=document(a=ECHO), headers=key)
    again = await engine.client.post("/workflow", json=document(a=ECHO), headers=key)
    other = await engine.client.post("/workflow", json=document(b=ECHO), headers=key)
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 409)
    assert first.json() == again.json()
    path = f"/workflow/trigger/{first.json()['execution_id']}"
    answers = [await engine.client.post(path, headers=key) for _ in range(2)]
    assert [a.status_code for a in answers] == [200, 200]


async def test_an_unknown_task_may_be_allowed(engine):
    """`?allow_unknown=true` accepts a task that no live worker knows yet; it waits."""
    answer = await engine.client.post("/workflow?allow_unknown=true", json=document(a={"task": "later.task"}))
    assert answer.status_code == 201
