"""One attempt, run in this process: the task or its stub, its timeout and heartbeat in virtual time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic_core
import structlog

from wf_core import failures, payload
from wf_core.errors import PayloadError
from wf_core.states import AttemptStatus
from wf_core.tasks import Task, TaskLogger
from wf_core.wire import Failure, TaskMessage
from wf_orchestrator.testing import stubs
from wf_orchestrator.testing.stubs import Stub
from wf_orchestrator.testing.virtual import StuckError, off_the_loop, run_virtually

OURS = Path(__file__).parent
_RAISED = (Exception, SystemExit, asyncio.CancelledError, GeneratorExit)
"""Whatever a task raises is its failure; an interrupt, or a test that fails inside of a stub, is none of a task."""
_AT_ONCE = Stub((None,))


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends: `takes_ms` after its start, never when that is None."""

    takes_ms: int | None
    status: AttemptStatus = AttemptStatus.COMPLETED
    output: bytes | None = None
    error: Failure | None = None


class Context:
    """The `TaskContext` of one attempt."""

    def __init__(self, message: TaskMessage) -> None:
        self.execution_id = message.execution
        self.node = message.node
        self.attempt = message.attempt
        self.log: TaskLogger = structlog.get_logger(message.task).bind(node=message.node, attempt=message.attempt)
        self.progress: Any = None
        self.beat_at = 0.0
        """Seconds of the attempt's own virtual time."""
        self.cancelled = False

    @property
    def idempotency_key(self) -> str:
        """The same text for every attempt of this node."""
        return f"{self.execution_id}/{self.node}"

    @property
    def fence(self) -> int:
        """The attempt's number."""
        return self.attempt

    def heartbeat(self, progress: Any = None) -> None:
        """Says that the task is alive, as of its own virtual time."""
        self.progress = progress
        try:
            self.beat_at = asyncio.get_running_loop().time()
        except RuntimeError:  # a plain function takes no virtual time
            self.beat_at = 0.0


class _OverdueError(Exception):
    def __init__(self, ending: Ending) -> None:
        self.ending = ending


def run_attempt(source: Task | Stub, message: TaskMessage, limit: int) -> Ending:
    """Runs the task's code, or what stands in for it, to its end. `limit` is the most bytes of an output."""
    reply, took = (source, _AT_ONCE) if isinstance(source, Task) else source.reply(message.attempt)
    timeout_ms = _timeout_ms(reply, message)
    if took is not _AT_ONCE and (overdue := _overdue(took, timeout_ms, message.heartbeat_ms)) is not None:
        return overdue
    takes_ms = took.takes_ms or 0
    context = Context(message)
    try:
        value, seconds = _call(lambda: _reply(reply, message, context), message, timeout_ms, context)
        output = _encoded(reply, value, limit, f"the output of {message.task}")
    except _OverdueError as error:
        return error.ending
    except StuckError:
        return Ending(None)
    except _RAISED as error:
        return Ending(takes_ms, AttemptStatus.FAILED, error=failures.failure_of(error, OURS))
    return Ending(takes_ms + round(seconds * 1000), output=output)


def _encoded(reply: Any, value: Any, limit: int, what: str) -> bytes:
    try:
        plain = reply.dump_output(value) if isinstance(reply, Task) else pydantic_core.to_jsonable_python(value)
    except Exception as error:
        raise PayloadError(f"{what} is not JSON: {error}") from error
    return payload.encode(plain, limit=limit, what=what)


def stalled(source: Task | Stub, message: TaskMessage) -> Ending:
    """How an attempt ends that hangs and says nothing."""
    reply = source if isinstance(source, Task) else source.reply(message.attempt)[0]
    return _overdue(Stub((None,), None), _timeout_ms(reply, message), message.heartbeat_ms) or Ending(None)


def _timeout_ms(reply: Any, message: TaskMessage) -> int | None:
    own = reply.timeout_ms if isinstance(reply, Task) else None
    return own if message.timeout_ms is None else message.timeout_ms


def _overdue(took: Stub, timeout_ms: int | None, heartbeat_ms: int | None) -> Ending | None:
    """How a stub that takes too long, or is silent for too long, is ended; None when it is not."""
    silent_ms = heartbeat_ms if took.silent or took.takes_ms is None else None
    limits = [(ms, is_heartbeat) for ms, is_heartbeat in ((timeout_ms, False), (silent_ms, True)) if ms is not None]
    if not limits:
        return Ending(None) if took.takes_ms is None else None
    ms, is_heartbeat = min(limits)
    if took.takes_ms is not None and took.takes_ms <= ms:
        return None
    return _timed_out(ms, is_heartbeat=is_heartbeat)


def _timed_out(ms: int, *, is_heartbeat: bool) -> Ending:
    error = failures.silent(ms / 1000, ms) if is_heartbeat else failures.timed_out(ms)
    return Ending(ms, AttemptStatus.TIMED_OUT, error=error)


def _bound(task: Task, message: TaskMessage, context: Context) -> dict[str, Any]:
    bound = task.bind(payload.decode(message.params))
    if task.context_parameter is not None:
        bound[task.context_parameter] = context
    return bound


def _reply(reply: Any, message: TaskMessage, context: Context) -> Any:
    if isinstance(reply, BaseException):
        raise reply.with_traceback(None)
    if isinstance(reply, type) and issubclass(reply, BaseException):
        raise reply
    if isinstance(reply, Task):
        return reply.function(**_bound(reply, message, context))
    if callable(reply):
        return stubs.call(reply, payload.decode(message.params), context)
    return reply


def _call(
    function: Callable[[], Any], message: TaskMessage, timeout_ms: int | None, context: Context
) -> tuple[Any, float]:
    """What `function` returns, awaited if need be, and the virtual seconds that it took."""

    def call() -> tuple[Any, float]:
        value = function()
        if not inspect.isawaitable(value):
            return value, 0.0
        return run_virtually(_guarded(value, timeout_ms, message.heartbeat_ms, context))

    return off_the_loop(call)


async def _guarded(awaitable: Any, timeout_ms: int | None, heartbeat_ms: int | None, context: Context) -> Any:
    """Awaits it while its timeout and its heartbeats allow. Raises _OverdueError."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(awaitable)
    while True:
        limits = [] if timeout_ms is None else [(timeout_ms / 1000, False)]
        if heartbeat_ms is not None:
            limits.append((context.beat_at + heartbeat_ms / 1000, True))
        until, is_heartbeat = min(limits, default=(None, False))
        done, _ = await asyncio.wait({task}, timeout=None if until is None else max(0.0, until - loop.time()))
        if done:
            return task.result()
        if is_heartbeat and context.beat_at + (heartbeat_ms or 0) / 1000 > loop.time():
            continue
        context.cancelled = True
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        ending = _timed_out((heartbeat_ms if is_heartbeat else timeout_ms) or 0, is_heartbeat=is_heartbeat)
        raise _OverdueError(Ending(round(loop.time() * 1000), ending.status, error=ending.error))
