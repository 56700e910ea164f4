"""A server process that never outlives the one that started it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

# Runs before the server in the same process: asks Linux to kill it when its parent dies (1 is PR_SET_PDEATHSIG), and
# leaves at once when the parent was quicker. A launcher, not `preexec_fn`, because threads may run in the parent.
_LAUNCHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""

# Linux counts the thread that starts a child as its parent, so one that lives as long as this process starts them all.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="server starter")


class ServerError(RuntimeError):
    """A server did not start; the message ends with what it last said."""


class Process:
    """One server process. Output goes to `log`; it ends with the process that started it, however that one ends."""

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._arguments = list(arguments)
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises ServerError when it was never started."""
        if self._process is None:
            raise ServerError(f"{self._arguments[0]} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code (negative: the signal that ended it); None while it runs and before it was started."""
        return None if self._process is None else self._process.poll()

    @property
    def paused(self) -> bool:
        """Whether the process was stopped by SIGSTOP, by whomever."""
        return self.running and stat(self.pid)[0] == "T"

    def start(self, ready: Callable[[], bool], seconds: float = 30.0) -> None:
        """Starts and waits until `ready()`. Raises ServerError when it ends or `seconds` pass before that."""
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *self._arguments]
        self._process = _STARTER.submit(self._spawn, launch).result()
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running or time.monotonic() > deadline:
                ended = not self.running
                self.kill()
                raise ServerError(f"{self._arguments[0]} {'ended' if ended else 'is not ready'}: {self.tail()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._end(signal.SIGKILL, 30)

    def stop(self, seconds: float = 10.0) -> None:
        """SIGTERM, and SIGKILL when the process is still there after `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            self._end(signal.SIGTERM, seconds)
        self.kill()

    def terminate(self) -> None:
        """SIGTERM, without waiting for what it does."""
        if self._process is not None:
            self._process.terminate()

    def pause(self) -> None:
        """SIGSTOP, and waits until every thread stands: the process hangs, its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def children(self) -> list[int]:
        """Pids of its living child processes, and of theirs, in order."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        living = {pid: parent for pid, (state, parent) in ((pid, stat(pid)) for pid in pids) if state != "Z"}
        found: set[int] = set()
        while more := {pid for pid, parent in living.items() if parent in {self.pid, *found}} - found:
            found |= more
        return sorted(found)

    @property
    def log(self) -> Path:
        """The file that takes its output."""
        return self._log

    def tail(self, characters: int = 2000) -> str:
        """The end of the output."""
        return self._log.read_text(errors="replace")[-characters:] if self._log.exists() else ""

    def _spawn(self, launch: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                launch, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment
            )

    def _end(self, number: signal.Signals, seconds: float) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(seconds)


def free_port() -> int:
    """A free loopback port outside the range of outgoing connections, so that a restart finds it free again."""
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError("no free port on 127.0.0.1")


def answers(port: int) -> bool:
    """Whether something accepts connections on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stat(pid: int) -> tuple[str, int]:
    """State (`R`, `S`, `T`, `Z`, ...) and parent's pid of a process; `("X", 0)` when there is none. Linux only."""
    try:
        # The name stands in brackets and may hold anything, brackets too.
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return "X", 0
    return state, int(parent)
