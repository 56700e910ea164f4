"""An attempt as the supervisor sees it, and how it ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from wf_core.states import AttemptStatus
from wf_core.tasks import Executor
from wf_core.wire import Failure, TaskMessage
from wf_worker.children import Child
from wf_worker.failure import refusal, timed_out
from wf_worker.frames import Done
from wf_worker.loading import LOAD_SECONDS


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt that holds a slot. Times in Unix ms of Redis' clock."""

    id: int
    token: str
    message: TaskMessage
    executor: Executor
    package: str
    timeout_ms: int | None
    started_at: int
    child: Child | None = None
    ending: Literal["", "timeout", "cancel", "drain", "loading"] = ""
    """Why it is being ended, if it is."""
    reported: bool = False
    """Its end was reported although its code still runs (a thread cannot be ended)."""
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended. LOST carries a reason; CANCELLED is nobody's business any more."""

    status: AttemptStatus
    output: bytes | None = None
    error: Failure | None = None
    reason: str = ""


def outcome_of(done: Done) -> Ended:
    """How an attempt ended that came to its own end."""
    if done.error is not None:
        return Ended(AttemptStatus.FAILED, error=done.error)
    return Ended(AttemptStatus.COMPLETED, output=done.output)


def ended_early(attempt: Attempt) -> Ended:
    """How an attempt ended that did not come to its own end: it was made to, or lost its child."""
    match attempt.ending:
        case "timeout":
            return Ended(AttemptStatus.TIMED_OUT, error=timed_out(attempt.timeout_ms or 0))
        case "loading":
            text = f"task {attempt.message.task} could not be imported within {LOAD_SECONDS:g} s"
            return Ended(AttemptStatus.FAILED, error=refusal("PluginError", text))
        case "cancel":
            return Ended(AttemptStatus.CANCELLED)
        case "drain":
            return Ended(AttemptStatus.LOST, reason="drain")
        case _:
            return Ended(AttemptStatus.LOST, reason="dead")
