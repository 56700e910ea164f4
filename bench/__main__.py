"""Runs each workload on both logs in turn, several rounds, and prints medians and the ratio between the logs."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from wf_testservers.cluster import Cluster
from wf_testservers.engine import servers

from bench import workloads

WORKLOADS: dict[str, tuple[Callable[[httpx.AsyncClient], Awaitable[float]], str]] = {
    f"chain of {workloads.CHAIN}": (workloads.chain_step_ms, "ms a step"),
    f"fan-out of {workloads.FAN_OUT:,}": (workloads.fan_out_tasks_per_second, "tasks/s"),
    f"{workloads.DIAMONDS} diamonds": (workloads.diamonds_per_second, "workflows/s"),
}


async def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Figures by workload and log; the logs take turns, so that both meet the same moods of the machine."""
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as environments:
        clusters: dict[str, Cluster] = {}
        try:
            for log, environment in environments.items():
                directory = Path(folder) / f"engine-{log}"
                directory.mkdir()
                clusters[log] = cluster = Cluster(environment, directory)
                cluster.start("api")
                cluster.start("orchestrator")
                cluster.start("worker", "--slots", "64")
                await cluster.ready(workers=1)
            for n in range(rounds + 1):
                for name, (workload, _) in WORKLOADS.items():
                    for log, cluster in clusters.items():
                        async with httpx.AsyncClient(base_url=cluster.url, timeout=60) as client:
                            figure = await workload(client)
                        if n:  # the first round warms up
                            figures[name][log].append(figure)
        finally:
            for cluster in clusters.values():
                cluster.stop()
    return figures


def main() -> None:
    """Parses arguments, measures, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    figures = asyncio.run(measure(parser.parse_args().rounds))
    print(f"{'workload':<20} {'unit':<12} {'log':<6} {'median':>9} {'min':>9} {'max':>9}  against redis")
    for name, by_log in figures.items():
        base = statistics.median(by_log["redis"])
        for log, values in by_log.items():
            middle = statistics.median(values)
            print(
                f"{name:<20} {WORKLOADS[name][1]:<12} {log:<6} {middle:>9.2f} {min(values):>9.2f} {max(values):>9.2f}"
                f"  {middle / base:.2f}"
            )


if __name__ == "__main__":
    main()
