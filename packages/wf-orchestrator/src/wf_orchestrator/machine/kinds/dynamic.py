"""`dynamic`: nodes that a template gives. The shell checks them (timer `expand`), and then they are frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_core import payload
from wf_core.expressions.values import kind
from wf_core.plan import load_plan
from wf_core.states import ScopeState
from wf_core.wire import Failure
from wf_orchestrator.machine import evaluate, failure, scopes
from wf_orchestrator.machine.step import Kind

if TYPE_CHECKING:
    from wf_core.plan import Body, DynamicPlan
    from wf_core.wire import Expanded
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step


def begin(step: Step, index: int) -> None:
    """Evaluates the nodes, and has the shell check them; the nodes of an earlier attempt are started again."""
    x = step.x
    path = x.path(index)
    if x.cells[index].attempt:
        scopes.retire(step, index)
    try:
        nodes = evaluate.render(x, index, _spec(x, index).nodes)
        data = payload.encode(nodes, limit=x.settings.max_payload_bytes, what=f"the object of nodes of {path!r}")
    except evaluate.EVALUATION_ERRORS as error:
        failure.reject(step, index, evaluate.failure_of(error))
        return
    if not isinstance(nodes, dict | list):
        message = f"`nodes` of {path!r} must give an object of nodes by id; this gives {kind(nodes)}"
        failure.reject(step, index, Failure(type="TypeError", message=message, fatal=True))
        return
    frozen = x.scopes.get(path)
    step.open_node(index)
    step.keep("i:" + path, data)
    if not nodes and frozen is None:
        failure.complete(step, index, b"{}")
        return
    step.start_timeout(index)
    x.inputs[index] = data
    if frozen is None:
        step.set_timer("expand", index, step.now)
    else:
        _open(step, index, frozen.body, frozen.document)


def is_expanding(x: Execution, index: int) -> bool:
    """Whether an open node still waits for its nodes to be checked."""
    return not x.inside.get(index)


def expanded(step: Step, index: int, event: Expanded) -> None:
    """The nodes were checked. While the execution is paused they are not taken: the timer brings them again."""
    x = step.x
    if x.is_paused or not is_expanding(x, index):
        return
    step.clear_timer("expand", index)
    if event.error is not None:
        failure.fail_open(step, index, event.error)
        return
    _open(step, index, load_plan(event.document, "").root, event.document)


def _open(step: Step, index: int, body: Body, document: bytes) -> None:
    x = step.x
    if not scopes.has_room(x, body):
        message = f"an execution holds at most {scopes.MOST_CELLS:,} nodes, and {x.path(index)!r} needs more"
        failure.fail_open(step, index, Failure(type="TooManyNodesError", message=message, fatal=True))
        return
    scopes.open_scope(step, index, 0, x.path(index), body, document=document)


def body_ended(step: Step, index: int, scope: Scope) -> None:
    """Its nodes have ended, and so it has; the output of the document that holds them is that of all nodes by id."""
    if scope.state is ScopeState.FAILED:
        failure.fail_open(step, index, scope.error or Failure(type="UnknownError", message=""))
    elif scope.state is not ScopeState.CANCELLED:
        failure.complete(step, index, b"null" if scope.output is None else scope.output)
    elif step.x.is_wanted(index):
        failure.fail_open(step, index, Failure(type="CancelledError", message=f"{scope.key} was cancelled"))
    else:
        scopes.cancel(step, index, failure.HALTED)


def advance(step: Step, index: int) -> None:
    """After a pause: the check that was put off is done now."""
    if is_expanding(step.x, index):
        step.set_timer("expand", index, step.now)


def _drop(step: Step, index: int, _reason: str) -> None:
    if is_expanding(step.x, index):
        step.clear_timer("expand", index)


def _spec(x: Execution, index: int) -> DynamicPlan:
    spec: Any = x.node(index).spec
    return spec  # type: ignore[no-any-return]


KIND = Kind(begin, body_ended, advance, _drop, "inside")
