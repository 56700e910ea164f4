"""Tasks that log, print, report progress, and fail in all ways."""
# ruff: noqa: T201 - printing is what they are for

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

from wf_core import Fatal, RetryAfter, TaskContext, task

log = logging.getLogger("shop")


class RefusedError(Fatal):
    """A subclass of Fatal."""


class BusyError(RetryAfter):
    """A subclass of RetryAfter with a constructor of its own."""

    def __init__(self, shop: str) -> None:
        super().__init__(2.5, f"{shop} is busy")


class BareError(RetryAfter):
    """A subclass of RetryAfter that sets no seconds."""

    def __init__(self) -> None:
        Exception.__init__(self, "bare")


def speak(ctx: TaskContext, lines: int) -> None:
    """Logs in each way, from a thread that the task starts too, and prints."""
    for number in range(lines):
        ctx.log.info("step", number=number, ok=True)
    log.warning("by logging, %s", "with arguments")
    print("printed")
    print("printed to stderr", file=sys.stderr)
    thread = threading.Thread(target=ctx.log.info, args=("from a thread",))
    thread.start()
    thread.join()
    try:
        raise LookupError("inner")  # noqa: TRY301 - it needs a traceback
    except LookupError:
        log.exception("caught")


@task("t.speak")
async def speak_async(ctx: TaskContext, lines: int = 3, ok: bool = False) -> None:
    """Speaks, and fails unless `ok`."""
    speak(ctx, lines)
    if not ok:
        raise ValueError("spoke")


@task("t.speak.thread")
def speak_in_thread(ctx: TaskContext, lines: int = 3) -> None:
    """Speaks in a thread, and fails."""
    speak(ctx, lines)
    raise ValueError("spoke")


@task("t.speak.process", executor="process")
def speak_in_process(ctx: TaskContext, lines: int = 3, flood: int = 0) -> None:
    """Speaks in a process, and fails; `flood` prints so many more lines at the end."""
    speak(ctx, lines)
    for number in range(flood):
        print(f"line {number}: äöü \ud83d", file=sys.stderr)
    raise ValueError("spoke")


@task("t.speak.hang", executor="process")
def hang(text: str, file: str) -> None:
    """Prints, writes a file and hangs."""
    print(text)
    Path(file).write_text("x")
    time.sleep(60)


@task("t.speak.hang.thread")
def hang_in_thread(text: str, ctx: TaskContext) -> None:
    """Logs and waits until it is cancelled."""
    ctx.log.info(text)
    while not ctx.cancelled:
        time.sleep(0.02)


@task("t.chain")
async def chain(length: int = 2, suppressed: bool = False) -> None:
    """Fails with a chain of errors behind it."""
    error: Exception = KeyError("first")
    for number in range(length):
        try:
            try:
                raise error  # noqa: TRY301 - it needs a context
            except Exception as cause:
                if suppressed:
                    raise RuntimeError(f"link {number}") from None
                raise RuntimeError(f"link {number}") from cause
        except RuntimeError as wrapped:
            error = wrapped
    try:
        raise error
    except RuntimeError:
        raise ValueError("last")  # noqa: B904 - a context, not a cause


async def beat_async(ctx: TaskContext, beats: int, pause: float, then: float) -> str:
    """Beats so many times, and is silent after that."""
    for number in range(beats):
        ctx.heartbeat({"done": number + 1, "of": beats})
        await asyncio.sleep(pause)
    await asyncio.sleep(then)
    return "done"


def beat(ctx: TaskContext, beats: int, pause: float, then: float) -> str:
    """The same, blocking; looks whether it is cancelled."""
    for number in range(beats):
        ctx.heartbeat({"done": number + 1, "of": beats})
        time.sleep(pause)
    until = time.monotonic() + then
    while time.monotonic() < until and not ctx.cancelled:
        time.sleep(0.01)
    return "done"


@task("t.beat.async")
async def beats(ctx: TaskContext, beats: int = 0, pause: float = 0.1, then: float = 0.0) -> str:
    """Beats on the loop."""
    return await beat_async(ctx, beats, pause, then)


@task("t.beat.thread")
def beats_in_thread(ctx: TaskContext, beats: int = 0, pause: float = 0.1, then: float = 0.0) -> str:
    """Beats in a thread."""
    return beat(ctx, beats, pause, then)


@task("t.beat.process", executor="process")
def beats_in_process(ctx: TaskContext, beats: int = 0, pause: float = 0.1, then: float = 0.0) -> str:
    """Beats in a process."""
    return beat(ctx, beats, pause, then)


@task("t.progress")
async def progress(ctx: TaskContext, value: Any = None, size: int = 0) -> None:
    """Gives one progress: `value`, a text of `size`, or what is no JSON."""
    ctx.heartbeat(object() if value == "object" else "x" * size if size else value)


@task("t.asks")
async def asks(kind: str) -> None:
    """Raises what the name says."""
    raise ERRORS[kind]


@task("t.asks.thread")
def asks_in_thread(kind: str) -> None:
    """The same in a thread."""
    raise ERRORS[kind]


@task("t.asks.process", executor="process")
def asks_in_process(kind: str) -> None:
    """The same in a process."""
    raise ERRORS[kind]


ERRORS: dict[str, Exception] = {
    "fatal": Fatal("no use"),
    "fatal subclass": RefusedError("refused"),
    "after": RetryAfter(1.5),
    "after subclass": BusyError("the shop"),
    "after bare": BareError(),
    "after negative": RetryAfter(-3),
    "after zero": RetryAfter(0),
    "after nan": RetryAfter(float("nan")),
    "after endless": RetryAfter(float("inf")),
    "after ages": RetryAfter(1e30),
    "after text": RetryAfter("soon"),  # type: ignore[arg-type]
}


@task("t.kill.self", executor="process")
def kill_self(number: int) -> None:
    """Ends its process by a signal."""
    import os

    print("last words", flush=True)
    time.sleep(0.2)
    os.kill(os.getpid(), number)
