"""A `wf dev` of one's own, for the time of one `wf run`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from wf_core.dev import processes, state
from wf_core.dev.launch import Options, launch
from wf_core.errors import SetupError, UnavailableError

START_SECONDS = 60.0
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
        options = Options(place, port=0, memory=not kept, allow=allow, tasks=(tasks,), private=True)
        process, hears = processes.start(_serve, options)
        try:
            meanwhile()
            yield PrivateServer(_await_url(process, hears, place), kept)
        finally:
            processes.stop(process)
            hears.close()


def _holder(folder: Path) -> tuple[state.Running | None, bool]:
    """Who holds the folder, and whether we may."""
    try:
        with state.held(folder):
            return None, True
    except state.AlreadyRunningError as error:
        return error.running, False
    except OSError:
        return None, False


def _serve(says: Connection, options: Options) -> None:
    # Our log goes to a file: the terminal belongs to the tree.
    log = os.open(options.folder / "dev.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        code = launch(options, announce=says.send)
    except KeyboardInterrupt:
        code = 0
    except Exception as error:  # noqa: BLE001 - one of ours becomes an exit code, any other is raised again
        from wf_core.cli.failures import report

        code = report(error)
    sys.exit(code)


def _await_url(process: BaseProcess, hears: Connection, folder: Path) -> str:
    """Waits until it says where it listens. Raises SetupError or UnavailableError with its last words."""
    heard = hears.poll(START_SECONDS)
    with contextlib.suppress(EOFError):
        if heard:
            url: str = hears.recv()
            return url
    log = folder / "dev.log"
    words = "\n".join(log.read_text(errors="replace").strip().splitlines()[-LAST_WORDS:])
    if not heard:
        raise UnavailableError(f"`wf dev` was not ready after {START_SECONDS:g} s; its log is {log}\n{words}")
    process.join()
    error = SetupError if process.exitcode == 2 else UnavailableError  # noqa: PLR2004 - exit code of a wrong setup
    raise error(words or f"`wf dev` ended with {process.exitcode} before it was ready")
