"""The rows of the table: what is measured, at which size, and how a figure comes out of seconds."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from bench import workloads
from bench.workloads import Engine, Timing

BARE = "bare Python"
Source = Literal["own", "request"]
Workload = Callable[[Engine, int], Coroutine[Any, Any, Timing]]


@dataclass(frozen=True)
class Unit:
    """What a figure says, and how it comes out of a size and seconds."""

    name: str
    figure: Callable[[int, float], float]
    more_is_better: bool = False


@dataclass(frozen=True)
class Row:
    """One row. `key` names the measurement, which several rows may show; `source` says from which of its times.

    `ours` is the workload for this engine; peers measure what their script has under the same key, unless the row is
    `ours_only`. `targets` are those of the redis log and of Kafka.
    """

    key: str
    title: str
    unit: Unit
    size: int
    ours: Workload | None = None
    targets: tuple[float | None, float | None] = (None, None)
    source: Source = "own"
    ours_only: bool = False


@dataclass(frozen=True)
class Samples:
    """What was measured at a size in one round, or why it was not."""

    size: int
    timings: list[Timing] = field(default_factory=list)
    failed: str = ""
    note: str = ""


def failure(row: Row, error: Exception) -> Samples:
    """What the table says of a workload that raised."""
    return Samples(row.size, failed=" ".join(f"{type(error).__name__}: {error}".split())[:160])


STEP_MS = Unit("ms a step", lambda size, seconds: seconds * 1000 / size)
TASKS = Unit("tasks/s", lambda size, seconds: (size + 2) / seconds, more_is_better=True)
"""Of a fan-out, whose first and last task count too."""
WORKFLOWS = Unit("workflows/s", lambda size, seconds: size / seconds, more_is_better=True)
EXECUTIONS = Unit("executions/s", lambda size, seconds: size / seconds, more_is_better=True)
SECONDS = Unit("s", lambda _size, seconds: seconds)
TIMES = Unit("×", lambda _size, seconds: seconds)
MIB = Unit("MiB", lambda _size, value: value)

ROWS = (
    Row("chain", "chain of 50", STEP_MS, 50, workloads.chain, (0.3, 1.0)),
    Row("chain", "chain of 50, from the request", STEP_MS, 50, source="request"),
    Row("dispatched", "chain of 50, dispatched", STEP_MS, 50, workloads.dispatched, (0.8, 2.5), ours_only=True),
    Row("fan-out", "fan-out of 1,000", TASKS, 1_000, workloads.fan_out, (10_000, 10_000)),
    Row("fan-out", "fan-out of 1,000, from the request", TASKS, 1_000, source="request"),
    Row("diamonds", "500 diamonds", WORKFLOWS, 500, workloads.diamonds, (2_000, 2_000)),
    Row("diamonds", "500 diamonds, from the request", WORKFLOWS, 500, source="request"),
    Row("singles", "500 diamonds, a request each", WORKFLOWS, 500, workloads.singles, source="request", ours_only=True),
    Row(
        "submit",
        "submit over REST, a request each",
        EXECUTIONS,
        1_000,
        workloads.submit,
        (3_000, 3_000),
        ours_only=True,
    ),
    Row(
        "batch", "submit over REST, 1,000 a request", EXECUTIONS, 5_000, workloads.batch, (3_000, 3_000), ours_only=True
    ),
    Row("fib10", "40 × fib(10) in sequence", SECONDS, 40, workloads.fib10, (0.05, 0.05)),
    Row("fib33", "10 × fib(33) in sequence", SECONDS, 10, workloads.fib33),
    Row("over-bare", "fib(33) over bare Python, in turn", TIMES, 5, workloads.over_bare, (1.02, 1.02), ours_only=True),
    Row("memory", "memory at rest, PSS", MIB, 50, workloads.memory, (120, 120)),
    Row("memory", "memory at rest with Kafka's JVM, PSS", MIB, 50, source="request"),
    Row("cold", "cold start to the first result", SECONDS, 1, targets=(0.6, None)),
)
