"""`end`: ends the body that it is in, or the execution, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_core.states import ScopeState
from wf_core.wire import Failure
from wf_orchestrator.machine import evaluate, failure, scopes
from wf_orchestrator.machine.kinds.nothing import no_bodies, nothing_to_drop, nothing_to_open
from wf_orchestrator.machine.step import Fate, Kind

if TYPE_CHECKING:
    from wf_orchestrator.machine.step import Step

_REASON = "the node {node!r} has ended it"


def begin(step: Step, index: int) -> None:
    """Completes, and with it everything around it: what runs is cancelled, what has not started is skipped."""
    x, spec = step.x, _spec(step, index)
    scope, path = x.owner[index], x.path(index)
    try:
        what = f"the output of node {path!r}"
        output = evaluate.encoded(x, index, spec.output, what, evaluate.OUTPUT_FACTOR) if spec.output else b"null"
        error = None if spec.error is None else evaluate.render(x, index, spec.error)
    except evaluate.EVALUATION_ERRORS as problem:
        failure.reject(step, index, evaluate.failure_of(problem))
        return
    state = ScopeState(spec.status)
    says_why = state is ScopeState.FAILED or error is not None
    why = _failure(state, error, path, x.cells[index].attempt + 1) if says_why else None
    step.open_node(index)
    failure.complete(step, index, output)
    step.fates[scope.key] = Fate(state, output if state is ScopeState.COMPLETED else None, why)
    scopes.end_all(step, scope, _REASON.format(node=path), skip=True)


def _spec(step: Step, index: int) -> Any:
    return step.x.node(index).spec


def _failure(state: ScopeState, error: Any, path: str, attempt: int) -> Failure:
    """What the document says of the error: a sentence, or `{type, message}`."""
    type_ = "EndedError" if state is ScopeState.FAILED else "CancelledError"
    given = error if isinstance(error, dict) else {"message": error}
    message = given.get("message")
    if message is None:
        message = f"the node {path!r} ended it as {state.value}"
    return Failure(type=str(given.get("type") or type_), message=str(message), node=path, attempt=attempt)


KIND = Kind(begin, no_bodies, nothing_to_open, nothing_to_drop, "cancel")
