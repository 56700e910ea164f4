"""Commands and reads while an orchestrator folds; this test plays the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from wf_api.service import ApiService
from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.ids import partition_of
from wf_core.settings import Settings

from .conftest import DOCUMENT, NEEDS_DAY, problem, until

orchestrator = pytest.importorskip("wf_orchestrator.service", reason="wf-orchestrator is not installed")

ONE = {
    "name": "one",
    "nodes": {"a": {"task": "core.echo", "params": {"value": "${{ input.x }}"}, "retry": {"max_retries": 0}}},
}


@pytest_asyncio.fixture(autouse=True)
async def folding(settings: Settings, redis: Redis) -> AsyncIterator[None]:
    """An orchestrator in this loop."""
    service = orchestrator.OrchestratorService(settings)
    await service.start()
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    yield
    stop.set()
    await running


@pytest.fixture
def finish(service: ApiService, folding: None) -> Any:
    """Appends the result of an attempt, as a worker would."""

    async def append(execution_id: str, node: str, output: Any = None, error: str = "", attempt: int = 1) -> None:
        context = service._context
        assert context is not None
        now = context.clock.now_ms()
        result = wire.Result(
            execution=execution_id,
            ts=now,
            source="w",
            node=node,
            attempt=attempt,
            worker="w",
            started_at=now,
            ended_at=now,
            status="FAILED" if error else "COMPLETED",
            output=None if error else json.dumps(output).encode(),
            error=wire.Failure(type="ValueError", message=error) if error else None,
        )
        target = TopicPartition(topics.events(context.settings.namespace), partition_of(execution_id))
        await context.log.append(target, [wire.encode(result)])

    return append


async def reaches(api: httpx.AsyncClient, execution_id: str, status: str) -> dict[str, Any]:
    """The execution once it has this status."""

    async def look() -> dict[str, Any]:
        shown: dict[str, Any] = (await api.get(f"/workflows/{execution_id}")).json()
        return shown

    return await until(look, lambda shown: shown["status"] == status, status)


async def start(api: httpx.AsyncClient, document: dict[str, Any] = ONE, **given: Any) -> str:
    """The id of an execution that was triggered."""
    created = await api.post("/workflow?trigger=true", json={"workflow": document, "input": given})
    execution_id: str = created.json()["execution_id"]
    return execution_id


async def test_a_whole_run(api: httpx.AsyncClient, finish: Any) -> None:
    """Created, triggered, run, completed: each answer comes when it is applied, and the next read shows it."""
    created = await api.post("/workflow", json={"workflow": ONE, "input": {"x": 3}})
    assert created.json() | {"execution_id": ""} == {"execution_id": "", "status": "PENDING"}
    execution_id = created.json()["execution_id"]
    triggered = await api.post(f"/workflow/trigger/{execution_id}")
    assert (triggered.status_code, triggered.json()) == (200, {"execution_id": execution_id, "status": "RUNNING"})
    assert (await api.get(f"/workflows/{execution_id}")).json()["status"] == "RUNNING"
    problem(await api.post(f"/workflow/trigger/{execution_id}"), 409, "wrong-state")
    await finish(execution_id, "a", {"n": 2**80})
    shown = await reaches(api, execution_id, "COMPLETED")
    assert shown["output"] == {"n": 2**80}
    assert shown["counts"] == {"COMPLETED": 1}
    assert shown["nodes"]["a"]["attempts"] == 1
    node = (await api.get(f"/workflows/{execution_id}/nodes/a")).json()
    assert node["input"] == {"value": 3}
    assert node["history"][0]["status"] == "COMPLETED"
    results = (await api.get(f"/workflows/{execution_id}/results")).json()
    assert results["results"] == {"a": {"n": 2**80}}
    problem(await api.post(f"/workflows/{execution_id}/cancel"), 409, "wrong-state")


async def test_wait_for_the_end(api: httpx.AsyncClient, finish: Any) -> None:
    """`?wait` answers when the execution has ended, with its output or first failure."""
    path = "/workflow?trigger=true&wait=20s"

    async def work(error: str) -> None:
        running = await until(
            lambda: api.get("/workflows?status=RUNNING"), lambda a: bool(a.json()["items"]), "running"
        )
        await finish(running.json()["items"][0]["execution_id"], "a", 7, error)

    body = {"workflow": ONE, "input": {"x": 1}}
    good, _ = await asyncio.gather(api.post(path, json=body), work(""))
    assert (good.status_code, good.json()["status"], good.json()["output"]) == (201, "COMPLETED", 7)
    bad, _ = await asyncio.gather(api.post(path, json=body), work("no"))
    assert (bad.status_code, bad.json()["status"]) == (201, "FAILED")
    assert (bad.json()["error"]["type"], bad.json()["error"]["node"]) == ("ValueError", "a")


async def test_wait_that_ends_first(api: httpx.AsyncClient) -> None:
    """A wait that is shorter than the execution answers with what it is then."""
    answer = await api.post("/workflow?trigger=true&wait=100ms", json=DOCUMENT)
    assert (answer.status_code, answer.json()["status"]) == (201, "RUNNING")


async def test_cancel(api: httpx.AsyncClient) -> None:
    """Cancel ends an execution, PENDING or RUNNING; asked again the answer is the same to the byte."""
    for query in ("", "?trigger=true"):
        execution_id = (await api.post(f"/workflow{query}", json=DOCUMENT)).json()["execution_id"]
        first = await api.post(f"/workflows/{execution_id}/cancel", json={"reason": "no need"})
        assert (first.status_code, first.json()["status"]) == (200, "CANCELLED")
        assert (await api.get(f"/workflows/{execution_id}")).json()["status"] == "CANCELLED"
        second = await api.post(f"/workflows/{execution_id}/cancel")
        assert (second.status_code, second.content) == (200, first.content)
        problem(await api.post(f"/workflow/trigger/{execution_id}"), 409, "wrong-state")


async def test_keys_after_the_fold(api: httpx.AsyncClient) -> None:
    """An Idempotency-Key still gives the first answer after its command was folded, and 409 to another body."""
    key = {"Idempotency-Key": "k"}
    created = await api.post("/workflow", json=NEEDS_DAY, headers=key)
    again = await api.post("/workflow", json=NEEDS_DAY, headers=key)
    assert (created.status_code, created.content) == (again.status_code, again.content)
    problem(await api.post("/workflow", json=DOCUMENT, headers=key), 409, "idempotency-conflict")
    execution_id = created.json()["execution_id"]
    for path, body, other in (
        (f"/workflow/trigger/{execution_id}", {"input": {"day": "x"}}, {"input": {"day": "y"}}),
        (f"/workflows/{execution_id}/cancel", {"reason": "x"}, {"reason": "y"}),
    ):
        first = await api.post(path, json=body, headers=key)
        second = await api.post(path, json=body, headers=key)
        assert first.status_code == 200
        assert (second.status_code, second.content) == (200, first.content)
        problem(await api.post(path, json=other, headers=key), 409, "idempotency-conflict")


async def test_input_is_required_at_the_trigger(api: httpx.AsyncClient) -> None:
    """After the fold, too, a trigger without the required input is a 422 and starts nothing."""
    execution_id = (await api.post("/workflow", json=NEEDS_DAY)).json()["execution_id"]
    problem(await api.post(f"/workflow/trigger/{execution_id}"), 422, "invalid-input")
    assert (await api.get(f"/workflows/{execution_id}")).json()["status"] == "PENDING"
    assert (await api.post(f"/workflow/trigger/{execution_id}", json={"input": {"day": "x"}})).status_code == 200
    assert (await api.get(f"/workflows/{execution_id}")).json()["input"] == {"day": "x", "limit": 10}


async def test_events(api: httpx.AsyncClient, finish: Any) -> None:
    """Events come in pages after a `seq`, in order, the last page with no cursor."""
    execution_id = await start(api, x=1)
    await finish(execution_id, "a", 1)
    await reaches(api, execution_id, "COMPLETED")
    at = f"/workflows/{execution_id}/events"
    everything = (await api.get(at)).json()["items"]
    assert len(everything) >= 3
    assert {"seq", "ts", "kind", "node", "attempt", "status", "data"} == everything[0].keys()
    paged: list[Any] = []
    after = ""
    for _ in everything:
        page = (await api.get(f"{at}?limit=1{after}")).json()
        paged += page["items"]
        after = f"&after={page['items'][-1]['seq']}"
        if page["next_cursor"] is None:
            break
    assert paged == everything
    first = (await api.get(f"{at}?limit=1")).json()
    assert (await api.get(f"{at}?cursor={first['next_cursor']}")).json()["items"] == everything[1:]
    problem(await api.get(f"{at}?after=x"), 422, "invalid-parameters")


async def test_stream(api: httpx.AsyncClient, finish: Any) -> None:
    """As a stream, events arrive as they happen, until the end; Last-Event-ID goes on from there."""
    execution_id = await start(api, x=1)
    at, accept = f"/workflows/{execution_id}/events", {"Accept": "text/event-stream"}
    lines: list[str] = []
    async with asyncio.timeout(15), api.stream("GET", at, headers=accept) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        finished = False
        async for line in stream.aiter_lines():
            lines.append(line)
            if line.startswith("data") and not finished:
                finished = True
                await finish(execution_id, "a", 1)
    assert "event: end" in lines
    streamed = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith('data: {"seq')]
    everything = (await api.get(at)).json()["items"]
    assert streamed == everything
    async with asyncio.timeout(15):
        rest = await api.get(at, headers=accept | {"Last-Event-ID": everything[0]["seq"]})
    assert everything[0]["seq"] not in rest.text
    assert all(event["seq"] in rest.text for event in everything[1:])


async def test_a_stream_ends_with_the_service(api: httpx.AsyncClient, service: ApiService) -> None:
    """A service that stops ends its streams, so that it need not wait for them."""
    execution_id = (await api.post("/workflow", json=DOCUMENT)).json()["execution_id"]
    headers = {"Accept": "text/event-stream"}
    async with asyncio.timeout(10), api.stream("GET", f"/workflows/{execution_id}/events", headers=headers) as stream:
        chunks = stream.aiter_raw()
        await anext(chunks)
        assert service._context is not None
        service._context.closing.set()
        async for _ in chunks:
            pass


async def test_a_wide_workflow(api: httpx.AsyncClient) -> None:
    """20,000 nodes are accepted; an execution shows the first 1,000, pages show all."""
    nodes: dict[str, Any] = {f"n{i:05}": {"task": "core.noop"} for i in range(19_999)}
    nodes["z"] = {"task": "core.noop", "depends_on": list(nodes)}
    created = await api.post("/workflow", json={"name": "wide", "nodes": nodes})
    assert created.status_code == 201
    at = f"/workflows/{created.json()['execution_id']}"
    shown = await until(lambda: api.get(at), lambda a: a.json()["counts"] == {"PENDING": 20_000}, "folded", 30)
    assert len(shown.json()["nodes"]) == 1000
