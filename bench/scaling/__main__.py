"""Fits the model to one process of each kind, checks it against more of them here, and predicts larger installations.

Prints tables in Markdown; `--write` puts them into docs/performance.md. About four minutes for each log, with `--quick`
one. Figures of a machine that does other things meanwhile are worth little.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from bench import document
from bench.growth.report import markdown
from bench.scaling.calibration import calibrate, measured
from bench.scaling.model import Costs, Shape, predict

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
_NOTHING = 1e-9
HERE = tuple(
    Shape(orchestrators, workers, cores=os.cpu_count())
    for orchestrators, workers in ((1, 1), (2, 1), (1, 2), (2, 2), (3, 3))
)
"""What the model is checked against."""
THERE = (
    Shape(1, 1, partitions=64),
    Shape(2, 1, partitions=64, in_flight=2_000),
    Shape(2, 2, partitions=64, in_flight=2_000),
    Shape(2, 2, partitions=8, in_flight=2_000),
    Shape(4, 4, partitions=64, in_flight=8_000),
    Shape(4, 4, partitions=64, in_flight=1_000),
    Shape(4, 4, partitions=64, shards=3, in_flight=8_000),
    Shape(8, 8, partitions=64, shards=3, in_flight=16_000),
    Shape(8, 8, partitions=64, shards=6, in_flight=16_000),
    Shape(8, 32, partitions=64, shards=6, in_flight=16_000),
    Shape(16, 16, partitions=128, shards=12, in_flight=32_000),
)
"""What it predicts, when every process has a core of its own."""


def costs_table(costs: Costs) -> str:
    """What was fitted, in microseconds."""
    kinds = {
        "orchestrator": costs.orchestrator,
        "worker": costs.worker,
        "its processes that run tasks": costs.tasks,
        "Redis": costs.redis,
        "Kafka": costs.broker,
    }
    lines: list[tuple[str, ...]] = [("process", "µs a batch", "µs a task", "tasks/s at most, in large batches")]
    for name, cost in kinds.items():
        if cost.batch or cost.task:
            most = f"{1 / cost.task:,.0f}" if cost.task > _NOTHING else "–"
            lines.append((name, f"{cost.batch * 1e6:,.0f}", f"{cost.task * 1e6:,.0f}", most))
    return (
        f"{markdown(lines)}\n\nFrom one process to the next {costs.hop * 1e6:,.0f} µs; a heartbeat of a worker in one \
partition takes {costs.beat * 1e6:,.0f} µs of Redis."
    )


def checked(costs: Costs, log: str, *, quick: bool) -> str:
    """What was predicted and what was measured here: tasks a second, and processor time for each."""
    head = ("orchestrators", "workers", "predicted, tasks/s", "measured", "predicted, µs of a core a task", "measured")
    lines: list[tuple[str, ...]] = [head]
    for shape in HERE[:3] if quick else HERE:
        rate, cpu = asyncio.run(measured(shape, log, quick=quick))
        said = predict(costs, shape)
        numbers = (f"{said.tasks:,.0f}", f"{rate:,.0f}", f"{said.cpu * 1e6:,.0f}", f"{cpu * 1e6:,.0f}")
        lines.append((str(shape.orchestrators), str(shape.workers), *numbers))
    return markdown(lines)


def predicted(costs: Costs, shapes: Sequence[Shape]) -> str:
    """Tasks a second of installations that are not here, and which process has least room."""
    head = (
        "orchestrators",
        "workers",
        "partitions",
        "Redis masters",
        "in flight",
        "tasks/s",
        "tasks a fold",
        "busiest",
    )
    lines: list[tuple[str, ...]] = [head]
    for shape in shapes:
        said = predict(costs, shape)
        sizes = (shape.orchestrators, shape.workers, shape.partitions, shape.shards)
        busiest = sorted(said.busy.items(), key=lambda one: -one[1])[:2]
        named = ", ".join(f"{kind} {share:.0%}" for kind, share in busiest)
        lines.append((*map(str, sizes), f"{shape.in_flight:,}", f"{said.tasks:,.0f}", f"{said.batch:,.0f}", named))
    return markdown(lines)


def main() -> None:
    """Parses arguments, measures, predicts, prints, writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--log", action="append", choices=("redis", "kafka"), help="repeatable; both by default")
    parser.add_argument("--quick", action="store_true", help="fewer tasks and shapes")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    asked = parser.parse_args()
    for log in asked.log or ("redis", "kafka"):
        costs = asyncio.run(calibrate(log, quick=asked.quick))
        parts = [costs_table(costs), checked(costs, log, quick=asked.quick), predicted(costs, THERE)]
        found = "\n\n".join(parts)
        print(f"## {log}\n\n{found}\n", flush=True)
        if asked.write:
            document.write(DOCUMENT, found, f"scaling {log}")


if __name__ == "__main__":
    main()
