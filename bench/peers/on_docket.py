# /// script
# dependencies = ["pydocket>=0.27,<1"]
# ///
"""docket on Redis streams with one worker process, and `add_many` where many tasks start at once.

docket has no graphs: each step of a chain adds the next, and what joins counts in Redis who has come. The last task
tells the caller through a Redis list. The worker is set as fast as it goes here: 50 coroutines at once and a look every
2 ms (the defaults, ten and 250 ms, give 40 no-ops a second), and connections enough, without which it pauses for 5 s.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from common import at_rest, fibonacci, main, measure_all, redis_server, running
from docket import CurrentDocket, Docket, Worker
from redis.asyncio import Redis

NAME = "bench"
AT_ONCE = 50
LOOK = timedelta(milliseconds=2)
PATIENCE = 60.0
THE_DOCKET = CurrentDocket()
_URL = os.environ.get("BENCH_REDIS", "")
_redis: Redis | None = None


def redis() -> Redis:
    """One connection pool a process."""
    global _redis  # noqa: PLW0603 - tasks are module-level functions
    if _redis is None:
        _redis = Redis.from_url(_URL)
    return _redis


async def step(left: int, n: int, done: str, docket: Docket = THE_DOCKET) -> None:
    """A step of a chain: computes fib(n), unless n is 0, and adds the next step or tells that it was the last."""
    if n:
        fibonacci(n)
    if left > 1:
        await docket.add(step)(left - 1, n, done)
    else:
        await redis().rpush(done, 1)


async def first(width: int, key: str, done: str, docket: Docket = THE_DOCKET) -> None:
    """Before a fan-out: adds all of it."""
    await docket.add_many(docket.call(one)(width, key, done) for _ in range(width))


async def one(width: int, key: str, done: str, docket: Docket = THE_DOCKET) -> None:
    """One of many: who comes last adds the task after them."""
    if await redis().incr(key) == width:
        await docket.add(last)(done)


async def last(done: str) -> None:
    """After a fan-out: tells."""
    await redis().rpush(done, 1)


async def work() -> None:
    """The worker's process."""
    async with Docket(name=NAME, url=_URL) as docket:
        for task in (step, first, one, last):
            docket.register(task)
        async with Worker(docket, concurrency=AT_ONCE, minimum_check_interval=LOOK) as worker:
            await worker.run_forever()


class Caller:
    """Adds tasks and waits until they told that they are done."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self.url = url
        self.runner = runner

    def chain(self, size: int, n: int = 0) -> float:
        """Steps one after the other."""
        return self.runner.run(self._seconds("step", [(size, n)]))

    def fans(self, count: int, width: int) -> float:
        """So many fan-outs at once; those of width two are diamonds."""
        return self.runner.run(self._seconds("first", [(width, uuid.uuid4().hex) for _ in range(count)]))

    async def _seconds(self, task: str, calls: list[tuple[Any, ...]]) -> float:
        async with Docket(name=NAME, url=self.url) as docket, Redis.from_url(self.url, socket_timeout=None) as client:
            docket.register(step)
            docket.register(first)
            done = uuid.uuid4().hex
            start = time.perf_counter()
            await docket.add_many(docket.call(task)(*arguments, done) for arguments in calls)
            for _ in calls:
                if await client.blpop([done], timeout=PATIENCE) is None:
                    raise TimeoutError(f"{task} told nothing for {PATIENCE:g} s")
            return time.perf_counter() - start


@contextmanager
def worker(folder: Path) -> Iterator[tuple[Caller, int, int]]:
    """Redis and a worker that answers; who calls it, and their pids."""
    with redis_server(folder) as (port, redis_pid), asyncio.Runner() as runner:
        url = f"redis://127.0.0.1:{port}/0?max_connections=1000"
        with running([sys.executable, __file__, "work"], folder / "worker.log", {"BENCH_REDIS": url}) as process:
            caller = Caller(url, runner)
            caller.chain(1)
            yield caller, redis_pid, process.pid


def measure(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """Everything on one worker."""
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
    """Redis, a worker, the first result."""
    with worker(folder):
        print("done", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(work())
    else:
        main(measure, cold)
