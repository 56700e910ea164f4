"""Tasks that the worker's tests run."""
# ruff: noqa: ASYNC230, ASYNC240, T201 - they touch tiny files, and some print

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from wf_core import Fatal, RetryAfter, TaskContext, task


class Order(BaseModel):
    """What `t.total` takes."""

    price: float
    count: int = 1


class OddError(ValueError):
    """What `t.raise` raises."""


@task("t.total")
async def total(order: Order) -> float:
    """Price times count."""
    return order.price * order.count


@task("t.echo")
async def echo(value: Any = None) -> Any:
    """Gives back what it got."""
    print("printed by a task")
    return value


@task("t.note")
async def note(file: str, ctx: TaskContext) -> str:
    """Appends a line to a file: one for each time it ran."""
    with Path(file).open("a") as out:
        out.write(f"{ctx.idempotency_key} {ctx.fence}\n")
    return ctx.idempotency_key


@task("t.thread")
def in_thread(value: Any = None) -> Any:
    """Runs in a thread of the runner."""
    return {"pid": os.getpid(), "value": value}


@task("t.process", executor="process")
def in_process(value: Any = None) -> Any:
    """Runs in a process of its own."""
    return {"pid": os.getpid(), "value": value}


@task("t.process.async", executor="process")
async def async_in_process(value: Any = None) -> Any:
    """An async function in a process of its own."""
    await asyncio.sleep(0)
    return value


@task("t.raise")
async def raising(message: str = "odd") -> None:
    """Fails."""
    raise OddError(message)


@task("t.fatal")
async def fatal() -> None:
    """Fails for good."""
    raise Fatal("no use")


@task("t.after")
async def after() -> None:
    """Asks to be tried again later."""
    raise RetryAfter(1.5)


@task("t.exit")
async def leave() -> None:
    """Calls sys.exit."""
    sys.exit(3)


@task("t.die", executor="process")
def die(code: int) -> None:
    """Ends its process."""
    os._exit(code)


@task("t.long.note")
async def long_note(file: str, seconds: float) -> None:
    """Appends a line to a file, one for each time it ran, and sleeps on."""
    with Path(file).open("a") as out:
        out.write("ran\n")
    await asyncio.sleep(seconds)


@task("t.sleep")
async def sleep(file: str, seconds: float = 30.0) -> str:
    """Sleeps on the loop, having written its pid to a file."""
    Path(file).write_text(str(os.getpid()))
    await asyncio.sleep(seconds)
    return "slept"


@task("t.stubborn")
async def stubborn(file: str) -> None:
    """Ignores its cancellation."""
    Path(file).write_text(str(os.getpid()))
    while True:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            continue


@task("t.block")
async def block(file: str, seconds: float = 30.0) -> str:
    """Blocks the loop of the runner."""
    Path(file).write_text(str(os.getpid()))
    time.sleep(seconds)  # noqa: ASYNC251 - that is the point
    return "blocked"


@task("t.thread.wait")
def wait_in_thread(file: str, ctx: TaskContext, seconds: float = 30.0) -> str:
    """Waits in a thread until it is cancelled."""
    Path(file).write_text(str(os.getpid()))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if ctx.cancelled:
            Path(file).write_text("cancelled")
            return "stopped"
        time.sleep(0.02)
    return "waited"


@task("t.process.wait", executor="process")
def wait_in_process(file: str, deaf: bool = False, child: bool = False) -> str:
    """Waits in a process; `deaf` ignores SIGTERM, `child` starts another process first."""
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pids = [os.getpid()]
    if child:
        pids.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid)
    Path(file).write_text(" ".join(map(str, pids)))
    time.sleep(60)
    return "waited"


@task("t.big")
async def big(size: int) -> str:
    """A long output."""
    return "x" * size


@task("t.nan")
async def nan() -> float:
    """An output that is no JSON."""
    return float("nan")


@task("t.timed", timeout="200ms")
async def timed() -> None:
    """Takes longer than its own timeout."""
    await asyncio.sleep(30)


@task("t.guarded", needs_permission=True)
async def guarded() -> str:
    """Runs only where it is allowed."""
    return "allowed"


def _around() -> dict[str, Any]:
    """What a task's process is like."""
    files = [str(file.resolve()) for file in Path("/proc/self/fd").iterdir() if int(file.name) > 2]
    sys.__stdout__.write("said by a task\n")
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "stdin": os.path.realpath("/proc/self/fd/0"),
        "files": files,
        "path": sys.path,
        "threshold": gc.get_threshold(),
        "usual": [700, 10, 10] if sys.version_info < (3, 13) else list(gc.get_threshold()),
        "main": sys.modules["__main__"].__name__,
        "random": random.random(),
    }


@task("t.around")
async def around() -> dict[str, Any]:
    """On the loop."""
    return _around()


@task("t.around.thread")
def around_in_thread() -> dict[str, Any]:
    """In a thread."""
    return _around()


@task("t.around.process", executor="process")
def around_in_process() -> dict[str, Any]:
    """In a process."""
    return _around()
