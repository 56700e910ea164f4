"""`PYTHONPATH=tests python -m costs`: counts every workload and prints each figure beside its budget.

`--write` sets the budgets; `--calls` prints instead which Python functions a fold calls most.
"""

# ruff: noqa: T201 - what it prints is its purpose

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
from pathlib import Path

import structlog
from redis.asyncio import Redis
from wf_testservers.redis import start_redis

from costs import budgets, folding
from costs.counting import Figures, count
from costs.workloads import WORKLOADS

_MOST_CALLED = 25


async def measure(port: int) -> dict[str, Figures]:
    """The figures of all workloads, by name."""
    found: dict[str, Figures] = {}
    async with Redis(host="127.0.0.1", port=port, protocol=2, single_connection_client=True) as redis:
        for number, workload in enumerate(WORKLOADS):
            found[workload.name] = await count(redis, f"costs{number}", port, workload)
    return found | {workload.name: folding.figures(workload) for workload in folding.FOLDS}


def _print(figures: dict[str, Figures], known: dict[str, dict[str, float]]) -> None:
    for name, found in figures.items():
        print(f"{name}, per task")
        for key, value in found.items():
            budget = known.get(name, {}).get(key)
            print(f"  {key:28}{value:12.4g}" + (f"   budget set at {budget:.4g}" if budget is not None else ""))


def _print_calls() -> None:
    for workload in folding.FOLDS:
        python, native = folding.calls(workload)
        print(
            f"{workload.name}: {python.total() / workload.tasks:.1f} calls, {native / workload.tasks:.1f} native ones"
        )
        for name, number in python.most_common(_MOST_CALLED):
            print(f"  {number / workload.tasks:8.2f}  {name}")


def main() -> None:
    """Parses arguments, counts, prints."""
    parser = argparse.ArgumentParser(prog="python -m costs", description=__doc__)
    parser.add_argument("--write", action="store_true", help="set the budgets to what is counted now")
    parser.add_argument("--calls", action="store_true", help="print the Python functions that a fold calls most")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if options.calls:
        _print_calls()
        return
    with tempfile.TemporaryDirectory() as folder, start_redis(Path(folder)) as server:
        figures = asyncio.run(measure(server.port))
    _print(figures, budgets.load() if budgets.FILE.exists() else {})
    if options.write:
        budgets.store(figures)


if __name__ == "__main__":
    main()
