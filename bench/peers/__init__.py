"""The peers: which script measures each, and how it gets an environment of its own.

A script names its packages at its top, as PEP 723 has it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"^# /// script\n(?P<lines>(?:#.*\n)+?)# ///$", re.MULTILINE)
_INSTALL_SECONDS = 900


@dataclass(frozen=True)
class PeerScript:
    """A script of this folder, by its name without `.py`, and variables that it is run with."""

    script: str
    environment: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Workloads that would only repeat what another entry shows."""
    by_default: bool = True

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(__file__).parent / f"{self.script}.py"


PEERS = {
    "bare Python": PeerScript("bare"),
    "Celery": PeerScript("on_celery"),
    "Celery, acks late": PeerScript("on_celery", {"BENCH_ACKS_LATE": "1"}, without=("fib33", "memory", "cold")),
    "docket": PeerScript("on_docket"),
    "taskiq": PeerScript("on_taskiq"),
    "DBOS": PeerScript("on_dbos"),
    "Prefect": PeerScript("on_prefect"),
    "Dagster": PeerScript("on_dagster", by_default=False),
}


class NotInstalledError(Exception):
    """A peer's packages cannot be installed; the message is the installer's last line."""


def packages(text: str) -> list[str]:
    """The requirements at the top of a script; none when it names none."""
    found = _BLOCK.search(text)
    if found is None:
        return []
    lines = (line.removeprefix("#").removeprefix(" ") for line in found["lines"].splitlines())
    return [str(name) for name in tomllib.loads("\n".join(lines))["dependencies"]]


def interpreter(peer: PeerScript, cache: Path) -> Path:
    """A Python of this version with the peer's packages, installed once into `cache`. Raises NotInstalledError."""
    wanted = packages(peer.path.read_text(encoding="utf-8"))
    if not wanted:
        return Path(sys.executable)
    place = cache / peer.script
    python, stamp = place / "bin" / "python", place / "installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != "\n".join(wanted):
        _run(sys.executable, "-m", "venv", "--clear", str(place))
        uv = shutil.which("uv")
        installer = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
        _run(*installer, "--quiet", *wanted)
        stamp.write_text("\n".join(wanted), encoding="utf-8")
    return python


def version(peer: PeerScript, python: Path) -> str:
    """The version of the first package that a peer names; none of bare Python."""
    wanted = packages(peer.path.read_text(encoding="utf-8"))
    if not wanted:
        return ""
    name = re.split(r"[^\w.-]", wanted[0])[0]
    return _run(str(python), "-c", f"import importlib.metadata as m; print(m.version({name!r}))").strip()


def _run(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter or the installer
            command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(str(error)) from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotInstalledError(lines[-1] if lines else f"{command[0]} ended with {done.returncode}")
    return done.stdout
