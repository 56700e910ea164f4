"""Tasks that write down each start and each end, so that runs of an attempt are counted where they happen.

A line is `start|end time pid execution/node/attempt`, appended to the file that `WF_CHAOS_RUNS` names.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wf_core import Fatal, TaskContext, task


class OnPurposeError(Exception):
    """What an attempt raises that was told to fail."""


@task("chaos.step")
async def step(
    ctx: TaskContext,
    value: Any = None,
    seconds: float = 0.0,
    first_seconds: float = 0.0,
    fail_times: int = 0,
    fatal: bool = False,
) -> Any:
    """Sleeps, then returns `value`. Attempt 1 sleeps `first_seconds` more; the first `fail_times` attempts fail."""
    with _counted(ctx):
        await asyncio.sleep(seconds + (first_seconds if ctx.attempt == 1 else 0))
        return _end(ctx, value, fail_times, fatal=fatal)


@task("chaos.thread")
def thread(ctx: TaskContext, value: Any = None, seconds: float = 0.0) -> Any:
    """As `chaos.step`, in a thread."""
    with _counted(ctx):
        time.sleep(seconds)
        return value


@task("chaos.process", executor="process")
def process(ctx: TaskContext, value: Any = None, seconds: float = 0.0) -> Any:
    """As `chaos.step`, in a process of its own."""
    with _counted(ctx):
        time.sleep(seconds)
        return value


def _end(ctx: TaskContext, value: Any, fail_times: int, *, fatal: bool) -> Any:
    if fatal:
        raise Fatal("on purpose")
    if ctx.attempt <= fail_times:
        raise OnPurposeError(f"attempt {ctx.attempt}")
    return value


@contextmanager
def _counted(ctx: TaskContext) -> Iterator[None]:
    _write("start", ctx)
    try:
        yield
    finally:
        _write("end", ctx)


def _write(what: str, ctx: TaskContext) -> None:
    line = f"{what} {time.time():.3f} {os.getpid()} {ctx.execution_id}/{ctx.node}/{ctx.attempt}\n"
    file = os.open(os.environ["WF_CHAOS_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
