"""An API process dies between accepting a command and appending it: what was accepted is carried out, once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest
from wf_testservers.cluster import Cluster, EngineProcess, wait_for_end

from wf_core.ids import derived_execution_id, derived_execution_ids

QUICK = {
    "name": "quick",
    "nodes": {"a": {"task": "core.echo", "params": {"value": 7}}},
    "output": "${{ nodes.a.output }}",
}


async def _ready(client: httpx.AsyncClient, url: str) -> None:
    """Until the API at `url` takes work."""
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if (await client.get(f"{url}/readyz")).status_code == 200:
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{url} is not ready")


async def _gone(process: EngineProcess) -> None:
    """Until the process has ended: its connections close a moment before."""
    for _ in range(200):
        if not process.alive:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the process goes on: its fail point was not reached")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["api.accepted", "api.appended"])
async def test_a_killed_api_loses_nothing_and_doubles_nothing(cluster: Cluster, point: str):
    """Killed before or after the append, its client repeats the request elsewhere: one execution, which completes."""
    cluster.start("orchestrator")
    cluster.start("worker")
    dying = cluster.start("api", WF_FAIL_POINTS=f"{point}=kill")
    doomed = cluster.url
    cluster.start("api")
    await cluster.ready(workers=1)
    execution_id = derived_execution_id("k", 8)
    async with httpx.AsyncClient(timeout=30) as client:
        await _ready(client, doomed)
        with pytest.raises(httpx.TransportError):
            await client.post(f"{doomed}/workflow?trigger=true", json=QUICK, headers={"Idempotency-Key": "k"})
        await _gone(dying)
    async with httpx.AsyncClient(base_url=cluster.url, timeout=30) as client:
        # Nobody has repeated it yet: it was accepted, so it is there and runs.
        view = (await wait_for_end(client, [execution_id], 30))[execution_id]
        assert (view["status"], view["output"]) == ("COMPLETED", 7)
        answers = await asyncio.gather(
            *(client.post("/workflow?trigger=true", json=QUICK, headers={"Idempotency-Key": "k"}) for _ in range(5))
        )
        assert {(answer.status_code, answer.json()["execution_id"]) for answer in answers} == {(201, execution_id)}
        assert [item["execution_id"] for item in (await client.get("/workflows")).json()["items"]] == [execution_id]
        events = (await client.get(f"/workflows/{execution_id}/events")).json()["items"]
        assert [event["kind"] for event in events].count("node.completed") == 1, events


@pytest.mark.timeout(120)
async def test_a_killed_api_loses_nothing_of_a_batch(cluster: Cluster):
    """Killed before it appends a batch: all of it is there and runs, and a repetition adds nothing."""
    cluster.start("orchestrator")
    cluster.start("worker")
    dying = cluster.start("api", WF_FAIL_POINTS="api.accepted=kill")
    doomed = cluster.url
    cluster.start("api")
    await cluster.ready(workers=1)
    ids = derived_execution_ids("k", 8, 40)
    request: dict[str, Any] = {
        "json": {"workflow": QUICK, "inputs": [{"n": n} for n in range(len(ids))], "trigger": True},
        "headers": {"Idempotency-Key": "k"},
    }
    async with httpx.AsyncClient(timeout=30) as client:
        await _ready(client, doomed)
        with pytest.raises(httpx.TransportError):
            await client.post(f"{doomed}/workflow/batch", **request)
        await _gone(dying)
    async with httpx.AsyncClient(base_url=cluster.url, timeout=30) as client:
        ended = await wait_for_end(client, list(ids), 30)
        assert {(view["status"], view["output"]) for view in ended.values()} == {("COMPLETED", 7)}
        assert [ended[i]["input"] for i in ids] == [{"n": n} for n in range(len(ids))]
        answer = await client.post("/workflow/batch", **request)
        assert [item["execution_id"] for item in answer.json()["executions"]] == list(ids)
        assert len((await client.get("/workflows", params={"limit": 100})).json()["items"]) == len(ids)


@pytest.mark.timeout(120)
async def test_one_key_five_times_in_parallel_makes_one_execution(cluster: Cluster):
    """Two API processes, one key, five requests at once: one execution, one answer."""
    cluster.start("orchestrator")
    cluster.start("worker")
    cluster.start("api")
    first = cluster.url
    cluster.start("api")
    await cluster.ready(workers=1)
    async with httpx.AsyncClient(timeout=30) as client:
        await _ready(client, first)
        for key in range(10):
            answers = await asyncio.gather(
                *(
                    client.post(f"{url}/workflow?trigger=true", json=QUICK, headers={"Idempotency-Key": f"k{key}"})
                    for url in (first, cluster.url, first, cluster.url, first)
                )
            )
            assert {answer.status_code for answer in answers} == {201}
            assert len({answer.json()["execution_id"] for answer in answers}) == 1
        items = (await client.get(f"{first}/workflows", params={"limit": 100})).json()["items"]
        assert len(items) == 10
    async with httpx.AsyncClient(base_url=first, timeout=30) as client:
        ended = await wait_for_end(client, [item["execution_id"] for item in items], 30)
        assert {view["output"] for view in ended.values()} == {7}
