"""What is wrong is refused with the place and the remedy, and changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from wf_api.service import ApiService
from wf_core.ids import new_execution_id
from wf_core.settings import Settings

from .conftest import DOCUMENT, ECHO, HURRY, NEEDS_DAY, problem, serving

Stored = Callable[[], Awaitable[dict[str, Any]]]
UNKNOWN = new_execution_id(1, 1_700_000_000_000)
JSON = {"Content-Type": "application/json"}
SECRET = "s3cret-value-of-the-caller"


def nodes(**changes: Any) -> dict[str, Any]:
    return {"name": "w", "nodes": {"a": {"task": "core.echo"}, "b": {"task": "core.echo"}} | changes}


WRONG_DOCUMENTS = {
    "cycle": (
        nodes(a={"task": "t", "depends_on": ["b"]}, b={"task": "t", "depends_on": ["a"]}),
        "/nodes/",
    ),
    "unknown dependency": (nodes(b={"task": "t", "depends_on": ["aa"]}), "/nodes/b/depends_on"),
    "unknown key": (nodes(b={"tusk": "t"}), "/nodes/b/tusk"),
    "no nodes": ({"name": "w", "nodes": {}}, "/nodes"),
    "a timeout of 0": (nodes(b={"task": "t", "timeout": 0}), "/nodes/b/timeout"),
    "not an object": ([1, 2], ""),
    "an expression that does not compile": (nodes(b={"task": "t", "when": "1 +"}), "/nodes/b/when"),
}


@pytest.mark.parametrize("name", WRONG_DOCUMENTS)
async def test_wrong_document(api: httpx.AsyncClient, stored: Stored, name: str) -> None:
    """A wrong document is a 422 with a pointer for each problem, and nothing is created."""
    document, pointer = WRONG_DOCUMENTS[name]
    before = await stored()
    answer = await api.post("/workflow", json=document)
    body = problem(answer, 422, "invalid-document")
    assert any(error["pointer"].startswith(pointer) for error in body["errors"])
    assert all(error["code"] and error["detail"] for error in body["errors"])
    assert await stored() == before


async def test_pointers_into_an_envelope(api: httpx.AsyncClient) -> None:
    """In an envelope pointers begin at the body's root."""
    answer = await api.post("/workflow", json={"workflow": nodes(b={"task": "t", "depends_on": ["x"]})})
    body = problem(answer, 422, "invalid-document")
    assert body["errors"][0]["pointer"].startswith("/workflow/nodes/b/depends_on")


@pytest.mark.parametrize(
    ("envelope", "pointer"),
    [
        ({"workflow": "orders", "input": {}}, "/workflow"),
        ({"workflow": DOCUMENT, "labels": {"a": 1}}, "/labels/a"),
        ({"workflow": DOCUMENT, "labels": []}, "/labels"),
        ({"workflow": DOCUMENT, "trigger": "yes"}, "/trigger"),
        ({"workflow": DOCUMENT, "inptu": {}}, "/inptu"),
    ],
)
async def test_wrong_envelope(api: httpx.AsyncClient, stored: Stored, envelope: dict[str, Any], pointer: str) -> None:
    """A wrong member of the envelope is a 422 that points at it."""
    before = await stored()
    body = problem(await api.post("/workflow", json=envelope), 422, "invalid-document")
    assert [error["pointer"] for error in body["errors"]] == [pointer]
    assert await stored() == before


UNPARSABLE = {
    "no JSON": b'{"name": ',
    "NaN": b'{"name": "w", "nodes": {"a": {"task": "t", "params": {"x": NaN}}}}',
    "Infinity": b'{"name": "w", "nodes": {"a": {"task": "t", "params": {"x": -Infinity}}}}',
    "1e999": b'{"name": "w", "nodes": {"a": {"task": "t", "params": {"x": 1e999}}}}',
    "a lone surrogate": b'{"name": "w\\ud800", "nodes": {"a": {"task": "t"}}}',
    "bytes that are no UTF-8": b'{"name": "\xff", "nodes": {"a": {"task": "t"}}}',
    "an array 500 deep": b'{"name": "w", "nodes": {"a": {"task": "t", "params": {"x": '
    + b"[" * 500
    + b"]" * 500
    + b"}}}}",
    "an array 100,000 deep": b"[" * 100_000,
    "a duplicate node": b'{"name": "w", "nodes": {"a": {"task": "t"}, "a": {"task": "u"}}}',
}


@pytest.mark.parametrize("name", UNPARSABLE)
@pytest.mark.parametrize("path", ["/workflow", "/workflow/validate", f"/workflow/trigger/{UNKNOWN}"])
async def test_unparsable(api: httpx.AsyncClient, stored: Stored, name: str, path: str) -> None:
    """Bytes that are no strict JSON are a 400, never a 500, and change nothing."""
    before = await stored()
    answer = await api.post(path, content=UNPARSABLE[name], headers=JSON)
    problem(answer, 400, "unparsable")
    assert await stored() == before


@pytest.mark.parametrize(
    "text",
    [b"a: [", b"a: !!python/object:os.system {}", b"name: w\nname: v\nnodes: {a: {task: t}}", b"\xff", b"a: &a [*a]"],
)
async def test_unparsable_yaml(api: httpx.AsyncClient, text: bytes) -> None:
    """YAML with errors, tags, duplicate keys or loops is a 400."""
    answer = await api.post("/workflow", content=text, headers={"Content-Type": "application/yaml"})
    problem(answer, 400, "unparsable")


async def test_lines_of_yaml(api: httpx.AsyncClient) -> None:
    """A problem of a YAML document names its line beside the pointer."""
    text = b"name: w\nnodes:\n  a: {task: t}\n  b:\n    task: t\n    depends_on: [zz]\n"
    answer = await api.post("/workflow", content=text, headers={"Content-Type": "application/yaml"})
    (error,) = problem(answer, 422, "invalid-document")["errors"]
    assert error["pointer"] == "/nodes/b/depends_on/0"
    assert error["detail"].startswith("line 6: ")


async def test_empty_body(api: httpx.AsyncClient) -> None:
    """No body at all is a 400 that says what to send."""
    problem(await api.post("/workflow", headers=JSON), 400, "unparsable")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_media_type(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """A body of another media type, or of none, is a 415: a web page could send it without asking."""
    content = json.dumps(DOCUMENT).encode()
    problem(await api.post("/workflow", content=content, headers=headers), 415, "unsupported-media-type")


async def test_too_large(settings: Settings, stored: Stored) -> None:
    """A body above the cap is a 413, whether its length is declared or it comes in chunks."""
    async with serving(settings.model_copy(update={"max_body_bytes": 10_000})) as service:
        before = await stored()

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 1000

        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as api:
            problem(await api.post("/workflow", content=b" " * 10_001, headers=JSON), 413, "too-large")
            problem(await api.post("/workflow", content=chunks(), headers=JSON), 413, "too-large")
        assert await stored() == before


async def test_a_liar_about_the_length(service: ApiService) -> None:
    """The cap also ends a body whose client declares 16 EiB and sends a little."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        "POST /workflow HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {2**64 - 1}\r\n\r\n{{"
    )
    writer.write(head.encode())
    async with asyncio.timeout(5):
        answer = await reader.read(2000)
    writer.close()
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


async def test_input_is_not_echoed(api: httpx.AsyncClient) -> None:
    """No error page holds a value that was sent."""
    document = nodes(b={"task": "t", "params": {"token": SECRET}, "priority": SECRET})
    for answer in (
        await api.post("/workflow", json=document),
        await api.post("/workflow", json={"workflow": NEEDS_DAY, "input": {"day": [SECRET]}}),
        await api.post("/workflow", content=f'{{"name": {SECRET}'.encode(), headers=JSON),
    ):
        assert 400 <= answer.status_code < 500
        assert SECRET not in answer.text


@pytest.mark.parametrize("execution_id", [UNKNOWN, "nonsense", "a" * 5000, "%00", "x%2Fy", UNKNOWN.upper()])
async def test_unknown_execution(api: httpx.AsyncClient, stored: Stored, execution_id: str) -> None:
    """An id that nobody has, or that is no id, is a 404 at every address, and changes nothing."""
    before = await stored()
    for path in ("", "/results", "/nodes", "/nodes/a", "/events", "/definition"):
        answer = await api.get(f"/workflows/{execution_id}{path}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await api.post(f"/workflow/trigger/{execution_id}")).status_code == 404
    assert (await api.post(f"/workflows/{execution_id}/cancel")).status_code == 404
    assert await stored() == before


async def test_wrong_method(api: httpx.AsyncClient) -> None:
    """A wrong method is a 405 that names the right one."""
    answer = await api.put("/workflow", json=DOCUMENT)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


async def test_wrong_address(api: httpx.AsyncClient) -> None:
    """An address that does not exist is a 404 problem, a slash too many as well."""
    problem(await api.get("/nothing/here"), 404, "not-found")
    problem(await api.get("/workflows/"), 404, "not-found")
    problem(await api.post("/workflow/", json=DOCUMENT), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/workflows?limit=0", "limit"),
        ("/workflows?limit=x", "limit"),
        ("/workflows?status=DONE", "status"),
        ("/workflows?label=team", "label"),
        ("/workflows?since=tomorrow", "since"),
        ("/workflows?since=99999999999d", "since"),
        ("/workflows?cursor=%00", "cursor"),
    ],
)
async def test_wrong_parameters(api: httpx.AsyncClient, path: str, parameter: str) -> None:
    """A wrong query parameter is a 422 that names it."""
    body = problem(await api.get(path), 422, "invalid-parameters")
    assert body["errors"][0]["pointer"] == f"/query/{parameter}"


@pytest.mark.parametrize("wait", ["soon", "-1", "10h", "nan"])
async def test_wrong_wait(api: httpx.AsyncClient, stored: Stored, wait: str) -> None:
    """`wait` takes a duration of at most five minutes."""
    before = await stored()
    problem(await api.post(f"/workflow?wait={wait}", json=DOCUMENT), 422, "invalid-parameters")
    assert await stored() == before


async def test_a_wait_for_what_does_not_start(api: httpx.AsyncClient, stored: Stored) -> None:
    """A `wait` without `trigger` would wait for nothing; `trigger` may stand in the body."""
    before = await stored()
    body = problem(await api.post("/workflow?wait=5s", json=DOCUMENT), 422, "invalid-parameters")
    assert body["errors"][0]["pointer"] == "/query/wait"
    assert "say trigger as well" in body["detail"]
    assert await stored() == before
    started = await api.post("/workflow?wait=10ms", json={"workflow": DOCUMENT, "trigger": True}, headers=HURRY)
    assert (started.status_code, started.json()["status"]) == (201, "RUNNING")


@pytest.mark.parametrize(
    ("given", "pointer"),
    [({"day": 1}, "/input/day"), ({}, "/input"), ({"day": "x", "more": 1}, "/input"), ([], "/input"), (0, "/input")],
)
async def test_wrong_input(api: httpx.AsyncClient, stored: Stored, given: Any, pointer: str) -> None:
    """An input that its schema does not allow is a 422 at the creation, and creates nothing."""
    before = await stored()
    body = problem(await api.post("/workflow", json={"workflow": NEEDS_DAY, "input": given}), 422, "invalid-input")
    assert body["errors"][0]["pointer"].startswith(pointer)
    assert await stored() == before


async def test_input_above_the_limit(api: httpx.AsyncClient, stored: Stored) -> None:
    """An input above APP_MAX_PAYLOAD_BYTES is a 422 that names the limit."""
    before = await stored()
    answer = await api.post("/workflow", json={"workflow": DOCUMENT, "input": "x" * 300_000})
    body = problem(answer, 422, "invalid-input")
    assert "APP_MAX_PAYLOAD_BYTES" in body["detail"]
    assert await stored() == before


async def test_a_name_too_long_for_the_log(api: httpx.AsyncClient, stored: Stored) -> None:
    """What no record of the log could carry is refused before it is accepted."""
    before = await stored()
    answer = await api.post("/workflow", json={**DOCUMENT, "name": "n" * 1_100_000})
    assert answer.status_code == 422
    assert await stored() == before


async def test_required_input_is_checked_when_it_starts(api: httpx.AsyncClient, stored: Stored) -> None:
    """Without an input a creation that starts at once is a 422."""
    before = await stored()
    problem(await api.post("/workflow?trigger=true", json=NEEDS_DAY), 422, "invalid-input")
    assert await stored() == before


async def test_wrong_input_at_the_trigger(api: httpx.AsyncClient, stored: Stored) -> None:
    """A trigger whose input is wrong or missing is a 422; the execution stays PENDING."""
    created = (await api.post("/workflow", json=NEEDS_DAY, headers=HURRY)).json()
    trigger = f"/workflow/trigger/{created['execution_id']}"
    before = await stored()
    problem(await api.post(trigger), 422, "invalid-input")
    problem(await api.post(trigger, json={"input": {"day": 7}}), 422, "invalid-input")
    misspelt = problem(await api.post(trigger, json={"inputs": {}}), 422, "invalid-parameters")
    assert misspelt["detail"] == "'inputs' is not known here; did you mean 'input'?"
    problem(await api.post(trigger, json=[]), 422, "invalid-parameters")
    assert await stored() == before


async def test_unknown_task(api: httpx.AsyncClient, stored: Stored, publish: Callable[..., Awaitable[None]]) -> None:
    """A task that no live worker knows is a 422 with the nearest name, unless `allow_unknown` is said."""
    await publish(ECHO)
    before = await stored()
    document = nodes(b={"task": "core.ehco"})
    body = problem(await api.post("/workflow", json=document), 422, "invalid-document")
    assert body["errors"][0]["pointer"].startswith("/nodes/b")
    assert "core.echo" in body["errors"][0]["detail"]
    assert await stored() == before
    assert (await api.post("/workflow?allow_unknown=true", json=document, headers=HURRY)).status_code == 201


@pytest.mark.parametrize("path", ["/workflow", "/workflow/validate"])
async def test_unknown_tasks_are_told_with_all_the_rest(
    api: httpx.AsyncClient, publish: Callable[..., Awaitable[None]], path: str
) -> None:
    """What no worker knows is told beside what is wrong otherwise, with its place in a list of nodes too."""
    await publish(ECHO)
    wrong, lost = {"task": "core.eco"}, {"task": "core.echo", "depends_on": ["c"]}
    listed = {"name": "n", "nodes": [{"id": "a", **wrong}, {"id": "b", **lost}]}
    for document, place in ((nodes(a=wrong, b=lost), "/nodes/a/task"), (listed, "/nodes/0/task")):
        body = problem(await api.post(path, json=document), 422, "invalid-document")
        found = {error["code"]: error["pointer"] for error in body["errors"]}
        assert set(found) == {"unknown_dependency", "unknown_task"}
        assert found["unknown_task"] == place


async def test_wrong_parameter_type(
    api: httpx.AsyncClient, stored: Stored, publish: Callable[..., Awaitable[None]]
) -> None:
    """A literal parameter of the wrong type is a 422 with its place; a template may be anything."""
    await publish(ECHO)
    before = await stored()
    body = problem(
        await api.post("/workflow", json=nodes(b={"task": "core.echo", "params": {"times": "three"}})),
        422,
        "invalid-document",
    )
    assert body["errors"][0]["pointer"] == "/nodes/b/params/times"
    assert await stored() == before
    allowed = nodes(b={"task": "core.echo", "params": {"times": "${{ input.n }}"}})
    assert (await api.post("/workflow", json=allowed, headers=HURRY)).status_code == 201


async def test_any_task_without_workers(api: httpx.AsyncClient) -> None:
    """While no worker has published what it can run every task is accepted; validation says so."""
    answer = await api.post("/workflow/validate", json=nodes(b={"task": "anything.at.all"}))
    assert answer.status_code == 200
    assert answer.json()["warnings"]


async def test_unknown_policy(api: httpx.AsyncClient) -> None:
    """A retry policy that this host does not know, where it knows some, is a 422."""
    pytest.importorskip("wf_orchestrator", reason="an API host without policies accepts every name")
    document = nodes(b={"task": "t", "retry": {"policy": "exponentail"}})
    body = problem(await api.post("/workflow", json=document), 422, "invalid-document")
    assert body["errors"][0]["pointer"] == "/nodes/b/retry/policy"


@pytest.mark.parametrize("path", ["/workflows?stauts=FAILED", "/tasks?x=1"])
async def test_unknown_parameters(api: httpx.AsyncClient, path: str) -> None:
    """A query parameter that the route does not take is a 422 with the nearest one, not silently ignored."""
    answer = await api.get(path)
    shown = problem(answer, 422, "invalid-parameters")
    assert shown["errors"][0]["code"] == "unknown_parameter"
    if "stauts" in path:
        assert "did you mean 'status'?" in shown["errors"][0]["detail"]
    problem(await api.post("/workflow?triger=true", json={}), 422, "invalid-parameters")
