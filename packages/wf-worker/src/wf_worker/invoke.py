"""One attempt, as a child runs it: find the task, check its parameters, call it, encode what it returns."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog

from wf_core import payload
from wf_core.errors import PayloadError, PluginError
from wf_core.failures import failure_of, refusal
from wf_core.tasks import Task, TaskLogger
from wf_worker.frames import Done, Run
from wf_worker.loading import TaskLoader, is_allowed, not_allowed

OURS = Path(__file__).parent
PROGRESS_BYTES = 4 * 1024
"""Longest progress that `ctx.heartbeat` takes, in bytes of JSON."""


class Context:
    """The `TaskContext` of one attempt.

    `alive` hears each heartbeat: the attempt's `Run.id`, and the progress in JSON bytes if it has one.
    """

    def __init__(self, run: Run, alive: Callable[[int, bytes | None], None]) -> None:
        self.execution_id = run.execution
        self.node = run.node
        self.attempt = run.attempt
        self.cancelled = False
        """Whether this attempt is not wanted any more."""
        self._run = run
        self._alive = alive

    @cached_property
    def log(self) -> TaskLogger:
        """A logger whose lines carry the attempt. Made on first use: most attempts never log."""
        logger: TaskLogger = structlog.get_logger(self._run.task).bind(**ids(self._run))
        return logger

    @property
    def idempotency_key(self) -> str:
        """The same text for every attempt of this node."""
        return f"{self.execution_id}/{self.node}"

    @property
    def fence(self) -> int:
        """The attempt's number."""
        return self.attempt

    def heartbeat(self, progress: Any = None) -> None:
        """Says that the task is alive and how far it is. Raises PayloadError for what is no JSON, or above 4 KiB."""
        if progress is None:
            self._alive(self._run.id, None)
            return
        what = "the progress that was given to ctx.heartbeat"
        data = payload.encode(progress, what=what)
        if len(data) > PROGRESS_BYTES:
            raise PayloadError(
                f"{what} is {len(data):,} bytes of JSON, more than the {PROGRESS_BYTES:,} that it may have; "
                "say how far the task is, and keep the data in its output"
            )
        self._alive(self._run.id, data)

    def cancel(self) -> None:
        """Says that the attempt is not wanted any more."""
        self.cancelled = True


class Runner:
    """Runs attempts with what a child was configured with. What an attempt raises becomes its `Done`."""

    def __init__(self, loader: TaskLoader, allow: tuple[str, ...], max_payload_bytes: int) -> None:
        self._loader = loader
        self._allow = allow
        self._limit = max_payload_bytes
        self._ready: dict[str, Task] = {}
        self._base = contextvars.copy_context()
        # structlog looks its variables up by name each time that it binds some; a task may be shorter than that.
        tokens = structlog.contextvars.bind_contextvars(execution="", node="", attempt=0)
        self._execution, self._node, self._attempt = (tokens[name].var for name in ("execution", "node", "attempt"))
        structlog.contextvars.reset_contextvars(**tokens)

    def task(self, name: str) -> Task:
        """The task, imported if need be. Raises PluginError, also when it may not run here."""
        known = self._ready.get(name)
        if known is not None:
            return known
        task = self._loader.get(name)
        if task.needs_permission and not is_allowed(name, self._allow):
            raise PluginError(not_allowed(name))
        self._ready[name] = task
        return task

    def is_async(self, name: str) -> bool:
        """Whether the task belongs on the loop; one that cannot be had does not: what is wrong is said when it runs."""
        with contextlib.suppress(Exception):
            return self.task(name).executor == "async"
        return False

    async def run_async(self, run: Run, context: Context) -> Done:
        """Runs an async task on the current loop."""
        self._bind(run)
        try:
            task = self.task(run.task)
            value = await task.function(**arguments(task, run, context))
            return self._output(run, task, value)
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its failure
            return _failed(run, context, error)

    def run_sync(self, run: Run, context: Context, started: Callable[[], None] = lambda: None) -> Done:
        """Runs a task in this thread, an async one on a loop of its own; calls `started` before the task's code."""
        return self._base.copy().run(self._run_sync, run, context, started)

    def _run_sync(self, run: Run, context: Context, started: Callable[[], None]) -> Done:
        self._bind(run)
        try:
            task = self.task(run.task)
            bound = arguments(task, run, context)
            started()
            if inspect.iscoroutinefunction(task.function):
                value = asyncio.run(task.function(**bound))
            else:
                value = task.function(**bound)
            return self._output(run, task, value)
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its failure
            return _failed(run, context, error)

    def _bind(self, run: Run) -> None:
        """Log lines and prints of the current context belong to this attempt."""
        self._execution.set(run.execution)
        self._node.set(run.node)
        self._attempt.set(run.attempt)

    def _output(self, run: Run, task: Task, value: Any) -> Done:
        what = f"the output of {run.task}"
        try:
            plain = task.dump_output(value)
        except Exception as error:
            raise PayloadError(f"{what} is not JSON: {error}") from error
        return Done(id=run.id, output=payload.encode(plain, limit=self._limit, what=what))


def ids(run: Run) -> dict[str, Any]:
    """What log lines of the attempt carry."""
    return {"execution": run.execution, "node": run.node, "attempt": run.attempt}


def arguments(task: Task, run: Run, context: Context) -> dict[str, Any]:
    """The keyword arguments of the task's function. Raises ParametersError."""
    bound = task.bind(payload.decode(run.params))
    if task.context_parameter is not None:
        bound[task.context_parameter] = context
    return bound


def _failed(run: Run, context: Context, error: BaseException) -> Done:
    if isinstance(error, asyncio.CancelledError) and context.cancelled:
        return Done(id=run.id, cancelled=True, error=refusal("CancelledError", "the attempt was cancelled"))
    return Done(id=run.id, error=failure_of(error, OURS))
