"""The rows of the table: what is measured, at which size, and how a figure comes out of seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from bench import workloads
from bench.workloads import Engine, Timing

Source = Literal["own", "request"]


@dataclass(frozen=True)
class Row:
    """One row. `key` names the measurement, which several rows may show; `source` says from which of its times.

    `ours` is the workload for this engine; peers measure what their script has under the same key. `targets` are those
    of the redis log and of Kafka.
    """

    key: str
    title: str
    unit: str
    size: int
    figure: Callable[[int, float], float]
    more_is_better: bool = False
    source: Source = "own"
    ours: Callable[[Engine, int], Awaitable[Timing]] | None = None
    targets: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Samples:
    """What was measured at a size in one round, or why it was not."""

    size: int
    timings: list[Timing] = field(default_factory=list)
    failed: str = ""


def step_ms(size: int, seconds: float) -> float:
    """Milliseconds for each of so many steps."""
    return seconds * 1000 / size


def tasks_per_second(size: int, seconds: float) -> float:
    """Tasks of a fan-out: the first and the last one count too."""
    return (size + 2) / seconds


def per_second(size: int, seconds: float) -> float:
    """So many things in a second."""
    return size / seconds


def itself(_size: int, value: float) -> float:
    """The value as it was measured."""
    return value


ROWS = (
    Row("chain", "chain of 50", "ms a step", 50, step_ms, ours=workloads.chain, targets=(0.3, 1.0)),
    Row("chain", "chain of 50, from the request", "ms a step", 50, step_ms, source="request"),
    Row(
        "dispatched",
        "chain of 50, dispatched",
        "ms a step",
        50,
        step_ms,
        ours=workloads.dispatched,
        targets=(0.8, 2.5),
    ),
    Row(
        "fan-out",
        "fan-out of 1,000",
        "tasks/s",
        1_000,
        tasks_per_second,
        more_is_better=True,
        ours=workloads.fan_out,
        targets=(10_000, 10_000),
    ),
    Row(
        "fan-out",
        "fan-out of 1,000, from the request",
        "tasks/s",
        1_000,
        tasks_per_second,
        more_is_better=True,
        source="request",
    ),
    Row(
        "diamonds",
        "500 diamonds",
        "workflows/s",
        500,
        per_second,
        more_is_better=True,
        ours=workloads.diamonds,
        targets=(2_000, 2_000),
    ),
    Row(
        "diamonds",
        "500 diamonds, from the request",
        "workflows/s",
        500,
        per_second,
        more_is_better=True,
        source="request",
    ),
    Row(
        "diamonds-single",
        "500 diamonds, a request each",
        "workflows/s",
        500,
        per_second,
        more_is_better=True,
        source="request",
        ours=workloads.diamonds_single,
    ),
    Row(
        "submit",
        "submit over REST, a request each",
        "executions/s",
        2_000,
        per_second,
        more_is_better=True,
        ours=workloads.submit,
    ),
    Row(
        "submit-batch",
        "submit over REST, 1,000 a request",
        "executions/s",
        5_000,
        per_second,
        more_is_better=True,
        ours=workloads.submit_batch,
        targets=(3_000, 3_000),
    ),
    Row("fib10", "40 × fib(10) in sequence", "s", 40, itself, ours=workloads.fib10, targets=(0.05, 0.05)),
    Row("fib33", "10 × fib(33) in sequence", "s", 10, itself, ours=workloads.fib33),
    Row("memory", "memory at rest, PSS", "MiB", 50, itself, ours=workloads.memory, targets=(120, 120)),
    Row("cold", "cold start to the first result", "s", 1, itself, targets=(0.6, None)),
)
