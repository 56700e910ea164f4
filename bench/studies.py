"""What one figure cannot tell: how latency spreads, and how throughput grows with partitions and workers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bench.lean import ask, request
from bench.ours import engine
from bench.systems import Ours
from bench.workloads import Engine, fan_document, moment, run_each

RATE = 50
"""Workflows a second, far below what an engine can do."""
ARRIVALS = 400
_WARM = 50
_QUIET_SECONDS = 1.0
FANS, WIDTH = 4, 500
PARTITIONS = (1, 2, 4, 8)
WORKERS = (1, 2, 3)
_USUAL_PARTITIONS = 8
_ONE = {"name": "one", "nodes": {"a": {"task": "bench.now"}}}


@dataclass(frozen=True)
class Latencies:
    """Milliseconds of single workflows of one node, in no order.

    `start` is from the moment the node was ready until its code ran, `whole` from sending the request to the end. The
    engine notes moments in whole milliseconds.
    """

    start: tuple[float, ...]
    whole: tuple[float, ...]


@dataclass(frozen=True)
class Throughput:
    """Tasks a second of several fan-outs at once: by partitions with one worker, by workers with eight partitions."""

    partitions: Mapping[int, float]
    workers: Mapping[int, float]


def latency(system: Ours) -> Latencies:
    """Single workflows of one node, which arrive evenly."""
    with engine(system.installation) as running:
        return asyncio.run(_latencies(running))


async def _latencies(running: Engine) -> Latencies:
    await _arrive(running, _WARM)
    sent = await _arrive(running, ARRIVALS)
    await asyncio.sleep(_QUIET_SECONDS)
    starts, wholes = [], []
    paths = [request("GET", f"/workflows/{i}") for i in sent]
    nodes = [request("GET", f"/workflows/{i}/nodes/a") for i in sent]
    views: list[Any] = [answer.json() for answer in await ask(running.cluster.port, paths, 1)]
    details: list[Any] = [answer.json() for answer in await ask(running.cluster.port, nodes, 1)]
    for at, view, node in zip(sent.values(), views, details, strict=True):
        wholes.append((moment(view["ended_at"]) - at) * 1000)
        starts.append((node["output"] - moment(node["history"][0]["queued_at"])) * 1000)
    return Latencies(tuple(starts), tuple(wholes))


async def _arrive(running: Engine, count: int) -> dict[str, float]:
    """When each request was sent, by execution."""
    one = request("POST", "/workflow?trigger=true", msgspec.json.encode(_ONE), "prefer: respond-async")
    begin = asyncio.get_running_loop().time()
    sent: dict[str, float] = {}

    async def arrive(n: int) -> None:
        await asyncio.sleep(begin + n / RATE - asyncio.get_running_loop().time())
        at = time.time()
        answer: Any = (await ask(running.cluster.port, [one], 1))[0].json()
        sent[answer["execution_id"]] = at

    await asyncio.gather(*(arrive(n) for n in range(count)))
    return sent


def scaling(system: Ours) -> Throughput:
    """Fan-outs on fresh installations, one for each number of partitions and of workers."""
    partitions = {count: _throughput(system, count, 1) for count in PARTITIONS}
    workers = {count: _throughput(system, _USUAL_PARTITIONS, count) for count in WORKERS if count > 1}
    return Throughput(partitions, {1: partitions[_USUAL_PARTITIONS], **workers})


def _throughput(system: Ours, partitions: int, workers: int) -> float:
    """On an installation of its own beside the others, since the number of partitions is fixed for its life."""
    fresh = {
        "APP_NAMESPACE": f"p{uuid.uuid4().hex[:10]}",
        "APP_PARTITIONS": str(partitions),
        "APP_TASK_PARTITIONS": str(partitions),
    }
    with engine(system.installation, workers, **fresh) as running, asyncio.Runner() as runner:
        runner.run(run_each(running, fan_document(WIDTH // 10), FANS))
        runner.run(run_each(running, fan_document(WIDTH), FANS))
        seconds = runner.run(run_each(running, fan_document(WIDTH), FANS)).own
    return FANS * (WIDTH + 2) / seconds


STUDIES: Mapping[str, Callable[[Ours], Any]] = {"latency": latency, "scaling": scaling}


def lines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What the studies found on each log, for a terminal."""
    for log, latencies in found.get("latency", {}).items():
        for name, values in (("ready to started", latencies.start), ("request to end", latencies.whole)):
            shown = ", ".join(f"p{p} {percentile(values, p):.1f} ms" for p in (50, 90, 99))
            yield f"latency at {RATE}/s, {log}, {name}: {shown}"
    for log, throughput in found.get("scaling", {}).items():
        for name in ("partitions", "workers"):
            shown = ", ".join(f"{count}: {rate:,.0f}" for count, rate in getattr(throughput, name).items())
            yield f"{FANS} fan-outs of {WIDTH} at once, {log}, tasks/s by {name}: {shown}"


def percentile(values: tuple[float, ...], percent: int) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
