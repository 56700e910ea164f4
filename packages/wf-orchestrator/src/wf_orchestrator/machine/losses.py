"""Attempts that ended without a result: lost to the platform, crashed, refused by the log, or never claimed.

The platform's losses and crashes each have a budget of their own; neither uses the user's. A crash is the end of the
process that ran the attempt: it may well be the attempt's own doing.

The words of these errors are part of the state: a log that an older release folded must give the same ones again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from wf_core.states import AttemptClass, AttemptStatus
from wf_core.store.codec import MOST_ATTEMPTS, MOST_LOST, AttemptRecord
from wf_core.wire import Failure, Lost
from wf_orchestrator.machine import failure, timeouts
from wf_orchestrator.machine.transitions import NodeEvent

if TYPE_CHECKING:
    from wf_core.wire import Result, Unsendable
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

_LOSSES = {
    "dead": "the process that ran it, or its worker, ended",
    "crash": "the process that ran it ended",
    "orphan": "its message reached no worker",
    "drain": "its worker shut down",
    "withdrawn": "it was withdrawn",
}


class _Budget(NamedTuple):
    """How many losses of a class there were, this one among them, and how many there may be."""

    class_: AttemptClass
    error: str
    used: int
    limit: int

    @property
    def is_used(self) -> bool:
        return self.used > self.limit


def lost(step: Step, index: int, event: Lost) -> None:
    """An attempt in flight was lost."""
    if event.reason == timeouts.UNCLAIMED:
        timeouts.unclaimed(step, index)
        return
    silent = f", silent for {event.silent_ms} ms" if event.silent_ms else ""
    of_worker = f" (worker {event.worker}{silent})" if event.worker else ""
    lose(step, index, event, f"{event.detail or _LOSSES.get(event.reason, event.reason)}{of_worker}")


def lose(step: Step, index: int, event: Lost | Result, reason: str) -> None:
    """The next attempt goes out at once, while the budget lasts and the node is wanted; it is held during a pause."""
    x = step.x
    if not x.is_wanted(index):
        step.cancel(index, f"the execution failed; {reason}")
        return
    cell, budget = x.cells[index], _budget(x, index, event)
    again = not budget.is_used and cell.attempt < MOST_ATTEMPTS
    if budget.class_ is AttemptClass.CRASH:
        step.leave_first_rules()
    error = Failure(type=budget.error, message=f"attempt {cell.attempt} was lost: {reason}")
    step.leave(index, cancel=isinstance(event, Lost) and event.reason == "dead")
    step.record(index, _record(step, index, event, budget, error, again=again))
    why: dict[str, Any] = {"reason": reason}
    if isinstance(event, Lost):
        why = {"reason": event.reason, "silent_ms": event.silent_ms}
        if event.detail:
            why["detail"] = event.detail
    step.tell("node.lost", index, {**why, "worker": event.worker, "lost": budget.used, "limit": budget.limit})
    count = min(cell.lost + 1, MOST_LOST)
    if not again:
        failure.give_up(step, index, error, lost=count)
    elif x.is_paused:
        step.move(index, NodeEvent.HOLD, lost=count)
        step.ready(index)
    else:
        step.dispatch(index, x.inputs[index], lost=count)


def _budget(x: Execution, index: int, event: Lost | Result) -> _Budget:
    crashed = isinstance(event, Lost) and event.reason == "crash"
    class_ = AttemptClass.CRASH if crashed else AttemptClass.PLATFORM
    used = 1 + sum(record.class_ is class_ for record in x.attempts_of_era(index))
    if crashed:
        return _Budget(class_, "CrashError", used, x.settings.max_crash_retries)
    return _Budget(class_, "PlatformError", used, x.settings.max_platform_retries)


def _record(  # noqa: PLR0913 - the facts of one attempt
    step: Step, index: int, event: Lost | Result, budget: _Budget, error: Failure, *, again: bool
) -> AttemptRecord:
    cell, retries = step.x.cells[index], f"{budget.class_} retries"
    used = f"{budget.class_} retry {budget.used} of {budget.limit}"
    return AttemptRecord(
        attempt=cell.attempt,
        status=AttemptStatus.LOST,
        class_=budget.class_,
        worker=event.worker,
        package=event.package,
        worker_package=event.worker_package,
        host=event.host,
        log_tail=event.log_tail,
        queued_at=cell.time_ms,
        started_at=event.started_at,
        ended_at=step.now,
        error=error,
        decision="retry" if again else "stop",
        reason=used if again else f"all {budget.limit} {retries} are used",
    )


def unsendable(step: Step, index: int, event: Unsendable) -> None:
    """The log refuses the task message for good."""
    step.leave(index)
    record = AttemptRecord(
        attempt=event.attempt,
        status=AttemptStatus.FAILED,
        class_=AttemptClass.PLATFORM,
        queued_at=step.x.cells[index].time_ms,
        ended_at=step.now,
        error=event.error,
        decision="stop",
        reason="the log refuses the task message for good",
    )
    step.record(index, record)
    failure.give_up(step, index, event.error)
