"""What takes its turn in a round: this engine on a log, and each peer in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.ours import engine, measure
from bench.rows import Row, Samples
from bench.workloads import Timing

_ONE = {"name": "one", "nodes": {"a": {"task": "core.noop"}}}
_COLD_STARTS = 3
_LONGEST = 300.0


class System(Protocol):
    """Something that is measured."""

    name: str

    def round(self, rows: Sequence[Row]) -> dict[str, Samples]:
        """Starts, measures each row once or several times, and stops; samples by key."""


@dataclass(frozen=True)
class Ours:
    """This engine on one log, whose servers run already; `redis` is the pid of its Redis."""

    name: str
    environment: Mapping[str, str]
    directory: Path
    redis: int

    def round(self, rows: Sequence[Row]) -> dict[str, Samples]:
        """Runs what was asked for on a fresh set of processes; the cold start brings servers of its own."""
        found: dict[str, Samples] = {}
        if any(row.ours for row in rows):
            with engine(self.environment, self.directory, self.redis) as running:
                found |= measure(running, rows)
        if self.name == "redis" and any(row.key == "cold" for row in rows):
            found["cold"] = _cold(lambda folder: [*_WF, "run", "-o", "json", str(_document(folder))])
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

    def round(self, rows: Sequence[Row]) -> dict[str, Samples]:
        """Runs the peer's script, which starts what the peer needs."""
        sizes = {row.key: row.size for row in rows if row.key != "cold"}
        found = figures_of_peer(self._ask("measure", json.dumps(sizes))) if sizes else {}
        if any(row.key == "cold" for row in rows):
            found["cold"] = _cold(lambda _folder: self._command("cold"), self.environment)
        return found

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.python), str(self.script), *arguments]

    def _ask(self, *arguments: str) -> Any:
        done = subprocess.run(  # noqa: S603 - a script of this folder
            self._command(*arguments),
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            timeout=_LONGEST,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(last_words(done.stderr, f"exit code {done.returncode}"))
        return json.loads(done.stdout.splitlines()[-1])


def figures_of_peer(printed: Mapping[str, Any]) -> dict[str, Samples]:
    """Samples from what a peer's script printed: its seconds count from the call that starts the work."""
    return {
        key: Samples(0, failed=entry["failed"])
        if "failed" in entry
        else Samples(entry["size"], [Timing(value, value) for value in entry["values"]])
        for key, entry in printed.items()
    }


def last_words(text: str, otherwise: str) -> str:
    """The last line of what a process said."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else otherwise


def _cold(command: Callable[[Path], list[str]], environment: Mapping[str, str] | None = None) -> Samples:
    """Several cold starts, each in an empty folder, after one that fills the file cache."""
    timings: list[Timing] = []
    for _ in range(_COLD_STARTS + 1):
        with tempfile.TemporaryDirectory() as folder:
            try:
                timings.append(_first_line(command(Path(folder)), environment or {}, Path(folder)))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                return Samples(1, failed=str(error))
    return Samples(1, timings[1:])


def _first_line(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Timing:
    """Seconds until a command prints its first line, and until it has left. Raises RuntimeError when it fails."""
    start = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own command line or a peer's script
        list(command),
        cwd=folder,
        env={**os.environ, "WF_SERVER": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        first = process.stdout.readline()
        seconds = time.perf_counter() - start
        _, errors = process.communicate(timeout=_LONGEST)
    if process.returncode or not first:
        raise RuntimeError(last_words(errors, f"exit code {process.returncode}"))
    return Timing(seconds, time.perf_counter() - start)
