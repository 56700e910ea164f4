"""`python.call`: a function of an installed module, on workers that allow it, in a process that can be killed."""

from __future__ import annotations

import importlib
import inspect
from typing import Annotated, Any

from pydantic import Field

from wf_core import Fatal, task


@task("python.call", executor="process", needs_permission=True)
def call(
    target: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$", examples=["statistics:mean"])],
    args: list[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
) -> Any:
    """Calls `module:function` with `args` and `kwargs`; what it returns is the output."""
    module, _, path = target.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in path.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        raise Fatal(f"{target!r} cannot be imported on this worker: {error}") from error
    if not callable(function):
        raise Fatal(f"{target!r} is {type(function).__name__}, which cannot be called")
    if inspect.iscoroutinefunction(function):
        raise Fatal(f"{target!r} is an async function; python.call takes a plain one")
    return function(*(args or []), **(kwargs or {}))
