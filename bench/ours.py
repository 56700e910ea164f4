"""This engine on one log, started for a round of measurements and stopped after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from wf_testservers.cluster import Cluster

from bench.peers.common import UNWARMED, measured
from bench.rows import Row, Samples
from bench.workloads import QUEUES, Engine

SLOTS = 64
TASKS = str(Path(__file__).parent / "tasks")


@contextmanager
def engine(environment: Mapping[str, str], directory: Path, redis: int, workers: int = 1) -> Iterator[Engine]:
    """An API, an orchestrator and so many workers, ready; logs go to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    variables = {**environment, "APP_WORKER_TASK_PATHS": TASKS, "APP_LOG_LEVEL": "WARNING"}
    with Cluster(variables, directory) as cluster:
        cluster.start("api")
        cluster.start("orchestrator")
        for _ in range(workers):
            cluster.start("worker", "--slots", str(SLOTS), "--queues", ",".join(QUEUES))
        asyncio.run(cluster.ready(workers=workers))
        yield Engine(cluster, redis)


def measure(running: Engine, rows: Sequence[Row]) -> dict[str, Samples]:
    """Samples by key of the rows that this engine has a workload for."""
    found: dict[str, Samples] = {}
    with asyncio.Runner() as runner:
        for row in rows:
            if row.ours is None or row.key in found:
                continue
            workload = row.ours
            try:
                timings = measured(
                    lambda n, w=workload: runner.run(w(running, n)), row.size, warm=row.key not in UNWARMED
                )
                found[row.key] = Samples(row.size, timings)
            except Exception as error:  # noqa: BLE001 - the table says what failed, the other workloads go on
                found[row.key] = Samples(row.size, failed=f"{type(error).__name__}: {error}"[:300])
    return found
