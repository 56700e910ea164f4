"""One event: `decide(partition, execution, event, offset, plan) -> Outcome`.

Pure and total: the same arguments give the same outcome on every host, and no event raises. Both states are changed in
place: when the APPLY of the outcome does not land, drop them and load them again.

* `execution`: None when the log has not created it yet (as far as this partition has folded).
* `plan`: needed for `created` only. A live execution without one, new or loaded, is FAILED with InternalError.
* A late, stale, repeated or unknown event gives an outcome without changes, save that a command that needs no second
  folding is `Accepted`. A trigger or cancel of an execution that does not exist yet is not: the sweep brings it again.
* `expired` deletes an execution that ended at least LATE_MS before (by the record's own time). Late copies of its
  commands must not make it, and run it, again: `partition.expired` is the newest end of a deleted execution, and a
  command that is not newer is ignored. Copies carry the time of the first one, so none gets through, however late. A
  command that was late because the log was away does: nothing that ended in the last ten minutes is deleted, and
  retention waits for commands that are accepted and not folded (`wf_orchestrator.retention`).
* An exception inside is the outcome FAILED (InternalError); `outcome.crash` then holds the traceback for the log.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from wf_core import ids
from wf_core.states import AttemptClass, AttemptStatus, ExecutionStatus
from wf_core.store.codec import MOST_ATTEMPTS, MOST_LOST, AttemptRecord
from wf_core.wire import (
    Cancelled,
    Created,
    Decision,
    Document,
    Expanded,
    Expired,
    Failure,
    Lost,
    Result,
    Timer,
    Triggered,
    Unsendable,
)
from wf_orchestrator.machine import cascade, fields
from wf_orchestrator.machine.effects import Accepted, Deleted, KeepDocument, Outcome, SetTimer
from wf_orchestrator.machine.state import Execution
from wf_orchestrator.machine.step import Step, summary
from wf_orchestrator.machine.transitions import EXECUTION, LISTENING, ExecutionEvent, NodeEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from wf_core.plan import Plan
    from wf_core.wire import Event
    from wf_orchestrator.machine.state import PartitionState

NodeRecord = Result | Lost | Decision | Unsendable

LATE_MS = 600_000
"""An execution stays for at least so long after its end: any copy of a command that may still come finds it."""

_LOSSES = {
    "dead": "the process that ran it, or its worker, ended",
    "crash": "the process that ran it ended",
    "orphan": "its message reached no worker",
    "drain": "its worker shut down",
    "withdrawn": "it was withdrawn",
}


def decide(
    partition: PartitionState, execution: Execution | None, event: Event, offset: int, plan: Plan | None = None
) -> Outcome:
    """Folds one event. See the module's docstring."""
    partition.ts = max(partition.ts, event.ts)
    outcome = Outcome(offset, execution)
    if isinstance(event, Document):
        outcome.effects.append(KeepDocument(event.hash, event.part, event.parts, event.data))
        return outcome
    if isinstance(event, Created):
        outcome.effects.append(Accepted(f"{event.execution}/create"))
        if execution is not None or event.ts <= partition.expired:
            return outcome
        outcome.execution = execution = Execution.create(event, plan, partition.ts)
    elif execution is None:
        return outcome
    step = Step(partition, outcome, execution)
    try:
        _HANDLERS[type(event)](step, event)
        if execution.plan is None and not execution.status.is_terminal:
            raise LookupError(f"the document {execution.document} is missing")  # noqa: TRY301 - as any other error
        step.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, it must end this execution only
        outcome.crash = traceback.format_exc()
        _crash(step, error)
    return outcome


def _crash(step: Step, error: Exception) -> None:
    x = step.x
    if x.status.is_terminal:
        return
    x.error = Failure(type="InternalError", message=f"{type(error).__name__}: {error}")
    cascade.end_all(step, "internal error")
    step.touch("error")
    cascade.end(step, ExecutionEvent.CRASH)
    step.close()


def _created(step: Step, _event: Created) -> None:
    x = step.x
    step.outcome.moved = (None, x.status)
    step.touch(*fields.FIELDS, "counts")
    step.tell("execution.created")


def _triggered(step: Step, event: Triggered) -> None:
    if not _obeys(step, event, "trigger", ExecutionEvent.TRIGGER):
        return
    x = step.x
    if event.input is not None:
        x.input = event.input
        x.values.clear()
        x.values_bytes = 0
        step.touch("input")
    step.turn(ExecutionEvent.TRIGGER)
    x.started_at = step.now
    step.touch("started_at")
    step.tell("execution.triggered")
    timeout_ms = x.plan_of().timeout_ms
    if timeout_ms is not None:
        step.effect(SetTimer("deadline", ids.token(x.id, "", 0), step.now + timeout_ms))
    cascade.start(step)
    cascade.settle(step)


def _cancelled(step: Step, event: Cancelled) -> None:
    if not _obeys(step, event, "cancel", ExecutionEvent.CANCEL):
        return
    step.tell("execution.cancelling", None, {"reason": event.reason})
    cascade.end_all(step, event.reason or "cancelled")
    cascade.end(step, ExecutionEvent.CANCEL)


def _obeys(step: Step, event: Triggered | Cancelled, verb: str, what: ExecutionEvent) -> bool:
    """Whether a command is new and possible here. Either way it was folded."""
    step.effect(Accepted(f"{event.execution}/{verb}"))
    known = any(command == event.id for command, _ in step.x.commands)
    if known or event.ts <= step.partition.expired or what not in EXECUTION[step.x.status]:
        return False
    step.obey(event)
    return True


def _addressed(step: Step, event: NodeRecord | Timer) -> int | None:
    """The node that a record is about, if it listens: RUNNING execution, right status, current attempt."""
    x = step.x
    index = x.index_of(event.node) if x.status is ExecutionStatus.RUNNING else None
    if index is None:
        return None
    cell = x.cells[index]
    listens = cell.status is LISTENING[str(event.__struct_config__.tag)] and cell.attempt == event.attempt
    return index if listens else None


def _result(step: Step, event: Result) -> None:
    index = _addressed(step, event)
    if index is None:
        return
    if event.status == AttemptStatus.COMPLETED:
        _complete(step, index, event)
    elif event.status == AttemptStatus.CANCELLED:
        _lose(step, index, event, "cancelled by its worker although it is still wanted")
    else:
        _fail(step, index, event)
    cascade.settle(step)


def _complete(step: Step, index: int, event: Result) -> None:
    x = step.x
    output = b"null" if event.output is None else event.output
    step.leave(index)
    step.record(index, _record(step, index, event, AttemptStatus.COMPLETED))
    step.outcome.results["o:" + event.node] = output
    if x.is_kept(index):
        x.outputs[index] = output
    step.move(index, NodeEvent.COMPLETE)
    data = {"worker": event.worker, "started_at": event.started_at, "ended_at": event.ended_at}
    step.tell("node.completed", index, data)


def _fail(step: Step, index: int, event: Result) -> None:
    timed_out = event.status == AttemptStatus.TIMED_OUT
    status = AttemptStatus.TIMED_OUT if timed_out else AttemptStatus.FAILED
    class_ = AttemptClass.TIMEOUT if timed_out else AttemptClass.USER
    error = event.error or Failure(type="UnknownError", message=f"the worker said {event.status} and no more")
    step.leave(index)
    if not step.x.is_wanted(index):
        reason = "nothing is tried again after the failure of the execution"
        step.record(index, _record(step, index, event, status, class_, error=error, decision="stop", reason=reason))
        cascade.give_up(step, index, error, worker=event.worker)
        return
    step.record(index, _record(step, index, event, status, class_, error=error))
    step.move(index, NodeEvent.ASK)
    step.set_timer("decide", index, step.now)
    step.tell("node.retrying", index, {**summary(error), "worker": event.worker, "attempt_status": status})


def _record(
    step: Step, index: int, event: Result, status: AttemptStatus, class_: AttemptClass | None = None, **rest: Any
) -> AttemptRecord:
    return AttemptRecord(
        attempt=event.attempt,
        status=status,
        class_=class_,
        worker=event.worker,
        package=event.package,
        queued_at=step.x.cells[index].time_ms,
        started_at=event.started_at,
        ended_at=event.ended_at,
        **rest,
    )


def _lost(step: Step, event: Lost) -> None:
    index = _addressed(step, event)
    if index is None:
        return
    silent = f", silent for {event.silent_ms} ms" if event.silent_ms else ""
    of_worker = f" (worker {event.worker}{silent})" if event.worker else ""
    _lose(step, index, event, f"{event.detail or _LOSSES.get(event.reason, event.reason)}{of_worker}")
    cascade.settle(step)


def _lose(step: Step, index: int, event: Lost | Result, reason: str) -> None:
    """An attempt went to the platform: the next one at once, while the budget lasts and the node is wanted."""
    x = step.x
    if not x.is_wanted(index):
        step.cancel(index, f"the execution failed; {reason}")
        return
    cell = x.cells[index]
    lost, limit = cell.lost + 1, min(x.settings.max_platform_retries, MOST_LOST - 1)
    again = lost <= limit and cell.attempt < MOST_ATTEMPTS
    error = Failure(type="PlatformError", message=f"attempt {cell.attempt} was lost: {reason}")
    step.leave(index, cancel=isinstance(event, Lost) and event.reason == "dead")
    step.record(
        index,
        AttemptRecord(
            attempt=cell.attempt,
            status=AttemptStatus.LOST,
            class_=AttemptClass.PLATFORM,
            worker=event.worker,
            queued_at=cell.time_ms,
            started_at=event.started_at,
            ended_at=step.now,
            error=error,
            decision="retry" if again else "stop",
            reason=f"platform retry {lost} of {limit}" if again else f"all {limit} platform retries are used",
        ),
    )
    why = {"reason": event.reason, "silent_ms": event.silent_ms} if isinstance(event, Lost) else {"reason": reason}
    if isinstance(event, Lost) and event.detail:
        why["detail"] = event.detail
    step.tell("node.lost", index, {**why, "worker": event.worker, "lost": lost, "limit": limit})
    if again:
        step.dispatch(index, x.inputs[index], lost=lost)
    else:
        cascade.give_up(step, index, error, lost=lost)


def _unsendable(step: Step, event: Unsendable) -> None:
    index = _addressed(step, event)
    if index is None:
        return
    step.leave(index)
    step.record(
        index,
        AttemptRecord(
            attempt=event.attempt,
            status=AttemptStatus.FAILED,
            class_=AttemptClass.PLATFORM,
            queued_at=step.x.cells[index].time_ms,
            ended_at=step.now,
            error=event.error,
            decision="stop",
            reason="the log refuses the task message for good",
        ),
    )
    cascade.give_up(step, index, event.error)
    cascade.settle(step)


def _decision(step: Step, event: Decision) -> None:
    index = _addressed(step, event)
    if index is None or not step.x.is_undecided(index):
        return
    delay_ms, reason = event.delay_ms, event.reason
    if event.attempt >= MOST_ATTEMPTS:
        delay_ms, reason = None, f"an attempt's number cannot exceed {MOST_ATTEMPTS}"
    last = step.x.attempts[index][-1]
    step.clear_timer("decide", index)
    step.decide_last(index, "stop" if delay_ms is None else "retry", reason)
    data = {"delay_ms": delay_ms, "reason": reason, "policy": event.policy}
    step.tell("node.decided", index, data)
    if delay_ms is not None:
        step.set_timer("retry", index, step.now + max(0, delay_ms))
        return
    error = last.error or Failure(type="UnknownError", message="")
    cascade.give_up(step, index, error, worker=last.worker)
    cascade.settle(step)


def _timer(step: Step, event: Timer) -> None:
    if event.timer == "deadline":
        _deadline(step)
        return
    index = _addressed(step, event)
    if event.timer != "retry" or index is None or step.x.is_undecided(index):
        return
    step.clear_timer("retry", index)
    step.ready(index)
    cascade.settle(step)


def _deadline(step: Step) -> None:
    x = step.x
    if x.status is not ExecutionStatus.RUNNING or x.plan_of().timeout_ms is None:
        return
    if x.error is None:
        message = f"the execution did not end within {x.plan_of().timeout_ms} ms"
        x.error = Failure(type="TimeoutError", message=message)
        step.touch("error")
    cascade.end_all(step, "the execution's time is over")
    cascade.end(step, ExecutionEvent.FAIL)


def _expired(step: Step, event: Expired) -> None:
    x = step.x
    if x.ended_at is None or event.ts - x.ended_at < LATE_MS:
        return
    step.partition.expired = max(step.partition.expired, x.ended_at)
    for verb in ("trigger", "cancel"):
        step.effect(Accepted(f"{x.id}/{verb}"))
    step.effect(Deleted(x.id, x.name, x.labels, x.status, step.partition.expired))
    step.outcome.execution = None


def _expanded(_step: Step, _event: Expanded) -> None:
    """Reserved: no node of this version is dynamic."""


_HANDLERS: dict[type, Callable[[Step, Any], None]] = {
    Created: _created,
    Triggered: _triggered,
    Cancelled: _cancelled,
    Result: _result,
    Lost: _lost,
    Unsendable: _unsendable,
    Decision: _decision,
    Timer: _timer,
    Expired: _expired,
    Expanded: _expanded,
}
