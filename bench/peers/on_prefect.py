# /// script
# dependencies = ["prefect>=3.4,<4"]
# ///
"""Prefect with a local server on SQLite, its default; flows and tasks are coroutines of one process.

A chain is a flow that awaits its tasks one after the other; fan-outs and diamonds gather them. Flow runs report to the
server, as they do for everyone; log lines are not sent to it, which is quicker.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from common import at_rest, fibonacci, free_port, main, measure_all, running, until

MOST = {"fan-out": 100, "diamonds": 10}
"""Sizes that take seconds and not minutes."""


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """A local server that answers; its pid. Sets the variables that Prefect reads when it is imported."""
    port = free_port()
    os.environ |= {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    program = [sys.executable, "-m", "prefect", "server", "start"]
    command = [*program, "--host", "127.0.0.1", "--port", str(port), "--no-ui"]

    def healthy() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/health", timeout=1) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False

    with running(command, folder / "server.log") as process:
        until(healthy, process, "Prefect's server", 120, every=0.05)
        yield process.pid


def flows() -> tuple[Any, Any]:
    """The flow that runs a chain, and the one that runs a fan-out."""
    from prefect import flow, task

    @task
    async def noop() -> None:
        """Does nothing."""

    @task
    async def fib(n: int) -> int:
        return fibonacci(n)

    @flow
    async def chain(size: int, n: int) -> None:
        for _ in range(size):
            await (fib(n) if n else noop())

    @flow
    async def fan(width: int) -> None:
        await noop()
        await asyncio.gather(*(noop() for _ in range(width)))
        await noop()

    return chain, fan


def measure(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """Everything in this process and the server's."""
    with server(folder) as pid, asyncio.Runner() as runner:
        chain, fan = flows()

        def seconds(work: Any) -> float:
            start = time.perf_counter()
            runner.run(work)
            return time.perf_counter() - start

        async def diamonds(count: int) -> None:
            await asyncio.gather(*(fan(2) for _ in range(count)))

        def memory(size: int) -> float:
            seconds(chain(size, 0))
            return at_rest(pid, os.getpid())

        workloads = {
            "memory": memory,
            "chain": lambda n: seconds(chain(n, 0)),
            "fan-out": lambda n: seconds(fan(n)),
            "diamonds": lambda n: seconds(diamonds(n)),
            "fib10": lambda n: seconds(chain(n, 10)),
            "fib33": lambda n: seconds(chain(n, 33)),
        }
        return measure_all(workloads, sizes, MOST)


def cold(folder: Path) -> None:
    """A server, this process, the first flow."""
    with server(folder), asyncio.Runner() as runner:
        chain, _ = flows()
        runner.run(chain(1, 0))
        print("done", flush=True)


if __name__ == "__main__":
    main(measure, cold)
