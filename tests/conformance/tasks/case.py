"""Tasks that behave as a case tells them, by the number of their attempt."""

from __future__ import annotations

import asyncio
import builtins
from typing import Any

from wf_core import Fatal, RetryAfter, TaskContext, task


class OnPurposeError(Exception):
    """What fails without a class of its own."""


def _error(name: str, message: str) -> Exception:
    """A new error: `Fatal`, or a built-in class by its name."""
    if name == "Fatal":
        return Fatal(message)
    found: Any = getattr(builtins, name, OnPurposeError)
    return found(message)  # type: ignore[no-any-return]


@task("case.raise")
async def raise_(ctx: TaskContext, error: str, message: str = "", times: int | None = None, value: Any = None) -> Any:
    """Raises an error of this class in its first `times` attempts (all of them when None), then returns `value`."""
    if times is None or ctx.attempt <= times:
        raise _error(error, message)
    return value


@task("case.raise_each")
async def raise_each(ctx: TaskContext, errors: list[str], value: Any = None) -> Any:
    """Attempt n raises the n-th error; when there are no more, it returns `value`."""
    if ctx.attempt <= len(errors):
        raise _error(errors[ctx.attempt - 1], f"attempt {ctx.attempt}")
    return value


@task("case.fail_if")
async def fail_if(ctx: TaskContext, when: bool, times: int | None = None, value: Any = None) -> Any:
    """As `case.raise`, but only when `when` is true."""
    if when and (times is None or ctx.attempt <= times):
        raise OnPurposeError(f"attempt {ctx.attempt}")
    return value


@task("case.retry_after")
async def retry_after(ctx: TaskContext, seconds: float, times: int, value: Any = None) -> Any:
    """Asks in its first `times` attempts to be tried again after `seconds`, then returns `value`."""
    if ctx.attempt <= times:
        raise RetryAfter(seconds)
    return value


@task("case.slow_first")
async def slow_first(ctx: TaskContext, seconds: float, value: Any = None) -> Any:
    """Its first attempt takes `seconds`, the others none."""
    if ctx.attempt == 1:
        await asyncio.sleep(seconds)
    return value


@task("case.beat")
async def beat(ctx: TaskContext, beats: int, every: float, value: Any = None) -> Any:
    """Says `beats` times that it is alive, each after `every` seconds, then returns `value`."""
    for number in range(beats):
        await asyncio.sleep(every)
        ctx.heartbeat({"beat": number})
    return value
