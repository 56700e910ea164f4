"""The end of an execution: its nodes have ended, then what is to be undone is undone, then `finally` runs.

Meanwhile it is RUNNING with `ending` set to the status that it will have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wf_core import ids
from wf_core.states import ExecutionStatus, ScopeState
from wf_core.wire import Cause, Failure
from wf_orchestrator.machine import compensation, concurrency, evaluate, failure, scopes
from wf_orchestrator.machine.effects import ClearTimer, SetTimer
from wf_orchestrator.machine.scope import FINAL, ROOT
from wf_orchestrator.machine.step import summary
from wf_orchestrator.machine.transitions import ExecutionEvent

if TYPE_CHECKING:
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

_EVENTS = {
    ExecutionStatus.COMPLETED: ExecutionEvent.COMPLETE,
    ExecutionStatus.FAILED: ExecutionEvent.FAIL,
    ExecutionStatus.CANCELLED: ExecutionEvent.CANCEL,
}


def nodes_ended(step: Step) -> None:
    """Every node of the document has ended."""
    x = step.x
    if x.ending:
        return
    fate = step.fates.get(ROOT)
    if fate is not None:
        _take_fate(step, ExecutionStatus(fate.state), fate.output, fate.error)
        return
    status = ExecutionStatus.FAILED
    if x.error is None:
        try:
            x.output = evaluate.output(x, x.root)
            status = ExecutionStatus.COMPLETED
            step.touch("output")
        except evaluate.EVALUATION_ERRORS as error:
            x.error = Failure(type=type(error).__name__, message=str(error))
            step.touch("error")
    begin(step, status)


def _take_fate(step: Step, status: ExecutionStatus, output: bytes | None, error: Failure | None) -> None:
    """An `end` node has ended the execution."""
    x = step.x
    x.output, x.error = output, error
    step.touch("output", "error")
    begin(step, status)


def begin(step: Step, status: ExecutionStatus) -> None:
    """The execution will end as `status`, once what follows its nodes has run."""
    x = step.x
    _clear_deadline(step)
    x.ending = status.value
    x.root.error = x.error
    step.touch("ending")
    go_on(step)
    if x.status.is_terminal:  # nothing followed: an older release, which knows no such fields, may read this execution
        for name in ("ending", "stage"):
            step.dirty.pop(name, None)


def go_on(step: Step) -> None:
    """The next thing to undo, then `finally`, then the end. Nothing while one of them runs, or while paused."""
    x = step.x
    if not x.ending or x.stage:
        return
    if x.ending != ExecutionStatus.COMPLETED and x.compensations:
        if not x.is_paused:
            _undo_next(step)
        return
    final = x.scopes.get(FINAL)
    if final is not None and final.left:
        if not x.is_paused:
            step.opening.append(final)
            _enter(step, FINAL)
        return
    end(step, _EVENTS[ExecutionStatus(x.ending)])


def _enter(step: Step, stage: str) -> None:
    step.x.stage = stage
    step.touch("stage")


def _undo_next(step: Step) -> None:
    x = step.x
    index = compensation.last(x)
    if index is None:
        raise LookupError("nothing is to be undone")
    kept = x.compensations.pop(index)
    step.keep("c:" + x.path(index), None)
    body = x.node(index).compensate
    if body is None:
        raise LookupError(f"nothing undoes {x.path(index)!r}")
    scope = scopes.open_scope(step, index, 0, x.path(index) + ids.COMPENSATION, body)
    _enter(step, scope.key)
    if kept.error:
        step.opening.remove(scope)
        failure.reject(step, scope.base, Failure(type="ExpressionError", message=kept.error, fatal=True))
        return
    x.inputs[scope.base] = kept.params
    step.keep("i:" + scope.key, kept.params)


def is_compensation(x: Execution, scope: Scope) -> bool:
    """Whether the scope undoes a node."""
    return scope.key == x.stage


def compensated(step: Step, scope: Scope) -> None:
    """A node was undone, or could not be: an execution that was to be CANCELLED is FAILED then, for that reason."""
    x = step.x
    _enter(step, "")
    if scope.state is ScopeState.FAILED and x.ending != ExecutionStatus.FAILED:
        _blame(step, scope.error)
    go_on(step)


def finally_ended(step: Step, scope: Scope) -> None:
    """The nodes of `finally` have ended."""
    x = step.x
    if x.stage != FINAL:
        return
    _enter(step, "")
    fate = step.fates.get(FINAL)
    error = scope.error
    if fate is not None:  # what ended only itself as CANCELLED fails nothing, whatever it says
        error = fate.error if fate.state is ScopeState.FAILED else None
    if error is not None and x.ending == ExecutionStatus.COMPLETED:
        _blame(step, error)
    end(step, _EVENTS[ExecutionStatus(x.ending)])


def _blame(step: Step, error: Failure | None) -> None:
    """The execution will be FAILED after all: for this error, and not for what an `end` node said of the status before.

    That is kept as a cause.
    """
    x = step.x
    x.ending = ExecutionStatus.FAILED.value
    step.touch("ending")
    if error is not None:
        if x.error is not None:
            before = Cause(type=x.error.type, message=x.error.message)
            error = msgspec.structs.replace(error, causes=(*error.causes, before))
        x.error = x.root.error = error
        step.touch("error")
        step.tell("execution.failing", None, summary(error))


def stop(step: Step, reason: str, status: ExecutionStatus) -> None:
    """Ends every node at once, and then the execution.

    Clean-up still runs, unless the execution was never started, or this is the second time that it is asked.
    """
    x = step.x
    if x.hold is not None and x.hold.is_waiting and x.is_live:
        stop_unstarted(step, reason, status)
        return
    if x.is_live and not x.ending:
        scopes.end_all(step, x.root, reason)
        begin(step, status)
        return
    _end_now(step, reason, _EVENTS[status])


def stop_unstarted(step: Step, reason: str, status: ExecutionStatus) -> None:
    """Ends a live execution of which nothing has started: nothing is cleaned up."""
    _end_now(step, reason, _EVENTS[status])


def crash(step: Step) -> None:
    """Ends everything at once: the machine itself failed."""
    _end_now(step, "internal error", ExecutionEvent.CRASH)


def _end_now(step: Step, reason: str, event: ExecutionEvent) -> None:
    """Ends every node, those that clean up as well, and the execution."""
    for scope in list(step.x.scopes.values()):
        if scope.is_open:
            scopes.end_all(step, scope, reason)
    end(step, event)


def _clear_deadline(step: Step) -> None:
    x = step.x
    if x.is_live and not x.ending and (x.plan is None or x.plan.timeout_ms is not None):
        step.effect(ClearTimer("deadline", ids.token(x.id, "", 0)))


def end(step: Step, event: ExecutionEvent) -> None:
    """Ends the execution, whose nodes have all ended."""
    x = step.x
    _clear_deadline(step)
    step.turn(event)
    x.ended_at = step.now
    if x.ending or x.stage:
        x.ending = x.stage = ""
        step.touch("ending", "stage")
    step.touch("ended_at")
    step.tell("execution.ended", None, summary(x.error) if x.error else None)
    concurrency.release(step)
    if x.parent is not None:
        step.effect(SetTimer("child", ids.token(x.id, "", 0), step.now))
    x.forget()
