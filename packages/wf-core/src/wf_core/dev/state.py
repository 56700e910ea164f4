"""The folder `.wf`: who holds it, and where the `wf dev` that holds it listens.

A file lock says who holds it: the kernel takes it back however its holder ends, so a crash leaves nothing that could be
mistaken for a running server. The private redis-server inherits the lock: nobody opens its data while it still writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wf_core.errors import SetupError

LOCK = "dev.lock"
INFO = "dev.json"
DATA = "redis"
_HANDOVER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A `wf dev`. `private`: it belongs to one `wf run` and ends with it."""

    pid: int
    url: str
    private: bool
    socket: str | None
    broker: str = "redis"


class AlreadyRunningError(SetupError):
    """The caller must act: another `wf dev` holds the folder. `running` is None when it does not say where it is."""

    def __init__(self, folder: Path, running: Running | None) -> None:
        self.running = running
        where = f"at {running.url} (pid {running.pid})" if running else "and has not said where yet"
        super().__init__(f"`wf dev` is already running here, {where}; its state is in {folder}")


def running(folder: Path) -> Running | None:
    """The `wf dev` whose state is in `folder`, None when there is none."""
    try:
        info = Running(**json.loads((folder / INFO).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    try:
        os.kill(info.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # somebody else's process: it lives
    return info


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Holds `folder` (created if need be) and yields the lock's descriptor. Raises AlreadyRunningError."""
    folder.mkdir(parents=True, exist_ok=True)
    _keep_out_of_git(folder)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, folder)
        try:
            (folder / INFO).unlink(missing_ok=True)
            yield descriptor
        finally:
            (folder / INFO).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    """Takes the lock; waits a moment for one that is starting to say where, or for what a killed one left to end."""
    deadline = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = running(folder)
            if holder is not None or time.monotonic() > deadline:
                raise AlreadyRunningError(folder, holder) from None
            time.sleep(0.05)
        else:
            return


def publish(folder: Path, info: Running) -> None:
    """Says where the server listens, in one step: a reader sees all of it or nothing."""
    draft = folder / (INFO + ".new")
    draft.write_text(json.dumps(asdict(info)))
    draft.replace(folder / INFO)


def reset(folder: Path) -> None:
    """Forgets every execution. Only while the folder is held."""
    shutil.rmtree(folder / DATA, ignore_errors=True)


def _keep_out_of_git(folder: Path) -> None:
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
