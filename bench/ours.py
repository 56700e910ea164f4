"""This engine on one log, started for a round of measurements and stopped after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wf_testservers.cluster import Cluster

from bench.peers.common import UNWARMED, measured
from bench.rows import Row, Samples, Workload, failure
from bench.workloads import QUEUES, Engine, Timing

SLOTS = 64
_READY_SECONDS = 90.0
TASKS = str(Path(__file__).parent / "tasks")


@dataclass(frozen=True)
class Installation:
    """Variables of an installation on one log, whose servers run already, and where its processes' logs go.

    `redis` and `jvm` are the pids of its Redis and, if one was started for it, of its Kafka.
    """

    environment: Mapping[str, str]
    directory: Path
    redis: int
    jvm: int | None = None


@contextmanager
def engine(installation: Installation, workers: int = 1, **more: str) -> Iterator[Engine]:
    """An API, an orchestrator and so many workers, ready; `more` are variables that replace the installation's."""
    directory = installation.directory
    directory.mkdir(parents=True, exist_ok=True)
    variables = {**installation.environment, "APP_WORKER_TASK_PATHS": TASKS, "APP_LOG_LEVEL": "WARNING", **more}
    with Cluster(variables, directory) as cluster:
        cluster.start("api")
        cluster.start("orchestrator")
        for _ in range(workers):
            cluster.start("worker", "--slots", str(SLOTS), "--queues", ",".join(QUEUES))
        asyncio.run(cluster.ready(workers=workers, seconds=_READY_SECONDS))
        yield Engine(cluster, installation.redis, installation.jvm)


def measure(running: Engine, rows: Sequence[Row]) -> dict[str, Samples]:
    """Samples by key of the rows that this engine has a workload for."""
    found: dict[str, Samples] = {}
    with asyncio.Runner() as runner:
        for row in sorted(rows, key=lambda row: row.key != "memory"):  # what came before it would not be rest
            if row.ours is None or row.key in found:
                continue
            run = partial(_run, runner, row.ours, running)
            try:
                found[row.key] = Samples(row.size, measured(run, row.size, warm=row.key not in UNWARMED))
            except Exception as error:  # noqa: BLE001 - the table says what failed, the other workloads go on
                found[row.key] = failure(row, error)
    return found


def _run(runner: asyncio.Runner, workload: Workload, running: Engine, size: int) -> Timing:
    return runner.run(workload(running, size))
