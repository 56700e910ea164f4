"""Priority between executions, with a real worker: what is urgent does not wait behind what came before."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import httpx
from wf_testservers.cluster import Cluster

LOW, SLOTS = 5_000, 4
"""Nodes that wait, and what the worker does at once."""
FEW = 40
"""Tasks of 20 ms that may start before the urgent one: those on their way, and those of the time that it travels."""


async def started(client: httpx.AsyncClient, execution_id: str) -> list[datetime]:
    """When the nodes of an execution started, in order."""
    times: list[datetime] = []
    cursor = ""
    while True:
        path = f"/workflows/{execution_id}/nodes?limit=500{cursor and f'&cursor={cursor}'}"
        page: Any = (await client.get(path)).raise_for_status().json()
        times += [datetime.fromisoformat(node["started_at"]) for node in page["items"] if node["started_at"]]
        if page["next_cursor"] is None:
            return sorted(times)
        cursor = page["next_cursor"]


async def submit(client: httpx.AsyncClient, nodes: dict[str, Any], **document: Any) -> str:
    """Starts an execution; its id."""
    body = {"name": "one", "on_failure": "continue", "nodes": nodes, **document}
    answer = await client.post("/workflow?trigger=true", json=body)
    found: str = answer.raise_for_status().json()["execution_id"]
    return found


async def view(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """The JSON behind a path."""
    found: dict[str, Any] = (await client.get(path)).raise_for_status().json()
    return found


async def completed(client: httpx.AsyncClient, execution_id: str, number: int) -> None:
    """Waits until so many nodes of an execution have completed."""
    for _ in range(1_200):
        shown = await view(client, f"/workflows/{execution_id}?nodes=false")
        if shown["counts"].get("COMPLETED", 0) >= number:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{shown['counts']}, not {number} completed")


async def test_an_urgent_task_overtakes_thousands_that_wait(cluster: Cluster):
    """It starts within the next few claims, although 5,000 tasks of a lower priority were ready long before."""
    cluster.start("api")
    cluster.start("orchestrator")
    cluster.start("worker", "--slots", str(SLOTS))
    await cluster.ready(workers=1)
    low = {f"n{i}": {"task": "core.sleep", "params": {"seconds": 0.02}, "priority": 3} for i in range(LOW)}
    async with httpx.AsyncClient(base_url=cluster.url, timeout=60) as client:
        waiting = await submit(client, low)
        await completed(client, waiting, 200)
        urgent = await submit(client, {"u": {"task": "core.noop", "priority": 8}})
        await completed(client, urgent, 1)
        (attempt,) = (await view(client, f"/workflows/{urgent}/nodes/u"))["history"]
        await client.post(f"/workflows/{waiting}/cancel")
        before = await started(client, waiting)
    ready, began = (datetime.fromisoformat(attempt[name]) for name in ("queued_at", "started_at"))
    assert len([time for time in before if ready < time < began]) <= FEW
    assert len(before) < LOW - 500
