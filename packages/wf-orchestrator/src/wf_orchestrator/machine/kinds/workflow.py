"""`workflow`: a child execution in the same partition. The shell starts and closes it; timers are what it is told by.

`spawn` (of the attempt)        start the child: cleared when its `triggered` is folded
`close` (of the attempt)        cancel the child: cleared when it is told, see `closing`
`down` (of the child)           pause or resume the child: cleared when it is told, see `passed_down`; one that is
                                abandoned during a pause is resumed
`child` (of the child)          tell the parent how it ended: cleared when `child_ended` is folded
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from wf_core import ids, payload
from wf_core.definitions import MOST_DEPTH
from wf_core.states import ExecutionStatus, NodeStatus
from wf_core.wire import Cancelled, Cause, ChildEnded, Failure, Paused, Resumed, Timer
from wf_orchestrator.machine import evaluate, failure
from wf_orchestrator.machine.effects import ClearTimer, SetTimer
from wf_orchestrator.machine.kinds.nothing import no_bodies, nothing_to_open
from wf_orchestrator.machine.step import Kind

if TYPE_CHECKING:
    from wf_core.plan import ChildPlan
    from wf_core.wire import Event
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

OUTSIDE_TIMERS = frozenset({"spawn", "close", "down", "child"})
"""Timers for what happens in another execution. A `timer` record of one of these says that it is of no use any more:
of `spawn` it is for the parent, of the others for the child; `close` has the parent's token as its node."""
_CLOSING = "close:"
_VERBS = ("pause", "resume")


def begin(step: Step, index: int) -> None:
    """Evaluates the child's input, and has the shell start the child."""
    x, spec = step.x, _spec(step.x, index)
    path = x.path(index)
    if x.depth >= MOST_DEPTH:
        message = f"{path!r} would start an execution below {MOST_DEPTH + 1} others, and {MOST_DEPTH} are the most"
        failure.reject(step, index, Failure(type="DepthLimitError", message=message, fatal=True))
        return
    try:
        data = evaluate.encoded(x, index, spec.input, f"the input of the child {path!r}", 1)
    except evaluate.EVALUATION_ERRORS as error:
        failure.reject(step, index, evaluate.failure_of(error))
        return
    step.open_node(index)
    step.start_timeout(index)
    x.inputs[index] = data
    step.keep("i:" + path, data)
    child = ids.child_execution_id(x.token(index))
    step.keep("ch:" + path, payload.encode(child))
    step.set_timer("spawn", index, step.now)
    step.tell("node.child", index, {"execution_id": child})


def ended(step: Step, index: int, event: ChildEnded) -> None:
    """The child of the current attempt has ended, or could not be started."""
    step.clear_timer("spawn", index)
    if event.status == ExecutionStatus.COMPLETED:
        failure.complete(step, index, b"null" if event.output is None else event.output)
    else:
        failure.fail_open(step, index, _failure(event))


def _failure(event: ChildEnded) -> Failure:
    """The child's own error, and as its cause where it began."""
    if event.status != ExecutionStatus.FAILED:
        return _cancelled(event)
    said = event.error or Failure(type="UnknownError", message=f"the child execution {event.child} failed")
    where = f" at its node {said.node!r}" if said.node else ""
    return Failure(
        type=said.type,
        message=said.message,
        classes=(*(said.classes or (said.type,)), "ChildFailedError"),
        fatal=said.fatal,
        causes=(
            Cause(type="ChildFailedError", message=f"the child execution {event.child} failed{where}"),
            *said.causes,
        ),
    )


def _cancelled(event: ChildEnded) -> Failure:
    """With the reason that the child's `end` node gave, if any, which a `catch` may name."""
    kind, message = "ChildCancelledError", f"the child execution {event.child} was cancelled"
    if (said := event.error) is None:
        return Failure(type=kind, message=message)
    return Failure(type=kind, message=f"{message}: {said.message}", classes=(kind, *(said.classes or (said.type,))))


def _drop(step: Step, index: int, _reason: str) -> None:
    step.clear_timer("spawn", index)
    if _spec(step.x, index).on_parent_close == "cancel":
        step.set_timer("close", index, step.now)
    elif step.x.is_paused:  # the child is on its own from now on: nobody else would resume it
        _pass_down(step, index, "resume")


def signal_down(step: Step, verb: str) -> None:
    """Has the shell pass a `pause` or `resume`, which was just obeyed, on to every child that runs."""
    x = step.x
    for index, cell in enumerate(x.cells):
        if cell.status is NodeStatus.WAITING and x.node(index).kind == "workflow" and not x.is_held(index):
            _pass_down(step, index, verb)


def _pass_down(step: Step, index: int, verb: str) -> None:
    x = step.x
    command = f"{verb}:{step.outcome.offset}:{x.commands[-1][0]}"
    step.effect(SetTimer("down", ids.token(ids.child_execution_id(x.token(index)), command, 0), step.now))


def closing(token: str) -> str:
    """The id of the command that cancels the child of an attempt (`token`) that has ended first."""
    return _CLOSING + token


class Word(NamedTuple):
    """What is passed down to a child: `place` orders what was said in the same millisecond."""

    place: int
    verb: str
    child: str
    command: str
    """The id of the command to the child."""


def passed_down(token: str) -> Word:
    """What a timer `down` stands for; see `signal_down`."""
    child, command, _ = ids.split_token(token)
    verb, place, _ = command.split(":", 2)
    return Word(int(place), verb, child, command)


def waiting(x: Execution, token: str) -> int | None:
    """The node of an attempt that waits for its child; None when it does so no more."""
    _, path, attempt = ids.split_token(token)
    index = x.index_of(path) if x.is_live else None
    if index is None:
        return None
    cell = x.cells[index]
    waits = cell.status is NodeStatus.WAITING and cell.attempt == attempt and not x.is_held(index)
    return index if waits and x.node(index).kind == "workflow" else None


def answered(event: Event, x: Execution | None) -> tuple[ClearTimer, ...]:
    """The timer, if any, that an event answers, whatever the execution `x` that it is for makes of it.

    A command to a child that does not exist yet is not answered: it comes again. What was found to be of no use is
    looked at again here: Redis may have been rolled back when that was found.
    """
    match event:
        case Timer(timer=kind) if kind in OUTSIDE_TIMERS:
            return _given_up(event, x)
        case ChildEnded():
            return (ClearTimer("child", ids.token(event.child, "", 0)),)
        case Cancelled() if x is not None and event.id.startswith(_CLOSING):
            return (ClearTimer("close", event.id.removeprefix(_CLOSING)),)
        case Paused() | Resumed() if x is not None and event.id.partition(":")[0] in _VERBS:
            return (ClearTimer("down", ids.token(event.execution, event.id, 0)),)
    return ()


def _given_up(event: Timer, x: Execution | None) -> tuple[ClearTimer, ...]:
    token = ids.token(event.execution, event.node, event.attempt)
    if event.timer == "spawn":
        return (ClearTimer("spawn", token),) if x is None or waiting(x, token) is None else ()
    if x is not None:
        return ()
    return (ClearTimer(event.timer, event.node if event.timer == "close" else token),)


def _spec(x: Execution, index: int) -> ChildPlan:
    spec: Any = x.node(index).spec
    return spec  # type: ignore[no-any-return]


KIND = Kind(begin, no_bodies, nothing_to_open, _drop, "stay")
