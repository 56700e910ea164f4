"""Measures what a batch and a task cost each process: tasks in batches of different sizes, and a line through them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.scaling.model import Costs, Service, Shape
from bench.scene import Scene, Size, scene
from wf_core.store.scripts import Scripts

_ROUNDS = 3
_PARTITIONS = 16
_WIDTHS = (1, 4, 16, 64)
"""Tasks under way in each partition."""
_BEATS = 2_000
_KINDS = ("orchestrator", "worker", "tasks", "Redis", "Kafka")
_HOPS = 8
"""Between processes, on the way of a task that goes round alone."""
_REST = 2.0
_BALANCED = 2.0
"""Seconds in which several orchestrators share the partitions."""


@dataclass(frozen=True)
class Sample:
    """Of one run: batches and seconds of processor time by process, both per task, and tasks a second."""

    batches: float
    cpu: dict[str, float]
    rate: float


def grid(width: int, rows: int) -> dict[str, Any]:
    """Rows of nodes, each below two of the row above: as many are under way as a row has.

    Rows differ in priority, so that a worker is told of each node and goes on with none by itself.
    """
    nodes: dict[str, Any] = {}
    for row in range(rows):
        for place in range(width):
            above = sorted({f"r{row - 1}n{p % width}" for p in (place, place + 1)}) if row else []
            nodes[f"r{row}n{place}"] = {"task": "core.noop", "depends_on": above, "priority": 5 + row % 2}
    return {"name": "grid", "nodes": nodes}


async def sample(here: Scene, width: int, rows: int, executions: int, scripts_a_batch: float) -> Sample:
    """Runs grids side by side. `scripts_a_batch`: calls of scripts for a batch on its way round."""
    tasks = width * rows * executions
    ended = await here.ended()
    before = await here.read()
    await here.start(grid(width, rows), executions)
    await here.until_ended(ended + executions)
    after = await here.read()
    batches = (after.scripts - before.scripts) / scripts_a_batch / tasks
    cpu = {kind: (after.cpu.get(kind, 0.0) - before.cpu.get(kind, 0.0)) / tasks for kind in _KINDS}
    return Sample(batches, cpu, tasks / await _seconds(here, executions))


async def _seconds(here: Scene, executions: int) -> float:
    """From the first start to the last end of the executions that ended last, by their own times."""
    ended: list[tuple[float, str]] = []
    for keys in here.partitions:
        found: Any = await here.redis.zrevrange(keys.index("ended"), 0, executions - 1, withscores=True)
        ended += [(end, keys.execution(execution.decode())) for execution, end in found]
    newest = sorted(ended)[-executions:]
    starts = [int(await here.redis.hget(key, "started_at") or 0) for _, key in newest]
    return max(1.0, newest[-1][0] - min(starts)) / 1000


def fit(samples: Sequence[Sample], kind: str) -> Service:
    """The line through what a kind of process used: seconds a batch and a task, neither below nothing."""
    weights = [1 / max(s.cpu[kind], 1e-9) ** 2 for s in samples]
    total = sum(weights)
    x = sum(w * s.batches for w, s in zip(weights, samples, strict=True)) / total
    y = sum(w * s.cpu[kind] for w, s in zip(weights, samples, strict=True)) / total
    spread = sum(w * (s.batches - x) ** 2 for w, s in zip(weights, samples, strict=True))
    slope = sum(w * (s.batches - x) * (s.cpu[kind] - y) for w, s in zip(weights, samples, strict=True)) / spread
    batch = min(max(0.0, slope), y / x)
    return Service(batch, max(0.0, y - batch * x))


async def calibrate(log: str, *, quick: bool) -> Costs:
    """The costs of one process of each kind: of busy ones, with a grid in each of several partitions.

    A task that goes round alone tells how long it takes from one process to the next: nobody has anything else to do.
    """
    rows, rounds = (20, 1) if quick else (60, _ROUNDS)
    async with scene(Size(partitions=_PARTITIONS, lanes=1), log=log) as here:
        await sample(here, 20, 10, _PARTITIONS, 1.0)
        before = await here.read()
        alone = await sample(here, 1, 5 * rows, 1, 1.0)
        scripts = ((await here.read()).scripts - before.scripts) / (5 * rows)
        samples = []
        for width in _WIDTHS:
            tried = [await sample(here, width, max(4, rows // width), _PARTITIONS, scripts) for _ in range(rounds)]
            samples.append(min(tried, key=lambda one: sum(one.cpu.values())))
        beat = await _beat(here)
    cost = {kind: fit(samples, kind) for kind in _KINDS}
    hop = max(0.0, 1 / alone.rate - sum(cost[kind].of(1) for kind in _KINDS)) / _HOPS
    return Costs(cost["orchestrator"], cost["worker"], cost["tasks"], cost["Redis"], cost["Kafka"], hop=hop, beat=beat)


async def _beat(here: Scene) -> float:
    """Seconds of Redis for a heartbeat of a worker that runs one attempt."""
    scripts, keys = Scripts(here.redis), here.partitions[0]
    before = await here.read()
    for _ in range(_BEATS):
        await scripts.beat(keys, "nobody", ["nothing"], [])
    return ((await here.read()).cpu["Redis"] - before.cpu["Redis"]) / _BEATS


async def measured(shape: Shape, log: str, *, quick: bool) -> tuple[float, float]:
    """What an installation of this shape does here: tasks a second, and processor seconds for each of them.

    Several grids side by side; the best of some runs, as what disturbs makes them only worse. What the processes use at
    rest in the same time does not count.
    """
    grids = shape.partitions
    width, rows = shape.in_flight // grids, 4 if quick else 10
    size = Size(shape.partitions, shape.lanes, shape.orchestrators, shape.workers)
    async with scene(size, log=log) as here:
        await asyncio.sleep(_BALANCED)
        await sample(here, width, 2, grids, 1.0)
        rest = await here.rest(_REST)
        resting = sum(rest.cpu.get(kind, 0.0) for kind in _KINDS) / 1e6
        found = [await sample(here, width, rows, grids, 1.0) for _ in range(_ROUNDS)]
        return max(one.rate for one in found), min(sum(one.cpu.values()) - resting / one.rate for one in found)
