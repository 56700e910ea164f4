"""What every peer's script and the bench itself share; the standard library only, since peers bring their own packages.

A script is run in two ways. `SCRIPT measure '{"chain": 50, ...}'` measures the named workloads at the given sizes and
prints `{"chain": {"size": 50, "values": [seconds, ...]}, ...}` as its last line; `{"failed": "..."}` stands in place of
what could not be measured. `SCRIPT cold` starts everything that the first workflow needs and prints a line as soon as
that has completed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Figure = TypeVar("Figure")
Run = Callable[[int], float]
"""Seconds that a workload of a size took."""

MOST_RUNS = 5
ENOUGH_SECONDS = 1.0
REST_SECONDS = 1.5
"""How long a system is left alone before its memory is read."""
_SHORT = 0.05
_STOP_SECONDS = 3
_PR_SET_PDEATHSIG = 1


def fibonacci(n: int) -> int:
    """The n-th Fibonacci number, slowly: what every system computes."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)  # noqa: PLR2004 - how it is defined


def measured(run: Callable[[int], Figure], size: int, *, warm: bool = True) -> list[Figure]:
    """What `run(size)` returned, run until a second was spent, once at least and five times at most.

    Before that it warms up with a tenth of the size and, when that is quick, with all of it; what needs no warming up
    says so.
    """
    if warm:
        start = time.monotonic()
        run(max(1, size // 10))
        if time.monotonic() - start < _SHORT:
            run(size)
    figures: list[Figure] = []
    start = time.monotonic()
    while not figures or (len(figures) < MOST_RUNS and time.monotonic() - start < ENOUGH_SECONDS):
        figures.append(run(size))
    return figures


# --- processes


def start(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts a process whose output goes to `log` and which ends when this one does."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the scripts' own command lines
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread runs yet where peers are started
        )


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the time of a `with`, ended by SIGTERM, after a while by SIGKILL."""
    process = start(command, log, environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[tuple[int, int]]:
    """Port and pid of a Redis whose append-only file is written to disk every second, as in every measurement here."""
    port = free_port()
    program = os.environ.get("WF_REDIS_SERVER") or shutil.which("redis-server") or "redis-server"
    options = {"bind": "127.0.0.1", "port": port, "dir": directory, "save": "", "appendonly": "yes"}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with running([program, *words, "--appendfsync", "everysec"], directory / "redis.log") as process:
        until(lambda: accepts(port), process, "Redis")
        yield port, process.pid


def free_port() -> int:
    """A loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether something listens on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(
    holds: Callable[[], Any], process: subprocess.Popen[bytes], what: str, seconds: float = 60.0, every: float = 0.005
) -> None:
    """Waits until `holds()`, asked every so many seconds. Raises RuntimeError when the process ends, or in the end."""
    deadline = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with {process.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not ready after {seconds:g} s")
        time.sleep(every)


# --- memory


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                # The name stands in brackets and may hold anything, brackets too.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss_mib(pids: set[int]) -> float:
    """MiB that processes hold: pages that several share are split between them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def at_rest(*roots: int) -> float:
    """MiB of these processes and their descendants after a while in which nothing is asked of them."""
    time.sleep(REST_SECONDS)
    return pss_mib(set().union(*(family(pid) for pid in roots)))


# --- a script's life


def measure_all(
    workloads: Mapping[str, Run], sizes: Mapping[str, int], most: Mapping[str, int] | None = None, note: str = ""
) -> dict[str, Any]:
    """Figures of what was asked for and is known here.

    `most` bounds sizes that would take too long; `note` says what a reader of the table should know of all of them.
    """
    found: dict[str, Any] = {}
    for name, run in workloads.items():
        if name not in sizes:
            continue
        size = min(sizes[name], (most or {}).get(name, sizes[name]))
        try:
            found[name] = {"size": size, "values": measured(run, size, warm=name not in UNWARMED), "note": note}
        except Exception as error:  # noqa: BLE001 - the table names what a peer could not do
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
    return found


UNWARMED = ("memory", "fib33", "over-bare")
"""Workloads that are measured at once."""


def main(measure: Callable[[Path, dict[str, int]], dict[str, Any]], cold: Callable[[Path], None]) -> None:
    """Runs a peer's script: see the top of this module."""
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1] == "cold":
            cold(Path(folder))
        else:
            print(json.dumps(measure(Path(folder), json.loads(sys.argv[2]))), flush=True)
