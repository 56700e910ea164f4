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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from wf_core import ids
from wf_core.states import AttemptClass, AttemptStatus, ExecutionStatus, NodeStatus
from wf_core.store.codec import MOST_ATTEMPTS, AttemptRecord
from wf_core.wire import (
    Acquire,
    Answered,
    Cached,
    Cancelled,
    ChildEnded,
    Created,
    Decision,
    Document,
    Expanded,
    Expired,
    Failure,
    Holds,
    KeyAnswer,
    Lost,
    Paused,
    Release,
    Result,
    Resumed,
    Retried,
    Signalled,
    Timer,
    Triggered,
    Unsendable,
)
from wf_orchestrator.machine import (
    admission,
    caching,
    cascade,
    concurrency,
    continuing,
    control,
    ending,
    failure,
    fields,
    losses,
    retry,
    signals,
    timeouts,
)
from wf_orchestrator.machine.effects import Accepted, ClearTimer, Deleted, KeepDocument, Outcome, SetTimer
from wf_orchestrator.machine.kinds import KINDS, approval, dynamic, loop, map, wait, workflow  # noqa: A004 - a kind
from wf_orchestrator.machine.state import Execution
from wf_orchestrator.machine.step import Step
from wf_orchestrator.machine.transitions import EXECUTION, LISTENING, ExecutionEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wf_core.plan import Plan
    from wf_core.wire import Command, Event
    from wf_orchestrator.machine.effects import Effect
    from wf_orchestrator.machine.state import PartitionState

NodeRecord = Result | Lost | Decision | Unsendable | ChildEnded | Expanded

LATE_MS = 600_000
"""An execution stays for at least so long after its end: any copy of a command that may still come finds it."""


def decide(
    partition: PartitionState, execution: Execution | None, event: Event, offset: int, plan: Plan | None = None
) -> Outcome:
    """Folds one event. See the module's docstring."""
    partition.ts = max(partition.ts, event.ts)
    outcome = Outcome(offset, execution)
    outcome.effects += workflow.answered(event, execution)
    if (effects := _of_no_execution(partition, event, exists=execution is not None)) is not None:
        outcome.effects += effects
        return outcome
    if isinstance(event, Created):
        outcome.effects.append(Accepted(f"{event.execution}/create"))
        if execution is not None or event.ts <= partition.expired:
            return outcome
        outcome.execution = execution = Execution.create(event, plan, partition.ts)
    elif execution is None:
        return outcome
    step = Step(partition, outcome, execution, KINDS)
    try:
        if handler := _HANDLERS.get(type(event)):
            handler(step, event)
        if execution.plan is None and not execution.status.is_terminal:
            raise LookupError(f"the document {execution.document} is missing")  # noqa: TRY301 - as any other error
        step.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, it must end this execution only
        outcome.crash = traceback.format_exc()
        _crash(step, error)
    return outcome


def _of_no_execution(partition: PartitionState, event: Event, *, exists: bool) -> list[Effect] | None:
    """What an event causes that is about no execution here, or about none any more; None for any other."""
    match event:
        case Document():
            return [KeepDocument(event.hash, event.part, event.parts, event.data)]
        case Acquire() | Holds() | Release():
            return concurrency.fold(partition, event)
        case KeyAnswer() if not exists:
            return admission.unwanted(event)
    return None


def _crash(step: Step, error: Exception) -> None:
    x = step.x
    if x.status.is_terminal:
        return
    x.error = Failure(type="InternalError", message=f"{type(error).__name__}: {error}")
    step.touch("error")
    ending.crash(step)
    step.close()


def _created(step: Step, _event: Created) -> None:
    x = step.x
    step.outcome.moved = (None, x.status)
    step.touch(*(name for name in fields.FIELDS if name not in fields.RARE or getattr(x, name)), "counts")
    step.tell("execution.created")


def _triggered(step: Step, event: Triggered) -> None:
    if not _obeys(step, event, "trigger", ExecutionEvent.TRIGGER):
        return
    x = step.x
    if x.parent is not None:  # not before: the log may lose its tail between `created` and this
        step.effect(ClearTimer("spawn", ids.token(x.parent.execution, x.parent.node, x.parent.attempt)))
    if event.input is not None:
        x.input = event.input
        x.values.clear()
        step.touch("input")
    step.turn(ExecutionEvent.TRIGGER)
    x.started_at = step.now
    step.touch("started_at")
    step.tell("execution.triggered")
    timeout_ms = x.plan_of().timeout_ms
    if timeout_ms is not None:
        step.effect(SetTimer("deadline", ids.token(x.id, "", 0), step.now + timeout_ms))
    if admission.admit(step):
        step.opening.append(x.root)
        cascade.settle(step)


def _cancelled(step: Step, event: Cancelled) -> None:
    if not _obeys(step, event, "cancel", ExecutionEvent.CANCEL):
        return
    step.tell("execution.cancelling", None, {"reason": event.reason})
    ending.stop(step, event.reason or "cancelled", ExecutionStatus.CANCELLED)
    cascade.settle(step)


def _paused(step: Step, event: Paused) -> None:
    if _obeys(step, event, f"pause:{event.id}", ExecutionEvent.PAUSE):
        step.turn(ExecutionEvent.PAUSE)
        control.paused(step, event)


def _resumed(step: Step, event: Resumed) -> None:
    if _obeys(step, event, f"resume:{event.id}", ExecutionEvent.RESUME):
        step.turn(ExecutionEvent.RESUME)
        control.resumed(step)


def _retried(step: Step, event: Retried) -> None:
    if step.x.plan is None:  # it still runs no more than before: its document is missing
        step.effect(Accepted(f"{event.execution}/retry:{event.id}"))
    elif _obeys(step, event, f"retry:{event.id}", ExecutionEvent.RETRY):
        retry.retried(step, event)


def _obeys(step: Step, event: Command, verb: str, what: ExecutionEvent) -> bool:
    """Whether a command is new and possible here. Either way it was folded."""
    step.effect(Accepted(f"{event.execution}/{verb}"))
    known = any(command == event.id for command, _ in step.x.commands)
    if known or event.ts <= step.partition.expired or what not in EXECUTION[step.x.status]:
        return False
    step.obey(event)
    return True


def _addressed(step: Step, event: NodeRecord | Timer, status: NodeStatus | None = None) -> int | None:
    """The node that a record is about, if it listens: a live execution, right status, current attempt."""
    x = step.x
    index = x.index_of(event.node) if x.is_live else None
    if index is None:
        return None
    cell = x.cells[index]
    listens = cell.status is (status or LISTENING[str(event.__struct_config__.tag)]) and cell.attempt == event.attempt
    return index if listens else None


def _result(step: Step, event: Result) -> None:
    index = _addressed(step, event)
    if index is None:
        continuing.burn(step, event)
        return
    if event.status == AttemptStatus.COMPLETED:
        _complete(step, index, event)
    elif event.status == AttemptStatus.CANCELLED:
        losses.lose(step, index, event, "cancelled by its worker although it is still wanted")
    else:
        _fail(step, index, event)
    cascade.settle(step)


def _complete(step: Step, index: int, event: Result) -> None:
    output = b"null" if event.output is None else event.output
    caching.store(step, index, output)
    step.leave(index)
    failure.finish_completed(step, index, _record(step, index, event, AttemptStatus.COMPLETED), output)
    data = {"worker": event.worker, "started_at": event.started_at, "ended_at": event.ended_at}
    step.tell("node.completed", index, data)
    if event.begin is not None:
        continuing.begin(step, index, event)


def _fail(step: Step, index: int, event: Result) -> None:
    timed_out = event.status == AttemptStatus.TIMED_OUT
    status = AttemptStatus.TIMED_OUT if timed_out else AttemptStatus.FAILED
    class_ = AttemptClass.TIMEOUT if timed_out else AttemptClass.USER
    error = event.error or Failure(type="UnknownError", message=f"the worker said {event.status} and no more")
    step.leave(index)
    stop = "" if step.x.is_wanted(index) else "nothing is tried again after the failure of the execution"
    failure.fail_attempt(step, index, _record(step, index, event, status, class_), error, stop)


def _record(
    step: Step, index: int, event: Result, status: AttemptStatus, class_: AttemptClass | None = None
) -> AttemptRecord:
    return AttemptRecord(
        attempt=event.attempt,
        status=status,
        class_=class_,
        worker=event.worker,
        package=event.package,
        worker_package=event.worker_package,
        host=event.host,
        log_tail=event.log_tail,
        queued_at=step.x.cells[index].time_ms,
        started_at=event.started_at,
        ended_at=event.ended_at,
    )


def _lost(step: Step, event: Lost) -> None:
    index = _addressed(step, event)
    if index is not None:
        losses.lost(step, index, event)
        cascade.settle(step)


def _unsendable(step: Step, event: Unsendable) -> None:
    index = _addressed(step, event)
    if index is not None:
        losses.unsendable(step, index, event)
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
    failure.give_up(step, index, error, worker=last.worker)
    cascade.settle(step)


def _timer(step: Step, event: Timer) -> None:
    if event.timer == "deadline":
        _deadline(step)
        return
    if event.timer == "total":
        timeouts.total_over(step, event)
        return
    listening, handle = TIMERS.get(event.timer, (None, None))
    if listening is None or handle is None:
        return
    index = _addressed(step, event, listening)
    if index is not None:
        handle(step, index)
        cascade.settle(step)


def _retry_due(step: Step, index: int) -> None:
    if step.x.is_undecided(index):
        return
    step.clear_timer("retry", index)
    step.ready(index)


def _next_bodies(step: Step, index: int) -> None:
    (map.go_on if step.x.node(index).kind == "map" else loop.delay_over)(step, index)


def _for_open(kind: str, handle: Callable[[Step, int, Any], None]) -> Callable[[Step, Any], None]:
    """The handler of a record that is for a node of a kind while its attempt is open."""

    def handler(step: Step, event: ChildEnded | Expanded) -> None:
        index = _addressed(step, event)
        if index is not None and not step.x.is_held(index) and step.x.node(index).kind == kind:
            handle(step, index, event)
            cascade.settle(step)

    return handler


def _deadline(step: Step) -> None:
    x = step.x
    timeout_ms = x.plan_of().timeout_ms if x.is_live and not x.ending else None
    if timeout_ms is None:
        return
    if x.error is None:
        message = f"the execution did not end within {timeout_ms} ms"
        x.error = Failure(type="TimeoutError", message=message)
        step.touch("error")
    ending.stop(step, "the execution's time is over", ExecutionStatus.FAILED)
    cascade.settle(step)


def _expired(step: Step, event: Expired) -> None:
    x = step.x
    if x.ended_at is None or event.ts - x.ended_at < LATE_MS:
        return
    step.partition.expired = max(step.partition.expired, x.ended_at)
    for verb in ("trigger", "cancel"):
        step.effect(Accepted(f"{x.id}/{verb}"))
    step.effect(Deleted(x.id, x.name, x.labels, x.status, step.partition.expired))
    step.outcome.execution = None


TIMERS: Mapping[str, tuple[NodeStatus, Callable[[Step, int], None]]] = MappingProxyType(
    {
        "retry": (NodeStatus.RETRYING, _retry_due),
        "pass": (NodeStatus.WAITING, _next_bodies),
        "timeout": (NodeStatus.WAITING, timeouts.attempt_over),
        "wait": (NodeStatus.WAITING, wait.time_has_come),
        "approval": (NodeStatus.WAITING, approval.time_is_over),
    }
)
"""Timer → the status in which a node listens for it, and what it does then."""

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
    Paused: _paused,
    Resumed: _resumed,
    Retried: _retried,
    Signalled: signals.signalled,
    Answered: approval.answered,
    KeyAnswer: admission.answered,
    Cached: caching.answered,
    ChildEnded: _for_open("workflow", workflow.ended),
    Expanded: _for_open("dynamic", dynamic.expanded),
}
