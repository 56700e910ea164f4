# /// script
# dependencies = ["dagster>=1.11,<2"]
# ///
"""Dagster, jobs of ops executed in one process on a temporary instance, which is the quickest way it has.

A job of many ops is built before its clock starts. Diamonds run one after the other, for a process executes one job at
a time. Nothing runs at rest, so memory is that of the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import at_rest, fibonacci, main, measure_all
from dagster import DagsterInstance, DependencyDefinition, GraphDefinition, In, MultiDependencyDefinition, Nothing, op

MOST = {"fan-out": 100, "diamonds": 5}
"""Sizes that take seconds and not minutes."""


@op(ins={"after": In(Nothing)})
def noop() -> None:
    """Does nothing."""


@op(ins={"after": In(Nothing)})
def fib10() -> None:
    """Computes."""
    fibonacci(10)


@op(ins={"after": In(Nothing)})
def fib33() -> None:
    """Computes."""
    fibonacci(33)


def job(edges: dict[str, list[str]], what: Any = noop) -> Any:
    """A job whose ops, all of the same kind, each wait for those that are named."""
    from dagster import NodeInvocation

    dependencies = {
        NodeInvocation(what.name, alias=name): {
            "after": MultiDependencyDefinition([DependencyDefinition(up) for up in ups])
        }
        if ups
        else {}
        for name, ups in edges.items()
    }
    return GraphDefinition("bench", node_defs=[what], dependencies=dependencies).to_job()


def chain(size: int) -> dict[str, list[str]]:
    """One after the other."""
    return {f"n{n}": [f"n{n - 1}"] if n else [] for n in range(size)}


def fan(width: int) -> dict[str, list[str]]:
    """One, many, one; with width two a diamond."""
    names = [f"n{n}" for n in range(width)]
    return {"first": [], **{name: ["first"] for name in names}, "last": names}


@contextmanager
def instance(folder: Path) -> Iterator[DagsterInstance]:
    """An instance with its database in `folder`."""
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    with DagsterInstance.local_temp(str(folder)) as found:
        yield found


def measure(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """Everything in this process."""
    with instance(folder) as dagster:

        def seconds(built: Any, times: int = 1) -> float:
            start = time.perf_counter()
            for _ in range(times):
                built.execute_in_process(instance=dagster)
            return time.perf_counter() - start

        def memory(size: int) -> float:
            seconds(job(chain(size)))
            return at_rest(os.getpid())

        workloads = {
            "memory": memory,
            "chain": lambda n: seconds(job(chain(n))),
            "fan-out": lambda n: seconds(job(fan(n))),
            "diamonds": lambda n: seconds(job(fan(2)), n),
            "fib10": lambda n: seconds(job(chain(n), fib10)),
            "fib33": lambda n: seconds(job(chain(n), fib33)),
        }
        return measure_all(workloads, sizes, MOST)


def cold(folder: Path) -> None:
    """An instance, the process, the first job."""
    with instance(folder) as dagster:
        job(chain(1)).execute_in_process(instance=dagster)
        print("done", flush=True)


if __name__ == "__main__":
    main(measure, cold)
