"""`approval`: a question to people, whose answer is the output. Holds no slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_core import payload
from wf_core.expressions.values import kind
from wf_core.sentences import lasting
from wf_core.states import NodeStatus
from wf_core.wire import Failure
from wf_orchestrator.machine import cascade, evaluate, failure
from wf_orchestrator.machine.effects import Accepted
from wf_orchestrator.machine.kinds import overdue
from wf_orchestrator.machine.kinds.nothing import no_bodies, nothing_to_open
from wf_orchestrator.machine.step import Kind

if TYPE_CHECKING:
    from wf_core.plan import ApprovalPlan
    from wf_core.wire import Answered
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

CURRENT = 0
"""As the attempt that an answer is for: whichever is open."""


def begin(step: Step, index: int) -> None:
    """Asks: who may answer, and what fits, is there to be read as the node's input."""
    x, spec = step.x, _spec(step.x, index)
    path = x.path(index)
    limit = x.settings.max_payload_bytes * evaluate.PARAMS_FACTOR
    try:
        assignees = evaluate.render(x, index, spec.assignees)
        question = {"assignees": [assignees] if isinstance(assignees, str) else assignees, "schema": spec.schema}
        data = payload.encode(question, limit=limit, what=f"what {path!r} asks")
    except evaluate.EVALUATION_ERRORS as error:
        failure.reject(step, index, evaluate.failure_of(error))
        return
    names = question["assignees"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        found = "a list that holds something else" if isinstance(names, list) else kind(names)
        message = f"`assignees` of {path!r} must give a list of names; this gives {found}"
        failure.reject(step, index, Failure(type="TypeError", message=message, fatal=True))
        return
    step.open_node(index)
    x.inputs[index] = data
    step.keep("i:" + path, data)
    due = None if spec.timeout_ms is None else step.now + spec.timeout_ms
    if due is not None:
        step.set_timer("approval", index, due)
    step.tell("node.waiting", index, {"assignees": names, "due": due})


def answered(step: Step, event: Answered) -> None:
    """Folds an answer. One that comes when nobody asks (any more) changes nothing, and is no obeyed command."""
    x = step.x
    step.effect(Accepted(f"{event.execution}/answer:{event.id}"))
    index = x.index_of(event.node) if x.is_live else None
    if index is None or not _asks(x, index) or event.attempt not in (CURRENT, x.cells[index].attempt):
        return
    if any(known == event.id for known, _ in x.commands):
        return
    step.obey(event)
    step.tell("node.answered", index, {"by": event.by, "command": event.id})
    _clear(step, index)
    failure.complete(step, index, event.answer)
    cascade.settle(step)


def time_is_over(step: Step, index: int) -> None:
    """The timer `approval` has fired."""
    spec = _spec(step.x, index)
    if _asks(step.x, index):
        _clear(step, index)
        overdue.end(step, index, spec.on_timeout, f"no answer within {lasting(spec.timeout_ms or 0)}")


def _asks(x: Execution, index: int) -> bool:
    """Whether the node is an approval whose attempt is open."""
    waits = x.cells[index].status is NodeStatus.WAITING and not x.is_held(index)
    return waits and x.node(index).kind == "approval"


def _clear(step: Step, index: int) -> None:
    if _spec(step.x, index).timeout_ms is not None:
        step.clear_timer("approval", index)


def _drop(step: Step, index: int, _reason: str) -> None:
    _clear(step, index)


def _spec(x: Execution, index: int) -> ApprovalPlan:
    spec: Any = x.node(index).spec
    return spec  # type: ignore[no-any-return]


KIND = Kind(begin, no_bodies, nothing_to_open, _drop, "cancel")
