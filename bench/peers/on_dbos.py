# /// script
# dependencies = ["dbos[aiosqlite]>=2,<4"]
# ///
"""DBOS in one process, on Postgres as its guide recommends.

Where Postgres is not installed it is on SQLite, its default, which is several times slower here; so is the cold start,
which needs no server then. A chain is a workflow whose steps are awaited one after the other; a fan-out gathers
coroutine steps that were started in order, as its guide allows. Diamonds are workflows started in the background, all
at once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import accepts, at_rest, fibonacci, free_port, main, measure_all, running, until
from dbos import DBOS


@DBOS.step()
async def noop() -> None:
    """Does nothing."""


@DBOS.step()
async def fib(n: int) -> int:
    """Computes."""
    return fibonacci(n)


@DBOS.workflow()
async def chain(size: int, n: int) -> None:
    """Steps one after the other."""
    for _ in range(size):
        await (fib(n) if n else noop())


@DBOS.workflow()
async def fan(width: int) -> None:
    """One, many, one; with width two a diamond."""
    await noop()
    await asyncio.gather(*(noop() for _ in range(width)))
    await noop()


async def together(count: int) -> None:
    """So many diamonds at once."""
    handles = await asyncio.gather(*(DBOS.start_workflow_async(fan, 2) for _ in range(count)))
    await asyncio.gather(*(handle.get_result() for handle in handles))


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """URL of a database and the pids of its server. Postgres refuses to run as root, who becomes `postgres` for it."""
    data = folder / "postgres"
    data.mkdir()
    prefix: list[str] = []
    if os.geteuid() == 0:
        folder.chmod(0o755)
        shutil.chown(data, "postgres")
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    initialize = [*prefix, "initdb", "-D", str(data), "-A", "trust", "-U", "bench"]
    subprocess.run(initialize, check=True, capture_output=True)  # noqa: S603 - Postgres' own command
    port = free_port()
    command = [*prefix, "postgres", "-D", str(data), "-p", str(port), "-k", str(data)]
    with running(command, folder / "postgres.log") as process:
        until(lambda: accepts(port), process, "Postgres")
        yield f"postgresql://bench@127.0.0.1:{port}/bench", [process.pid]


@contextmanager
def sqlite(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """URL of a database file, which no process serves."""
    yield f"sqlite:///{folder / 'dbos.sqlite'}", []


@contextmanager
def launched(url: str) -> Iterator[asyncio.Runner]:
    """The one process, on a database."""
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    with asyncio.Runner() as runner:
        yield runner
    DBOS.destroy()


def measure(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """Everything in this process."""
    database = postgres if shutil.which("initdb") else sqlite
    with database(folder) as (url, pids), launched(url) as runner:

        def seconds(work: Any) -> float:
            start = time.perf_counter()
            runner.run(work)
            return time.perf_counter() - start

        def memory(size: int) -> float:
            seconds(chain(size, 0))
            return at_rest(os.getpid(), *pids)

        workloads = {
            "memory": memory,
            "chain": lambda n: seconds(chain(n, 0)),
            "fan-out": lambda n: seconds(fan(n)),
            "diamonds": lambda n: seconds(together(n)),
            "fib10": lambda n: seconds(chain(n, 10)),
            "fib33": lambda n: seconds(chain(n, 33)),
        }
        return measure_all(workloads, sizes, note="" if pids else "on SQLite, for want of Postgres")


def cold(folder: Path) -> None:
    """The database, the process, the first workflow."""
    with sqlite(folder) as (url, _), launched(url) as runner:
        runner.run(chain(1, 0))
        print("done", flush=True)


if __name__ == "__main__":
    main(measure, cold)
