"""An attempt as the supervisor sees it, and how it ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol

from wf_core.catalogue import Catalogue
from wf_core.failures import refusal, silent, timed_out
from wf_core.states import AttemptStatus
from wf_core.tasks import Executor
from wf_core.wire import Failure, TaskMessage
from wf_worker.children import Child
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
    ending: Literal["", "timeout", "silent", "cancel", "drain", "loading"] = ""
    """Why it is being ended, if it is."""
    reported: bool = False
    """Its end was reported although its code still runs (a thread cannot be ended)."""
    timer: asyncio.TimerHandle | None = None
    silence: asyncio.TimerHandle | None = None
    """Of an attempt whose message names a `heartbeat_ms`: looks whether it was silent for that long."""
    heard_at: float = 0.0
    """When it began, or last called `ctx.heartbeat`, on the loop's clock."""
    silent_seconds: float = 0.0
    """How long it was silent when it was ended for that."""
    progress: bytes | None = None
    """The newest that it gave to `ctx.heartbeat`, in JSON bytes."""
    tail: str = ""
    """The end of what it logged and printed, as far as its child told."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended. LOST carries a reason; CANCELLED is nobody's business any more."""

    status: AttemptStatus
    output: bytes | None = None
    error: Failure | None = None
    reason: str = ""
    detail: str = ""


class AttemptRunner(Protocol):
    """What runs attempts: the supervisor's children. It tells by callbacks how each one ended, and of free slots."""

    @property
    def catalogue(self) -> Catalogue:
        """What can run here."""

    @property
    def slots(self) -> int:
        """How many attempts run at once."""

    @property
    def free(self) -> int:
        """Slots that nothing holds."""

    def running(self) -> list[str]:
        """Tokens whose end was not reported yet."""

    def runs(self, token: str) -> bool:
        """Whether the end of this token was not reported yet."""

    def progress(self) -> dict[str, bytes]:
        """The newest progress in JSON bytes, by token, of what runs and gave any."""

    def run(self, token: str, message: TaskMessage) -> None:
        """Begins an attempt; the caller saw a free slot."""

    def cancel(self, token: str) -> bool:
        """Ends an attempt that is not wanted any more; nothing is reported. False when it does not run here."""

    async def idle(self) -> None:
        """Returns when every attempt was reported."""

    def hand_back(self) -> None:
        """Ends what still runs; each attempt is reported as lost to the drain."""


def outcome_of(done: Done) -> Ended:
    """How an attempt ended that came to its own end."""
    if done.error is not None:
        return Ended(AttemptStatus.FAILED, error=done.error)
    return Ended(AttemptStatus.COMPLETED, output=done.output)


def ended_early(attempt: Attempt, detail: str = "") -> Ended:
    """How an attempt ended that did not come to its own end: it was made to, or lost its child (`detail`: how)."""
    match attempt.ending:
        case "timeout":
            return Ended(AttemptStatus.TIMED_OUT, error=timed_out(attempt.timeout_ms or 0))
        case "silent":
            error = silent(attempt.silent_seconds, attempt.message.heartbeat_ms or 0)
            return Ended(AttemptStatus.TIMED_OUT, error=error)
        case "loading":
            text = f"task {attempt.message.task} could not be imported within {LOAD_SECONDS:g} s"
            return Ended(AttemptStatus.FAILED, error=refusal("PluginError", text))
        case "cancel":
            return Ended(AttemptStatus.CANCELLED)
        case "drain":
            return Ended(AttemptStatus.LOST, reason="drain")
        case _:
            return Ended(AttemptStatus.LOST, reason="crash", detail=detail)
