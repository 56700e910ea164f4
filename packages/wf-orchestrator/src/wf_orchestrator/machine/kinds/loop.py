"""`loop`: one body after the other, while or until a condition holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_core.states import ScopeState
from wf_core.wire import Failure
from wf_orchestrator.machine import evaluate, failure, scopes
from wf_orchestrator.machine.step import Kind

if TYPE_CHECKING:
    from wf_core.plan import LoopPlan
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

MOST_AT_ONCE = 500
"""Bodies that are opened in one step; the next pass after them is left to a timer, so that no step takes for ever."""


def begin(step: Step, index: int) -> None:
    """Starts with the first pass, if there is any."""
    if step.x.cells[index].attempt:
        scopes.retire(step, index)
        step.keep("i:" + step.x.path(index), None)
    step.open_node(index)
    step.start_timeout(index)
    _next(step, index)


def body_ended(step: Step, index: int, scope: Scope) -> None:
    """A pass is done: perhaps the last one."""
    x, spec = step.x, _spec(step.x, index)
    if scope.state is ScopeState.FAILED:
        said = scope.error or Failure(type="UnknownError", message="")
        failure.fail_open(step, index, said)
        return
    if scope.state is ScopeState.CANCELLED:
        scopes.cancel(step, index, failure.HALTED)
        return
    output = b"null" if scope.output is None else scope.output
    x.inputs[index] = output
    x.values.pop(("i", index), None)
    step.keep("i:" + x.path(index), output)
    if spec.until is not None:
        names = {"iteration": scope.number, "last": evaluate.last(x, index)}
        try:
            done = evaluate.holds_in(x, scope, spec.until, names)
        except evaluate.EVALUATION_ERRORS as error:
            failure.fail_open(step, index, evaluate.failure_of(error))
            return
        if done:
            failure.complete(step, index, output)
            return
    if spec.delay_ms or step.opened >= MOST_AT_ONCE:
        step.set_timer("pass", index, step.now + spec.delay_ms)
        _stop_unwanted(step, index)
    else:
        _next(step, index)


def advance(step: Step, index: int) -> None:
    """The next pass after a pause: when its delay is over."""
    x = step.x
    if _is_open(x, index):
        return
    due = _due(x, index)
    if due > step.now:
        step.set_timer("pass", index, due)
    else:
        step.clear_timer("pass", index)
        _next(step, index)


def delay_over(step: Step, index: int) -> None:
    """The timer `pass` is due; a copy of an earlier one is not."""
    x = step.x
    if x.node(index).kind != "loop" or _is_open(x, index) or step.now < _due(x, index):
        return
    step.clear_timer("pass", index)
    _next(step, index)


def _due(x: Execution, index: int) -> int:
    """When the next pass may begin: the delay counts from the end of the last one."""
    passes = x.inside.get(index, {})
    if not passes:
        return 0
    last = passes[next(reversed(passes))]
    ended = max(cell.time_ms for cell in x.cells[last.base : last.end])
    return ended + _spec(x, index).delay_ms


def _is_open(x: Execution, index: int) -> bool:
    """Whether a pass runs: only the last one may."""
    passes = x.inside.get(index, {})
    return bool(passes) and passes[next(reversed(passes))].is_open


def _stop_unwanted(step: Step, index: int) -> None:
    if not step.x.is_wanted(index):
        scopes.cancel(step, index, failure.HALTED)


def _next(step: Step, index: int) -> None:
    """Opens the next pass, if another one is wanted and allowed."""
    x, spec = step.x, _spec(step.x, index)
    if x.is_paused:
        return
    passes = x.inside.get(index, {})
    number = next(reversed(passes), -1) + 1
    names = {"iteration": number, "last": evaluate.last(x, index)}
    try:
        another = spec.while_ is None or evaluate.holds(x, index, spec.while_, names)
    except evaluate.EVALUATION_ERRORS as error:
        failure.fail_open(step, index, evaluate.failure_of(error))
        return
    if not another:
        failure.complete(step, index, x.inputs.get(index, b"null"))
        return
    if not x.is_wanted(index):
        scopes.cancel(step, index, failure.HALTED)
        return
    if number >= spec.max_iterations:
        failure.fail_open(step, index, _limit(x, index))
        return
    if spec.keep_last is not None and (old := passes.get(number - spec.keep_last)) is not None:
        scopes.forget(step, old)
    elif not scopes.has_room(x, spec.body):
        message = f"an execution holds at most {scopes.MOST_CELLS:,} nodes; give the loop {x.path(index)!r} `keep_last`"
        failure.fail_open(step, index, Failure(type="TooManyNodesError", message=message, fatal=True))
        return
    scopes.open_scope(step, index, number, f"{x.path(index)}#{number}", spec.body)


def _limit(x: Execution, index: int) -> Failure:
    spec = _spec(x, index)
    wanted = f"`while` ({spec.while_.text}) still holds" if spec.while_ else "`until` does not hold yet"
    if spec.until is not None:
        wanted = f"`until` ({spec.until.text}) does not hold yet"
    message = f"{wanted} after {spec.max_iterations:,} passes of the loop {x.path(index)!r} (max_iterations)"
    return Failure(type="LoopLimitError", message=message, fatal=True)


def _drop(step: Step, index: int, _reason: str) -> None:
    """No pass is waited for."""
    if not _is_open(step.x, index):
        step.clear_timer("pass", index)


def _spec(x: Execution, index: int) -> LoopPlan:
    spec: Any = x.node(index).spec
    return spec  # type: ignore[no-any-return]


KIND = Kind(begin, body_ended, advance, _drop, "inside")
