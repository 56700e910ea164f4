"""What takes its turn in a round: this engine on a log, and each peer in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.ours import Installation, engine, measure
from bench.peers.common import die_with_parent
from bench.rows import Row, Samples
from bench.workloads import Timing

_ONE = {"name": "one", "nodes": {"a": {"task": "core.noop"}}}
_COLD_STARTS = 3
"""Of this engine in each round; of a peer one, for some take many seconds."""
_LONGEST = 240.0
_STOP_SECONDS = 1.0


class System(Protocol):
    """Something that is measured."""

    @property
    def name(self) -> str:
        """Its column in the table."""

    def round(self, rows: Sequence[Row]) -> dict[str, Samples]:
        """Starts, measures each row once or several times, and stops; samples by key."""


@dataclass(frozen=True)
class Ours:
    """This engine on one log."""

    name: str
    installation: Installation

    def round(self, rows: Sequence[Row]) -> dict[str, Samples]:
        """Runs what was asked for on a fresh set of processes; the cold start brings servers of its own."""
        found: dict[str, Samples] = {}
        if any(row.ours for row in rows):
            with engine(self.installation) as running:
                found |= measure(running, rows)
        if self.name == "redis" and any(row.key == "cold" for row in rows):
            found["cold"] = _cold(
                lambda folder: [*_WF, "run", "-o", "json", str(_document(folder))], {"WF_SERVER": ""}, _COLD_STARTS
            )
        return found


_WF = (sys.executable, "-m", "wf_core.cli")


def _document(folder: Path) -> Path:
    document = folder / "one.json"
    document.write_text(json.dumps(_ONE), encoding="utf-8")
    return document


@dataclass(frozen=True)
class Peer:
    """Another engine: its script, and the interpreter that has its packages."""

    name: str
    python: Path
    script: Path
    environment: Mapping[str, str]
    version: str = ""
    without: Sequence[str] = ()
    """Workloads that are not asked of it."""

    def round(self, rows: Sequence[Row]) -> dict[str, Samples]:
        """Runs the peer's script, which starts what the peer needs."""
        asked = {row.key: row.size for row in rows if not row.ours_only and row.key not in self.without}
        sizes = {key: size for key, size in asked.items() if key != "cold"}
        found = figures_of_peer(self._ask("measure", json.dumps(sizes))) if sizes else {}
        if "cold" in asked:  # the measurements, or an earlier round, filled the file cache
            found["cold"] = _cold(lambda _folder: self._command("cold"), self.environment, 1)
        return found

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.python), str(self.script), *arguments]

    def _ask(self, *arguments: str) -> Any:
        with _session(self._command(*arguments), self.environment) as process:
            printed, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(last_words(errors, f"exit code {process.returncode}"))
        return json.loads(printed.splitlines()[-1])


@contextlib.contextmanager
def _session(
    command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes; at the end of the `with`, or after some minutes, it ends with all that it started."""
    with subprocess.Popen(  # noqa: S603 - our own command line or a peer's script
        list(command),
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
    ) as process:
        watchdog = threading.Timer(_LONGEST, _kill, (process.pid,))
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
            _kill(process.pid)


def _kill(session: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


def figures_of_peer(printed: Mapping[str, Any]) -> dict[str, Samples]:
    """Samples from what a peer's script printed: its seconds count from the call that starts the work."""
    return {
        key: Samples(0, failed=entry["failed"])
        if "failed" in entry
        else Samples(entry["size"], [Timing(value, value) for value in entry["values"]], note=entry["note"])
        for key, entry in printed.items()
    }


def last_words(text: str, otherwise: str) -> str:
    """The last line of what a process said."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else otherwise


def _cold(command: Callable[[Path], list[str]], environment: Mapping[str, str], count: int) -> Samples:
    """So many cold starts, each in an empty folder."""
    timings: list[Timing] = []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                seconds = _first_line(command(Path(folder)), environment, Path(folder))
            except RuntimeError as error:
                return Samples(1, failed=str(error))
            timings.append(Timing(seconds, seconds))
    return Samples(1, timings)


def _first_line(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> float:
    """Seconds until a command prints its first line. Raises RuntimeError if it prints none."""
    start = time.perf_counter()
    with _session(command, environment, folder) as process:
        assert process.stdout is not None  # noqa: S101 - they were opened as pipes
        assert process.stderr is not None  # noqa: S101
        first = process.stdout.readline()
        seconds = time.perf_counter() - start
        if not first:
            raise RuntimeError(last_words(process.stderr.read(), f"exit code {process.wait()}"))
    return seconds
