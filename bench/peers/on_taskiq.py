# /// script
# dependencies = ["taskiq>=0.12,<1", "taskiq-redis>=1.1,<2"]
# ///
"""taskiq on Redis streams, the broker of its guide that acknowledges, with two worker processes, the default.

taskiq has no graphs: each step of a chain sends the next, and what joins counts in Redis who has come. The last task
tells the caller through a Redis list, so no result backend is needed, which is quicker than polling one.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import at_rest, fibonacci, main, measure_all, redis_server, running
from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker

PATIENCE = 60.0
URL = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:1/0")
broker = RedisStreamBroker(URL)


def redis() -> Redis:
    """A client on the broker's own connections."""
    return Redis(connection_pool=broker.connection_pool)


@broker.task(task_name="step")
async def step(left: int, n: int, done: str) -> None:
    """A step of a chain: computes fib(n), unless n is 0, and sends the next step or tells that it was the last."""
    if n:
        fibonacci(n)
    if left > 1:
        await step.kiq(left - 1, n, done)
    else:
        await redis().rpush(done, 1)


@broker.task(task_name="first")
async def first(width: int, key: str, done: str) -> None:
    """Before a fan-out: sends all of it."""
    await asyncio.gather(*(one.kiq(width, key, done) for _ in range(width)))


@broker.task(task_name="one")
async def one(width: int, key: str, done: str) -> None:
    """One of many: who comes last sends the task after them."""
    if await redis().incr(key) == width:
        await last.kiq(done)


@broker.task(task_name="last")
async def last(done: str) -> None:
    """After a fan-out: tells."""
    await redis().rpush(done, 1)


class Caller:
    """Sends tasks and waits until they told that they are done."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        runner.run(broker.startup())

    def chain(self, size: int, n: int = 0) -> float:
        """Steps one after the other."""
        return self.runner.run(self._seconds(step, [(size, n)]))

    def fans(self, count: int, width: int) -> float:
        """So many fan-outs at once; those of width two are diamonds."""
        return self.runner.run(self._seconds(first, [(width, uuid.uuid4().hex) for _ in range(count)]))

    async def _seconds(self, task: Any, calls: list[tuple[Any, ...]]) -> float:
        async with Redis.from_url(URL, socket_timeout=None) as client:
            done = uuid.uuid4().hex
            start = time.perf_counter()
            await asyncio.gather(*(task.kiq(*arguments, done) for arguments in calls))
            for _ in calls:
                if await client.blpop([done], timeout=PATIENCE) is None:
                    raise TimeoutError(f"{task.task_name} told nothing for {PATIENCE:g} s")
            return time.perf_counter() - start


@contextmanager
def worker(folder: Path) -> Iterator[tuple[Caller, int, int]]:
    """Redis and a worker that answers; who calls it, and their pids."""
    global URL  # noqa: PLW0603 - the port is known only now
    with redis_server(folder) as (port, redis_pid), asyncio.Runner() as runner:
        URL = f"redis://127.0.0.1:{port}/0"
        broker.connection_pool = RedisStreamBroker(URL).connection_pool
        program = [sys.executable, "-m", "taskiq", "worker", "on_taskiq:broker"]
        command = [*program, "--workers", "2", "--log-level", "WARNING"]
        environment = {"BENCH_REDIS": URL, "PYTHONPATH": str(Path(__file__).parent)}
        with running(command, folder / "worker.log", environment) as process:
            caller = Caller(runner)
            caller.chain(1)
            yield caller, redis_pid, process.pid
            runner.run(broker.shutdown())


def measure(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """Everything on one pair of workers."""
    with worker(folder) as (caller, *pids):

        def memory(size: int) -> float:
            caller.chain(size)
            return at_rest(*pids)

        workloads = {
            "memory": memory,
            "chain": caller.chain,
            "fan-out": lambda n: caller.fans(1, n),
            "diamonds": lambda n: caller.fans(n, 2),
            "fib10": lambda n: caller.chain(n, 10),
            "fib33": lambda n: caller.chain(n, 33),
        }
        return measure_all(workloads, sizes)


def cold(folder: Path) -> None:
    """Redis, workers, the first result."""
    with worker(folder):
        print("done", flush=True)


if __name__ == "__main__":
    sys.modules["on_taskiq"] = sys.modules["__main__"]
    main(measure, cold)
