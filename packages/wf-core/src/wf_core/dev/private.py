"""A `wf dev` of one's own, for the time of one `wf run`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wf_core.dev import state
from wf_core.dev.redis_server import die_with_parent
from wf_core.errors import SetupError, UnavailableError

START_SECONDS = 60.0
STOP_SECONDS = 20.0
LAST_WORDS = 10


@dataclass(frozen=True, slots=True)
class PrivateServer:
    """Where it listens. `kept`: what it did can be looked at later with `wf dev`; `ours`: it ends with us."""

    url: str
    kept: bool
    ours: bool = True


@contextlib.contextmanager
def private_server(folder: Path, allow: str, tasks: Path, *, meanwhile: Callable[[], None]) -> Iterator[PrivateServer]:
    """Starts a quiet `wf dev` with its state in `folder` and the task files in `tasks`, besides ./tasks.

    `meanwhile` is called while it starts, which takes longer than anything that the caller has to prepare.
    While a `wf run` holds `folder`, the state lies in a temporary one; a `wf dev` that was just starting there is used.
    """
    holder, kept = _holder(folder)
    if holder is not None and not holder.private:
        yield PrivateServer(holder.url, kept=True, ours=False)
        return
    with contextlib.ExitStack() as stack:
        place = folder if kept else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wf-")))
        process = _start(place, allow, tasks, memory=not kept)
        try:
            meanwhile()
            yield PrivateServer(_await_url(process, place), kept)
        finally:
            _stop(process)


def _holder(folder: Path) -> tuple[state.Running | None, bool]:
    """Who holds the folder, and whether we may."""
    try:
        with state.held(folder):
            return None, True
    except state.AlreadyRunningError as error:
        return error.running, False
    except OSError:
        return None, False


def _start(folder: Path, allow: str, tasks: Path, *, memory: bool) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "wf_core.cli", "dev", "--private", "--port", "0", "--state", str(folder)]
    arguments += ["--tasks", str(tasks)]
    arguments += ["--memory"] if memory else []
    arguments += ["--allow", allow] if allow else []
    # Its log goes to a file: the terminal belongs to the tree.
    with (folder / "dev.log").open("w") as log:
        return subprocess.Popen(  # noqa: S603 - this very program
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # Ctrl-C is for us alone; we stop it when we have said how to go on.
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - no thread runs yet
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def _await_url(process: subprocess.Popen[str], folder: Path) -> str:
    """Waits for the line that says where it listens. Raises SetupError or UnavailableError with its last words."""
    assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if readable else ""
    if line:
        url: str = json.loads(line)["url"]
        return url
    log = folder / "dev.log"
    words = "\n".join(log.read_text(errors="replace").strip().splitlines()[-LAST_WORDS:])
    if not readable:
        raise UnavailableError(f"`wf dev` was not ready after {START_SECONDS:g} s; its log is {log}\n{words}")
    process.wait()
    error = SetupError if process.returncode == 2 else UnavailableError  # noqa: PLR2004 - exit code of a wrong setup
    raise error(words or f"`wf dev` ended with {process.returncode} before it was ready")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
