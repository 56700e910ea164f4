"""The curves: what an event costs as one thing grows and everything else stays as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.growth.writing import Template, template, write
from bench.scene import Cost, Prepare, Scene, Size, per_event, scene
from bench.workloads import diamond_document, fan_document
from wf_core import ids

PROCESSES = ("orchestrator", "Redis", "worker")
_ROUNDS = 2
"""Of each size; what disturbs only adds, so the least of them counts."""
_WIDTH = 200
"""Nodes side by side in a grid."""
_WORKERS = 4
_REST = 3.0
_SIGNAL: dict[str, Any] = {"name": "waiting", "nodes": {"w": {"kind": "wait", "signal": "go"}}}
_TIMER: dict[str, Any] = {"name": "sleeping", "nodes": {"w": {"kind": "wait", "duration": "10d"}}}
_SLEEP: dict[str, Any] = {"name": "running", "nodes": {"a": {"task": "core.sleep", "params": {"seconds": 3600}}}}


@dataclass(frozen=True)
class Curve:
    """Costs by size. `series` are lines of the plot: a name, and a cost for each of `sizes`."""

    sizes: Sequence[int]
    series: dict[str, list[Cost]]


@dataclass(frozen=True)
class Part:
    """One measurement: `axis` is what grows; `per` is what a cost is of."""

    axis: str
    measure: Callable[[bool], Awaitable[Curve]]
    """Given whether it is to be quick."""
    per: str = "event"


def grid(nodes: int) -> dict[str, Any]:
    """Rows of 200 nodes, each below two of the row above."""
    found: dict[str, Any] = {}
    for n in range(nodes):
        row, place = divmod(n, _WIDTH)
        above = {(row - 1) * _WIDTH + p % _WIDTH for p in (place, place + 1)} if row else set()
        found[f"n{n}"] = {"task": "core.noop", "depends_on": [f"n{a}" for a in sorted(above)]}
    return {"name": "grid", "nodes": found}


async def nodes(quick: bool) -> Curve:
    """Workflows of so many nodes; of the small ones so many that all sizes run as many tasks."""
    sizes = (10, 100, 1_000) if quick else (10, 100, 1_000, 5_000, 20_000)
    total = 2_000 if quick else 5_000
    series: dict[str, list[Cost]] = {}
    async with scene() as here:
        await here.run(fan_document(98), 20)
        for name, shape in (("fan-out", lambda size: fan_document(size - 2)), ("grid", grid)):
            series[name] = [await _least(here, shape(size), max(1, total // size)) for size in sizes]
    return Curve(sizes, series)


async def live(quick: bool) -> Curve:
    """Diamonds beside so many executions that wait for a signal."""
    return await _beside(_SIGNAL, (1, 1_000, 10_000) if quick else (1, 1_000, 10_000, 100_000), quick=quick)


async def timers(quick: bool) -> Curve:
    """Diamonds beside so many executions that wait for a moment in ten days."""
    return await _beside(_TIMER, (0, 1_000, 10_000) if quick else (0, 1_000, 10_000, 100_000), quick=quick)


async def partitions(quick: bool) -> Curve:
    """Diamonds on so many partitions."""
    sizes = (1, 8, 64) if quick else (1, 4, 16, 64)
    return Curve(sizes, {"diamonds": [await _diamonds_on(Size(partitions=size), quick=quick) for size in sizes]})


async def lanes(quick: bool) -> Curve:
    """Diamonds with so many partitions of the task topic."""
    sizes = (1, 8, 32) if quick else (1, 8, 32, 128)
    return Curve(sizes, {"diamonds": [await _diamonds_on(Size(lanes=size), quick=quick) for size in sizes]})


async def rest(quick: bool) -> Curve:
    """A second of rest on so many partitions."""
    sizes = (1, 8, 64) if quick else (1, 4, 16, 64)
    costs = []
    for size in sizes:
        async with scene(Size(partitions=size)) as here:
            await asyncio.sleep(1)
            costs.append(await here.rest(_REST))
    return Curve(sizes, {"at rest": costs})


async def running(quick: bool) -> Curve:
    """A second in which so many attempts run on four workers and nothing else happens."""
    sizes = (0, 100, 1_000) if quick else (0, 100, 1_000, 4_000)
    costs = []
    async with scene(Size(workers=_WORKERS)) as here:
        for size, more in zip(sizes, (b - a for a, b in zip((0, *sizes), sizes, strict=False)), strict=True):
            await here.start(_SLEEP, more)
            await _claimed(here, size)
            await asyncio.sleep(1)
            costs.append(await here.rest(_REST))
    return Curve(sizes, {"running": costs})


async def history(quick: bool) -> Curve:
    """One loop; what the events of each stretch of its passes cost."""
    passes, stretches = (500, 5) if quick else (5_000, 10)
    one = {"again": {"task": "core.noop"}}
    loop = {"kind": "loop", "while": f"iteration < {passes}", "max_iterations": passes + 1, "nodes": one}
    sizes, costs = [], []
    async with scene() as here:
        await here.run(diamond_document(), 10)
        before = await here.read()
        end = before.events + passes
        await here.start({"name": "long", "nodes": {"loop": loop}}, 1)
        for stretch in range(1, stretches + 1):
            await _folded(here, end - passes + passes * stretch // stretches)
            after = await here.read()
            sizes.append(passes * stretch // stretches)
            costs.append(per_event(before, after))
            before = after
        await here.until_ended(11)
    return Curve(sizes, {"loop": costs})


PARTS = {
    "nodes": Part("nodes per workflow", nodes),
    "live": Part("live executions beside", live),
    "timers": Part("waiting timers beside", timers),
    "partitions": Part("partitions", partitions),
    "lanes": Part("task partitions", lanes),
    "rest": Part("partitions", rest, per="second"),
    "running": Part("attempts that run", running, per="second"),
    "history": Part("passes of one loop", history),
}


def fill(document: dict[str, Any], number: int, partitions: int = 8) -> Prepare:
    """Writes so many executions that were triggered, spread over the partitions."""

    async def prepare(port: int, namespace: str) -> None:
        kinds = [template(namespace, n, document) for n in range(partitions)]
        await asyncio.to_thread(write, port, _copies(kinds, number))

    return prepare


def _copies(kinds: Sequence[Template], number: int) -> Iterable[bytes]:
    now = time.time_ns() // 1_000_000
    yield from (kind.once for kind in kinds)
    for n in range(number):
        place = n % len(kinds)
        yield kinds[place].at(ids.new_execution_id(place, now - n), now - n)


async def _beside(document: dict[str, Any], sizes: Sequence[int], *, quick: bool) -> Curve:
    costs = []
    for size in sizes:
        async with scene(prepare=fill(document, size)) as here:
            costs.append(await _diamonds(here, quick=quick))
    return Curve(sizes, {"diamonds": costs})


async def _diamonds_on(size: Size, *, quick: bool) -> Cost:
    async with scene(size) as here:
        return await _diamonds(here, quick=quick)


async def _diamonds(here: Scene, *, quick: bool) -> Cost:
    await here.run(diamond_document(), 50)
    return await _least(here, diamond_document(), 250 if quick else 1_000)


async def _least(here: Scene, document: dict[str, Any], number: int) -> Cost:
    costs = [await here.run(document, number) for _ in range(_ROUNDS)]
    cpu = {kind: min(cost.cpu[kind] for cost in costs) for kind in costs[0].cpu}
    return Cost(cpu, min(cost.commands for cost in costs))


async def _claimed(here: Scene, number: int) -> None:
    async def claims() -> int:
        return sum([await here.redis.hlen(keys.claims) for keys in here.partitions])

    async with asyncio.timeout(60):
        while await claims() < number:  # noqa: ASYNC110 - only Redis knows
            await asyncio.sleep(0.05)


async def _folded(here: Scene, events: int) -> None:
    async with asyncio.timeout(300):
        while await here.events() < events:  # noqa: ASYNC110 - only Redis knows
            await asyncio.sleep(0.02)
