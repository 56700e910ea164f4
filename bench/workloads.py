"""What is asked of this engine: one function a workload, each for an engine that runs and a size."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from wf_testservers.cluster import Cluster

from bench.lean import ask, request
from bench.peers.common import at_rest, fibonacci, pss_mib

QUEUES = ("default", "other")
"""A worker takes from both; a chain that alternates between them is dispatched step by step."""
CONNECTIONS = 16
_PATIENCE = 120.0
_LOOK = 0.05
_BATCH = 1_000
"""Executions of one batch at most."""
_HURRY = "prefer: respond-async"


@dataclass(frozen=True)
class Engine:
    """One installation on one log, running; `redis` and `jvm` are pids of its Redis and, if there is one, its Kafka."""

    cluster: Cluster
    redis: int
    jvm: int | None = None


@dataclass(frozen=True)
class Timing:
    """Seconds by the engine's own times, from the first start to the last end; and from sending the first request."""

    own: float
    request: float


def chain_document(length: int, task: str = "core.noop", **more: Any) -> dict[str, Any]:
    """Nodes in a row, all with the same task and fields."""
    nodes = {f"n{n}": {"task": task, "depends_on": [f"n{n - 1}"] if n else [], **more} for n in range(length)}
    return {"name": "chain", "nodes": nodes}


def dispatched_document(length: int) -> dict[str, Any]:
    """A chain in alternating queues, so that each step goes through the log twice."""
    document = chain_document(length)
    for n in range(length):
        document["nodes"][f"n{n}"]["queue"] = QUEUES[n % len(QUEUES)]
    return document


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


async def chain(engine: Engine, size: int) -> Timing:
    """No-ops in a row."""
    return await _run(engine, chain_document(size))


async def dispatched(engine: Engine, size: int) -> Timing:
    """No-ops in a row, in alternating queues."""
    return await _run(engine, dispatched_document(size))


async def fan_out(engine: Engine, size: int) -> Timing:
    """So many no-ops side by side, between two more."""
    return await _run(engine, fan_document(size))


async def fib10(engine: Engine, size: int) -> Timing:
    """So many times fib(10) in sequence."""
    return await _run(engine, chain_document(size, "bench.fib", params={"n": 10}))


async def fib33(engine: Engine, size: int) -> Timing:
    """So many times fib(33) in sequence."""
    return await _run(engine, chain_document(size, "bench.fib", params={"n": 33}))


async def over_bare(engine: Engine, size: int) -> Timing:
    """How many times the seconds of bare Python an execution of fib(33) takes: the middle of so many pairs, in turn."""
    ratios = []
    for _ in range(size):
        start = time.perf_counter()
        fibonacci(33)
        bare = time.perf_counter() - start
        ratios.append((await _run(engine, chain_document(1, "bench.fib", params={"n": 33}))).own / bare)
    return Timing(statistics.median(ratios), statistics.median(ratios))


async def diamonds(engine: Engine, size: int) -> Timing:
    """So many workflows of four nodes, asked for in one batch."""
    sent = time.time()
    return await _timing(engine, await _post_batch(engine, diamond_document(), size, trigger=True), sent)


async def singles(engine: Engine, size: int) -> Timing:
    """So many workflows of four nodes, each with a request of its own."""
    return await run_each(engine, diamond_document(), size)


async def submit(engine: Engine, size: int) -> Timing:
    """So many executions accepted, each with a request of its own; none is triggered."""
    start = time.perf_counter()
    await _post_each(engine, chain_document(1), size, trigger=False)
    return _took(start)


async def batch(engine: Engine, size: int) -> Timing:
    """So many executions accepted, a thousand with one request; none is triggered."""
    start = time.perf_counter()
    for left in range(size, 0, -_BATCH):
        await _post_batch(engine, chain_document(1), min(left, _BATCH), trigger=False)
    return _took(start)


async def memory(engine: Engine, size: int) -> Timing:
    """MiB after a chain and a rest, in place of seconds: of all processes and Redis, and of these and a JVM."""
    await _run(engine, chain_document(size))
    pids = [process.process.pid for process in engine.cluster.processes]
    mib = await asyncio.to_thread(at_rest, engine.redis, *pids)
    return Timing(mib, mib + (pss_mib({engine.jvm}) if engine.jvm else 0))


def _took(start: float) -> Timing:
    seconds = time.perf_counter() - start
    return Timing(seconds, seconds)


async def run_each(engine: Engine, document: dict[str, Any], count: int) -> Timing:
    """So many executions of a document, each with a request of its own. Raises when one does not complete."""
    sent = time.time()
    return await _timing(engine, await _post_each(engine, document, count, trigger=True), sent)


async def _run(engine: Engine, document: dict[str, Any]) -> Timing:
    return await run_each(engine, document, 1)


async def _post_each(engine: Engine, document: dict[str, Any], count: int, *, trigger: bool) -> list[str]:
    path = f"/workflow?trigger={str(trigger).lower()}"
    one = request("POST", path, msgspec.json.encode(document), _HURRY)
    answers: list[Any] = [a.json() for a in await ask(engine.cluster.port, [one] * count, CONNECTIONS)]
    return [answer["execution_id"] for answer in answers]


async def _post_batch(engine: Engine, document: dict[str, Any], count: int, *, trigger: bool) -> list[str]:
    body = {"workflow": document, "inputs": [{}] * count, "trigger": trigger}
    one = request("POST", "/workflow/batch", msgspec.json.encode(body), _HURRY)
    answer: Any = (await ask(engine.cluster.port, [one], 1))[0].json()
    return [execution["execution_id"] for execution in answer["executions"]]


async def _timing(engine: Engine, ids: list[str], sent: float) -> Timing:
    """Waits for the ends of executions that were asked for at `sent`; while it waits it looks at one of them only."""
    deadline = time.monotonic() + _PATIENCE
    views: list[dict[str, Any]] = []
    waiting = ids
    while waiting:
        (newest,) = await _views(engine, waiting[-1:])
        if newest["ended_at"] is not None:
            found = await _views(engine, waiting)
            views += [view for view in found if view["ended_at"] is not None]
            waiting = [view["execution_id"] for view in found if view["ended_at"] is None]
        elif time.monotonic() > deadline:
            raise TimeoutError(f"{waiting[-1]} has not ended after {_PATIENCE:g} s")
        else:
            await asyncio.sleep(_LOOK)
    for view in views:
        if view["status"] != "COMPLETED":
            raise RuntimeError(f"{view['name']} ended {view['status']}: {view['error']}")
    first = min(moment(view["started_at"]) for view in views)
    last = max(moment(view["ended_at"]) for view in views)
    return Timing(max(last - first, 0.001), max(last - sent, 0.001))


async def _views(engine: Engine, ids: list[str]) -> list[dict[str, Any]]:
    asked = [request("GET", f"/workflows/{execution_id}?nodes=false") for execution_id in ids]
    views: list[Any] = [answer.json() for answer in await ask(engine.cluster.port, asked, CONNECTIONS)]
    return views


def moment(text: str) -> float:
    """Seconds since the epoch of a time in an answer."""
    return datetime.fromisoformat(text).timestamp()
