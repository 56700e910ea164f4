"""`map`: a body for each item, so many at once; the outputs in the order of the items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from wf_core import payload
from wf_core.expressions.values import kind
from wf_core.sentences import counted
from wf_core.states import ScopeState
from wf_core.wire import Failure
from wf_orchestrator.machine import evaluate, failure, scopes
from wf_orchestrator.machine.scope import Progress
from wf_orchestrator.machine.step import Kind

if TYPE_CHECKING:
    from wf_core.plan import MapPlan
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

MOST_AT_ONCE = 10_000
"""Bodies that are opened in one step, after the first of a map; a timer opens more: no step is as long as a lease."""


def begin(step: Step, index: int) -> None:
    """Evaluates the items and opens as many bodies as may run at once."""
    x, spec = step.x, _spec(step.x, index)
    if x.cells[index].attempt:
        scopes.retire(step, index)
    what = f"the list of items of {x.path(index)!r}"
    try:
        items = evaluate.render(x, index, spec.items)
        data = payload.encode(items, limit=x.settings.max_payload_bytes * evaluate.OUTPUT_FACTOR, what=what)
    except evaluate.EVALUATION_ERRORS as error:
        failure.reject(step, index, evaluate.failure_of(error))
        return
    if not isinstance(items, list):
        message = f"`items` of the map {x.path(index)!r} must give a list; this gives {kind(items)}"
        failure.reject(step, index, Failure(type="TypeError", message=message, fatal=True))
        return
    step.open_node(index)
    step.start_timeout(index)
    x.inputs[index] = data
    step.keep("i:" + x.path(index), data)
    x.progress[index] = Progress(total_of(items, spec))
    advance(step, index)


def total_of(items: list[Any], spec: MapPlan) -> int:
    """How many bodies a list of items makes."""
    return len(items) if spec.batch is None else -(-len(items) // spec.batch)


def advance(step: Step, index: int) -> None:
    """Opens what may be opened; ends the map when nothing is left."""
    x, spec = step.x, _spec(step.x, index)
    progress = x.progress[index]
    if x.is_paused:
        return
    most = spec.max_parallel or progress.total
    going = x.is_wanted(index) and progress.failed <= tolerated(spec, progress.total)
    while going and progress.held and progress.open < most:
        _wake(step, x.inside[index][progress.held.pop(0)])
        progress.open += 1
    while going and progress.opened < progress.total and progress.open < most:
        if step.opened >= MOST_AT_ONCE and progress.opened:
            step.set_timer("pass", index, step.now)
            return
        if not scopes.has_room(x, spec.body):
            _no_room(step, index)
            return
        number = progress.opened
        progress.opened += 1
        progress.open += 1
        scopes.open_scope(step, index, number, f"{x.path(index)}[{number}]", spec.body)
    if not progress.open:
        _end(step, index)


def go_on(step: Step, index: int) -> None:
    """The timer `pass` is due: more bodies are opened than were in one step."""
    if index in step.x.progress and not step.x.is_paused:
        step.clear_timer("pass", index)
        advance(step, index)


def _drop(step: Step, index: int, _reason: str) -> None:
    """No more bodies are waited for."""
    step.clear_timer("pass", index)


def _wake(step: Step, scope: Scope) -> None:
    """An item that was opened again has a place now; so has all that is inside it."""
    scope.held = False
    step.touch_scope(scope)
    woken = [scope]
    for one in woken:  # the list is the queue as well
        for index in range(one.base, one.end):
            woken += step.x.inside.get(index, {}).values()
    step.waking.extend(one for one in woken if one.is_open)


def body_ended(step: Step, index: int, scope: Scope) -> None:
    """An item is done."""
    progress = step.x.progress[index]
    progress.open -= 1
    progress.failed += scope.state is ScopeState.FAILED
    advance(step, index)


def tolerated(spec: MapPlan, total: int) -> int:
    """How many of the bodies may fail."""
    return int(spec.tolerate_share * total) if spec.tolerate_share is not None else spec.tolerate


def _no_room(step: Step, index: int) -> None:
    message = f"an execution holds at most {scopes.MOST_CELLS:,} nodes, and the map {step.x.path(index)!r} needs more"
    failure.fail_open(step, index, Failure(type="TooManyNodesError", message=message, fatal=True), drop=True)


def _end(step: Step, index: int) -> None:
    x, spec = step.x, _spec(step.x, index)
    progress, inside = x.progress[index], x.inside.get(index, {})
    step.clear_timer("pass", index)
    most = tolerated(spec, progress.total)
    if progress.failed > most:
        failure.fail_open(step, index, _too_many(x, index, most))
        return
    if (
        progress.held
        or progress.opened < progress.total
        or any(one.state is ScopeState.CANCELLED for one in inside.values())
    ):
        scopes.cancel(step, index, failure.HALTED)
        return
    try:
        output = _output(x, index, [inside[number] for number in range(progress.total)])
    except evaluate.EVALUATION_ERRORS as error:
        failure.fail_open(step, index, evaluate.failure_of(error))
        return
    failure.complete(step, index, output)


def _too_many(x: Execution, index: int, most: int) -> Failure:
    """The failure of the map: what its first failed item says."""
    progress = x.progress[index]
    first = next(s for s in x.inside[index].values() if s.state is ScopeState.FAILED)
    said = first.error or Failure(type="UnknownError", message="")
    tolerated_ = f", {most:,} {'is' if most == 1 else 'are'} tolerated" if most else ""
    message = (
        f"{progress.failed:,} of {counted(progress.total, 'item')} failed{tolerated_}; {first.key}: {said.message}"
    )
    return Failure(type=said.type, message=message, node=said.node or x.path(index), attempt=said.attempt)


def _output(x: Execution, index: int, bodies: list[Scope]) -> bytes:
    """One JSON list of the items' outputs. Raises PayloadError when it is too long, or a batch gave no list for it."""
    spec = _spec(x, index)
    parts = [b"null" if one.output is None else one.output for one in bodies]
    if spec.batch is not None:
        parts = [part for one in bodies for part in _unbatched(x, one)]
    limit = x.settings.max_payload_bytes * evaluate.OUTPUT_FACTOR
    size = sum(map(len, parts)) + len(parts) + 1
    if size > limit:
        raise evaluate.too_long(f"the output of the map {x.path(index)!r}", size, limit)
    return b"[" + b",".join(parts) + b"]"


def _unbatched(x: Execution, scope: Scope) -> list[bytes]:
    """The outputs of the items of one batch."""
    size = len(evaluate.item(x, scope))
    if scope.output is None or scope.state is not ScopeState.COMPLETED:
        return [b"null"] * size
    try:
        parts = msgspec.json.decode(scope.output, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        raise evaluate.wrong_batch(scope.key, size, kind(payload.decode(scope.output))) from None
    if len(parts) != size:
        raise evaluate.wrong_batch(scope.key, size, f"a list of {len(parts):,}")
    return [bytes(part) for part in parts]


def _spec(x: Execution, index: int) -> MapPlan:
    spec: Any = x.node(index).spec
    return spec  # type: ignore[no-any-return]


KIND = Kind(begin, body_ended, advance, _drop, "inside")
