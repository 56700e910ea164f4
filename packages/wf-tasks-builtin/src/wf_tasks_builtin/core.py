"""`core.*`: small tasks for wiring a graph and for trying the engine out."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field

from wf_core import Fatal, TaskContext, task


class DeliberateError(Exception):
    """What `core.fail` raises."""


@task("core.noop")
async def noop() -> None:
    """Does nothing."""


@task("core.echo")
async def echo(value: Any = None) -> Any:
    """Returns `value`."""
    return value


@task("core.sleep")
async def sleep(seconds: Annotated[float, Field(ge=0, le=86_400)] = 1.0, value: Any = None) -> Any:
    """Waits `seconds`, then returns `value`."""
    await asyncio.sleep(seconds)
    return value


@task("core.fail")
async def fail(
    ctx: TaskContext,
    message: str = "failed on purpose",
    times: Annotated[int | None, Field(ge=0)] = None,
    value: Any = None,
    fatal: bool = False,
) -> Any:
    """Fails its first `times` attempts (all of them when None), then returns `value`. `fatal` forbids retries."""
    if times is not None and ctx.attempt > times:
        return value
    text = f"{message} (attempt {ctx.attempt})"
    raise Fatal(text) if fatal else DeliberateError(text)
