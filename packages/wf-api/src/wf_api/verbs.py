"""What can be asked of an execution that exists: a row for each verb."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wf_core import wire
from wf_core.states import ExecutionStatus

PENDING, RUNNING, PAUSED, COMPLETED, FAILED, CANCELLED = ExecutionStatus
_NOT_ENDED = (PENDING, RUNNING, PAUSED)
_ENDED = (COMPLETED, FAILED, CANCELLED)


@dataclass(frozen=True, slots=True)
class Verb:
    """When a command is allowed, what it writes, and what its answer says."""

    name: str
    record: type[wire.Command]
    allowed: tuple[ExecutionStatus, ...]
    refusal: str
    """Follows `The execution is STATUS: `."""
    answer: ExecutionStatus | None = None
    """The status that the answer names; None: the one that the execution has then."""
    done: tuple[ExecutionStatus, ...] = ()
    """Statuses in which there is nothing left to do: the same answer again."""
    late: tuple[ExecutionStatus, ...] = ()
    """Statuses that show, after the command was applied, that it came too late."""
    unheard: str = ""
    """Why it may have changed nothing, though it was allowed when it was asked for: the detail of the problem then."""
    several: bool = False
    """Whether several may wait to be folded; else one is kept, and others find it there."""
    shared: bool = False
    """Whether one that waits does for whoever else asks, too."""

    @property
    def looks(self) -> bool:
        """Whether its answer depends on where the execution stands after the command was applied."""
        return self.answer is None or bool(self.late or self.unheard)


TRIGGER = Verb(
    "trigger",
    wire.Triggered,
    (PENDING,),
    "it was started before, or has ended. Only a PENDING one is triggered.",
    answer=RUNNING,
)
CANCEL = Verb(
    "cancel",
    wire.Cancelled,
    _NOT_ENDED,
    "it has ended, and stays as it is.",
    answer=CANCELLED,
    done=(CANCELLED,),
    late=(COMPLETED, FAILED),
    shared=True,
)
PAUSE = Verb(
    "pause",
    wire.Paused,
    (RUNNING, PAUSED),  # PAUSED as well: a `resume` may be on its way ahead of it
    "only one that is RUNNING is paused.",
    answer=PAUSED,
    late=_ENDED,
    several=True,
)
RESUME = Verb(
    "resume",
    wire.Resumed,
    (PAUSED, RUNNING),
    "only one that is PAUSED is resumed.",
    answer=RUNNING,
    several=True,
)
RETRY = Verb(
    "retry",
    wire.Retried,
    (FAILED, CANCELLED),
    "only one that is FAILED or CANCELLED is retried, and a COMPLETED one with `from`.",
    answer=RUNNING,
    unheard="Another retry came first: the execution runs already.",
    several=True,
)
RETRY_FROM = replace(RETRY, allowed=_ENDED, refusal="only one that has ended is retried.")
SIGNAL = Verb(
    "signal",
    wire.Signalled,
    _NOT_ENDED,
    "it has ended, and takes no signals.",
    unheard="The execution has ended, or holds as many signals that nobody has taken as it can.",
    several=True,
)
ANSWER = Verb(
    "answer",
    wire.Answered,
    (RUNNING, PAUSED),
    "approvals are answered while it is RUNNING or PAUSED.",
    unheard="Another answer came first, or the approval waits no more.",
    several=True,
)
