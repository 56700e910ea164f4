# /// script
# dependencies = ["celery[redis]>=5.6,<6"]
# ///
"""Celery on Redis, broker and result backend, with a prefork pool of two, as its guide has it.

Chains, groups and chords of immutable signatures. A diamond is a chain of a task, a group and a task, which makes it a
chord. `BENCH_ACKS_LATE=1` acknowledges a task after it ran, with a prefetch of one and tasks of a lost worker given
back, which is as close as it comes to losing nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, chain, group
from common import at_rest, fibonacci, main, measure_all, redis_server, running

LATE = os.environ.get("BENCH_ACKS_LATE") == "1"
URL = os.environ.get("BENCH_REDIS", "")

app = Celery("on_celery", broker=URL, backend=URL)
if LATE:
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)


@app.task
def noop() -> None:
    """Does nothing."""


@app.task
def fib(n: int) -> int:
    """Computes."""
    return fibonacci(n)


@contextmanager
def worker(folder: Path) -> Iterator[tuple[int, int]]:
    """Redis and a worker that answers; their pids."""
    with redis_server(folder) as (port, redis):
        url = f"redis://127.0.0.1:{port}/0"
        app.conf.update(broker_url=url, result_backend=url)
        program = [sys.executable, "-m", "celery", "-A", "on_celery", "worker"]
        command = [*program, "--concurrency", "2", "--loglevel", "WARNING"]
        environment = {"BENCH_REDIS": url, "PYTHONPATH": str(Path(__file__).parent)}
        with running(command, folder / "worker.log", environment) as process:
            noop.delay().get(timeout=60)
            yield redis, process.pid


def seconds(signature: Any) -> float:
    """From the call that sends it to its result."""
    start = time.perf_counter()
    signature.apply_async().get()
    return time.perf_counter() - start


def diamonds(count: int) -> float:
    """All sent, then all awaited."""
    start = time.perf_counter()
    one = chain(noop.si(), group(noop.si(), noop.si()), noop.si())
    for result in [one.apply_async() for _ in range(count)]:
        result.get()
    return time.perf_counter() - start


def measure(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """Everything on one worker."""
    with worker(folder) as pids:

        def memory(size: int) -> float:
            seconds(chain(noop.si() for _ in range(size)))
            return at_rest(*pids)

        workloads = {
            "memory": memory,
            "chain": lambda n: seconds(chain(noop.si() for _ in range(n))),
            "fan-out": lambda n: seconds(chain(noop.si(), group(noop.si() for _ in range(n)), noop.si())),
            "diamonds": diamonds,
            "fib10": lambda n: seconds(chain(fib.si(10) for _ in range(n))),
            "fib33": lambda n: seconds(chain(fib.si(33) for _ in range(n))),
        }
        return measure_all(workloads, sizes)


def cold(folder: Path) -> None:
    """Redis, a worker, the first result."""
    with worker(folder):
        print("done", flush=True)


if __name__ == "__main__":
    sys.modules["on_celery"] = sys.modules["__main__"]
    main(measure, cold)
