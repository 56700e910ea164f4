"""Registered definitions: PUT, GET, DELETE, and executions of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from redis.asyncio import Redis

from wf_core import wire
from wf_core.settings import Settings

from .conftest import DOCUMENT, HURRY, NEEDS_DAY, problem
from .test_creation import events_of


def document(name: str, version: str | None = None, value: Any = 1, **more: Any) -> dict[str, Any]:
    """A document of one node."""
    made = {"name": name, "nodes": {"a": {"task": "core.echo", "params": {"value": value}}}, **more}
    return made if version is None else {**made, "version": version}


def calls(name: str, *others: str, version: str | None = None) -> dict[str, Any]:
    """A document whose nodes run the definitions `others` (`name` or `name@version`)."""
    nodes = {}
    for number, other in enumerate(others):
        called, _, pinned = other.partition("@")
        nodes[f"n{number}"] = {"kind": "workflow", "workflow": called, **({"version": pinned} if pinned else {})}
    return {"name": name, "nodes": nodes} | ({"version": version} if version else {})


async def put(api: httpx.AsyncClient, wanted: dict[str, Any], **params: Any) -> httpx.Response:
    """Registers a document under its name."""
    return await api.put(f"/definitions/{wanted['name']}", json=wanted, params=params)


async def test_put_keeps_versions(api: httpx.AsyncClient) -> None:
    """Each new document is a version; the newest is given unless another is named, by its version or its hash."""
    first = await put(api, document("pair", "1"))
    assert first.status_code == 201
    assert (first.json()["name"], first.json()["version"]) == ("pair", "1")
    second = await put(api, document("pair", "2", value=2))
    assert second.status_code == 201
    newest = (await api.get("/definitions/pair")).json()
    assert newest["version"] == "2"
    assert newest["document"]["nodes"]["a"]["params"] == {"value": 2}
    assert [one["version"] for one in newest["versions"]] == ["2", "1"]
    for name in ("1", first.json()["hash"]):
        older = (await api.get("/definitions/pair", params={"version": name})).json()
        assert (older["version"], older["document"]["nodes"]["a"]["params"]) == ("1", {"value": 1})


async def test_put_twice_is_once(api: httpx.AsyncClient) -> None:
    """The same document again changes nothing; an older one again becomes the newest."""
    first = await put(api, document("pair"))
    again = await put(api, document("pair"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    await put(api, document("pair", value=2))
    back = await put(api, document("pair"))
    assert back.status_code == 201
    shown = (await api.get("/definitions/pair")).json()
    assert shown["hash"] == first.json()["hash"]
    assert len(shown["versions"]) == 2


async def test_a_version_names_one_document(api: httpx.AsyncClient) -> None:
    """A version that is registered with another document is refused."""
    await put(api, document("pair", "1"))
    problem(await put(api, document("pair", "1", value=2)), 409, "version-taken")
    assert (await api.get("/definitions/pair")).json()["document"]["nodes"]["a"]["params"] == {"value": 1}


async def test_puts_that_race_lose_nothing(api: httpx.AsyncClient) -> None:
    """Of many PUTs at once each makes its version."""
    answers = await asyncio.gather(*(put(api, document("pair", str(n), value=n)) for n in range(10)))
    assert {a.status_code for a in answers} == {201}
    shown = (await api.get("/definitions/pair")).json()
    assert sorted(one["version"] for one in shown["versions"]) == sorted(map(str, range(10)))


async def test_put_checks_the_document(api: httpx.AsyncClient) -> None:
    """What POST /workflow refuses is refused here, with lines for YAML; and a document of another name."""
    wrong = "name: pair\nnodes:\n  a: {task: core.echo, depends_on: [b]}\n"
    headers = {"Content-Type": "application/yaml"}
    found = problem(await api.put("/definitions/pair", content=wrong, headers=headers), 422, "invalid-document")
    assert "line 3" in found["errors"][0]["detail"]
    other = problem(await api.put("/definitions/other", json=DOCUMENT), 422, "invalid-document")
    assert other["errors"][0]["pointer"] == "/name"
    for name in ("a@b", "x@1"):
        refused = problem(
            await api.put(f"/definitions/{name}", json={**DOCUMENT, "name": name}), 422, "invalid-document"
        )
        assert refused["errors"][0]["pointer"] == "/name"
    problem(await api.put("/definitions/pair", content=b""), 400, "unparsable")
    problem(await api.get("/definitions/pair"), 404, "unknown-definition")


async def test_list(api: httpx.AsyncClient) -> None:
    """Definitions are listed by name, in pages."""
    for name in ("c", "a", "b"):
        await put(api, document(name, "7"))
    await put(api, document("a", "8", value=2))
    page = (await api.get("/definitions", params={"limit": 2})).json()
    assert [(d["name"], d["version"], d["versions"]) for d in page["items"]] == [("a", "8", 2), ("b", "7", 1)]
    rest = (await api.get("/definitions", params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert [d["name"] for d in rest["items"]] == ["c"]
    assert rest["next_cursor"] is None


async def test_delete(api: httpx.AsyncClient, redis: Redis, settings: Settings) -> None:
    """One version goes, or all; nothing of it stays in Redis."""
    await put(api, document("pair", "1"))
    await put(api, document("pair", "2", value=2))
    gone = await api.delete("/definitions/pair", params={"version": "2"})
    assert gone.json() == {"name": "pair", "removed": 1}
    assert (await api.get("/definitions/pair")).json()["version"] == "1"
    problem(await api.delete("/definitions/pair", params={"version": "2"}), 404, "unknown-definition")
    assert (await api.delete("/definitions/pair")).json() == {"name": "pair", "removed": 1}
    problem(await api.delete("/definitions/pair"), 404, "unknown-definition")
    assert [key async for key in redis.scan_iter(match=f"{settings.namespace}:{{def}}*")] == []
    assert (await api.get("/definitions")).json() == {"items": [], "next_cursor": None}


async def test_run(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """An execution of a definition is what POST /workflow makes of its document; so is an envelope that names it."""
    await put(api, {**NEEDS_DAY, "version": "1"})
    await put(api, {**NEEDS_DAY, "version": "2", "labels": {"team": "red"}})
    asked = {"input": {"day": "x"}, "labels": {"run": "7"}, "trigger": True, "version": "1"}
    answer = await api.post("/definitions/pair/executions", json=asked, headers=HURRY)
    assert answer.status_code == 201
    execution_id = answer.json()["execution_id"]
    assert answer.headers["location"] == f"/workflows/{execution_id}"
    events = await events_of(settings, redis, execution_id)
    assert [type(e) for e in events] == [wire.Document, wire.Created, wire.Triggered]
    assert (events[1].version, events[1].labels) == ("1", {"team": "blue", "run": "7"})
    assert json.loads(events[1].input) == {"day": "x", "limit": 10}
    for name, team in (("pair", "red"), ("pair@1", "blue")):
        made = await api.post("/workflow", json={"workflow": name}, headers=HURRY)
        created = (await events_of(settings, redis, made.json()["execution_id"]))[1]
        assert created.labels == {"team": team}


async def test_run_refusals(api: httpx.AsyncClient) -> None:
    """An unknown definition or version, wrong input, wrong bodies: said as everywhere, and nothing is created."""
    problem(await api.post("/definitions/pair/executions"), 404, "unknown-definition")
    await put(api, NEEDS_DAY)
    wrong = problem(await api.post("/definitions/pair/executions", json={"version": "9"}), 422, "invalid-document")
    assert wrong["errors"][0]["pointer"] == "/version"
    wrong = problem(await api.post("/workflow", json={"workflow": "par"}), 422, "invalid-document")
    assert wrong["errors"][0]["pointer"] == "/workflow"
    assert wrong["detail"].endswith("; did you mean 'pair'?")
    body = {"input": {"day": 1}, "trigger": True}
    wrong = problem(await api.post("/definitions/pair/executions", json=body), 422, "invalid-input")
    assert wrong["errors"][0]["pointer"] == "/input/day"
    problem(await api.post("/definitions/pair/executions", json={"inputs": {}}), 422, "invalid-parameters")
    problem(await api.post("/definitions/pair/executions", json={"version": 1}), 422, "invalid-document")
    assert (await api.get("/workflows")).json()["items"] == []
    valid = await api.post("/workflow/validate", json={"workflow": "pair"})
    assert valid.json()["nodes"] == 2


async def test_run_twice_is_once(api: httpx.AsyncClient) -> None:
    """A repetition gets its first answer, though the definition has changed or is gone; another body is refused."""
    await put(api, document("pair"))
    key = {**HURRY, "Idempotency-Key": "k"}
    first = await api.post("/definitions/pair/executions", json={"labels": {"a": "b"}}, headers=key)
    await put(api, document("pair", value=2))
    again = await api.post("/definitions/pair/executions", json={"labels": {"a": "b"}}, headers=key)
    await api.delete("/definitions/pair")
    gone = await api.post("/definitions/pair/executions", json={"labels": {"a": "b"}}, headers=key)
    assert first.json()["execution_id"] == again.json()["execution_id"] == gone.json()["execution_id"]
    other = await api.post("/definitions/pair/executions", json={"labels": {"a": "c"}}, headers=key)
    problem(other, 409, "idempotency-conflict")


async def test_creation_pins_definitions(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """An execution pins what its document runs, and what that runs, and their documents go ahead of it."""
    leaf = (await put(api, document("leaf", "1"))).json()["hash"]
    middle = (await put(api, calls("middle", "leaf@1"))).json()["hash"]
    made = await api.post("/workflow", json=calls("top", "middle", "leaf"), headers=HURRY)
    assert made.status_code == 201, made.text
    events = await events_of(settings, redis, made.json()["execution_id"])
    created = events[-1]
    assert created.definitions == {"middle": middle, "leaf": leaf, "leaf@1": leaf}
    assert {e.hash for e in events[:-1]} == {middle, leaf, created.document}


async def test_unknown_definitions(api: httpx.AsyncClient) -> None:
    """A definition that is not registered is a problem at the node that names it, or that leads to it."""
    await put(api, document("leaf"))
    await put(api, calls("middle", "gone"), allow_unknown=True)
    for address in ("/workflow", "/workflow/validate"):
        found = problem(await api.post(address, json=calls("top", "leav", "leaf@3", "middle")), 422, "invalid-document")
        errors = {e["pointer"]: e for e in found["errors"]}
        assert set(errors) == {"/nodes/n0/workflow", "/nodes/n1/workflow", "/nodes/n2/workflow"}
        assert "did you mean 'leaf'?" in errors["/nodes/n0/workflow"]["detail"]
        assert "has no version '3'" in errors["/nodes/n1/workflow"]["detail"]
        assert "'middle'" in errors["/nodes/n2/workflow"]["detail"]
    problem(await put(api, calls("again", "gone")), 422, "invalid-document")


async def test_circles(api: httpx.AsyncClient) -> None:
    """A definition that contains itself, at once or through others, is refused, naming the circle."""
    found = problem(await put(api, calls("a", "a")), 422, "invalid-document")
    assert found["errors"][0] == {
        "pointer": "/nodes/n0/workflow",
        "code": "cycle",
        "detail": "a definition contains itself: a → a",
    }
    await put(api, calls("a", "b"), allow_unknown=True)
    await put(api, calls("b", "c"), allow_unknown=True)
    found = problem(await put(api, calls("c", "a")), 422, "invalid-document")
    assert "c → a → b → c" in found["detail"]
    assert found["errors"][0]["pointer"] == "/nodes/n0/workflow"
    await put(api, document("a", "1"))
    assert (await put(api, calls("a", "a@1", version="2"))).status_code == 201, "another version is another document"


async def test_other_methods(api: httpx.AsyncClient) -> None:
    """An address that takes several methods names all of them to whoever tries another one."""
    refused = await api.post("/definitions/pair")
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "DELETE, GET, PUT"
