"""`shell.run`: a command on the worker's host. Runs only on workers that allow it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Annotated

from pydantic import BaseModel, Field

from wf_core import task

_KILL_AFTER = 5.0


class Ran(BaseModel):
    """What a command did. The newest `max_output` bytes of each stream are kept."""

    exit_code: int
    stdout: str
    stderr: str


class CommandFailedError(Exception):
    """The command ended with an exit code that was not expected."""


@task("shell.run", needs_permission=True)
async def run(
    command: str | list[str],
    env: dict[str, str] | None = None,
    cwd: str | None = None,
    stdin: str | None = None,
    expect: list[int] | None = None,
    max_output: Annotated[int, Field(gt=0, le=2**20)] = 64 * 1024,
) -> Ran:
    """Runs `command`: a list is a program with its arguments, a text goes through `/bin/sh -c`.

    Fails on an exit code that is not in `expect` (default: 0). A timeout or a cancel ends the whole process group.
    """
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        out, err, _ = await asyncio.gather(
            _tail(process.stdout, max_output), _tail(process.stderr, max_output), _feed(process.stdin, stdin)
        )
        code = await process.wait()
    except BaseException:
        await asyncio.shield(_end(process))
        raise
    result = Ran(exit_code=code, stdout=out.decode(errors="replace"), stderr=err.decode(errors="replace"))
    if code not in (expect or [0]):
        last = (result.stderr or result.stdout).strip()[-500:]
        raise CommandFailedError(f"{argv[0] if isinstance(command, list) else command!r} exited with {code}: {last}")
    return result


async def _tail(stream: asyncio.StreamReader | None, most: int) -> bytes:
    kept = b""
    while stream is not None and (chunk := await stream.read(65_536)):
        kept = (kept + chunk)[-most:]
    return kept


async def _feed(stream: asyncio.StreamWriter | None, text: str | None) -> None:
    if stream is None or text is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the command need not read its input
        stream.write(text.encode())
        await stream.drain()
    stream.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM to the group, SIGKILL to what is left after a while."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _KILL_AFTER)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
