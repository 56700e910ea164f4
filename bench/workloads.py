"""The workloads: a chain, a fan-out, many diamonds. Each returns one figure of one run."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import httpx
from wf_testservers.cluster import wait_for_end

CHAIN = 50
FAN_OUT = 1_000
DIAMONDS = 500
_AT_ONCE = 16


def chain_document(length: int) -> dict[str, Any]:
    """No-ops in a row."""
    nodes = {f"n{n}": {"task": "core.noop", "depends_on": [f"n{n - 1}"] if n else []} for n in range(length)}
    return {"name": "chain", "nodes": nodes}


def fan_document(width: int) -> dict[str, Any]:
    """One no-op, `width` no-ops, one no-op."""
    nodes: dict[str, Any] = {"first": {"task": "core.noop"}}
    nodes |= {f"n{n}": {"task": "core.noop", "depends_on": ["first"]} for n in range(width)}
    nodes["last"] = {"task": "core.noop", "depends_on": [f"n{n}" for n in range(width)]}
    return {"name": "fan-out", "nodes": nodes}


def diamond_document() -> dict[str, Any]:
    """One, two, one."""
    edges = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    return {"name": "diamond", "nodes": {n: {"task": "core.noop", "depends_on": up} for n, up in edges.items()}}


async def chain_step_ms(client: httpx.AsyncClient) -> float:
    """Milliseconds a step of a chain, by the engine's own times."""
    return await _run_seconds(client, chain_document(CHAIN)) * 1000 / CHAIN


async def fan_out_tasks_per_second(client: httpx.AsyncClient) -> float:
    """Tasks a second of a fan-out."""
    return (FAN_OUT + 2) / await _run_seconds(client, fan_document(FAN_OUT))


async def diamonds_per_second(client: httpx.AsyncClient) -> float:
    """Workflows of four nodes a second, from the first trigger to the last end."""
    document = diamond_document()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def post(path: str, body: Any = None) -> str:
        async with gate:
            answer = await client.post(path, json=body, headers={"prefer": "respond-async"})
        found: str = answer.raise_for_status().json()["execution_id"]
        return found

    ids = await asyncio.gather(*(post("/workflow", document) for _ in range(DIAMONDS)))
    await asyncio.gather(*(post(f"/workflow/trigger/{i}") for i in ids))
    ended = (await wait_for_end(client, list(ids), 120)).values()
    first = min(_time(view["started_at"]) for view in ended)
    last = max(_time(view["ended_at"]) for view in ended)
    return DIAMONDS / (last - first)


async def _run_seconds(client: httpx.AsyncClient, document: dict[str, Any]) -> float:
    answer = await client.post("/workflow?trigger=true", json=document)
    execution_id = answer.raise_for_status().json()["execution_id"]
    view = (await wait_for_end(client, [execution_id], 120))[execution_id]
    if view["status"] != "COMPLETED":
        raise RuntimeError(f"{document['name']} ended {view['status']}: {view['error']}")
    return max(_time(view["ended_at"]) - _time(view["started_at"]), 0.001)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
