"""`retry`: an execution that has ended goes on, with the outputs that it has. What runs again is chosen in `reruns`.

The execution must have been loaded with all its results (`x.results`): nothing of them is in memory after an end. The
cells and bodies are changed as stored, and then the state is filled from them as it is after a load, so that one who
loads it later has the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_core import ids
from wf_core.states import AttemptStatus, NodeStatus, ScopeState
from wf_core.store.codec import pack_attempts, unpack_attempts
from wf_orchestrator.machine import admission, continuing, control, restore, scopes
from wf_orchestrator.machine.effects import SetTimer
from wf_orchestrator.machine.reruns import Reruns, choose
from wf_orchestrator.machine.scope import ROOT
from wf_orchestrator.machine.state import UNTOUCHED, Cell
from wf_orchestrator.machine.transitions import ExecutionEvent

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from wf_core.wire import Retried
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

_CLEARED = ("ended_at", "output", "error")


def retried(step: Step, event: Retried) -> None:
    """The execution goes on. Raises RuntimeError when it was not loaded with its results."""
    x = step.x
    if x.results is None or x.plan is None:
        raise RuntimeError(f"execution {x.id} was loaded without its results")
    again = choose(x, event.nodes, x.results)
    doubtful = _doubtful(x, x.results)
    step.turn(ExecutionEvent.RETRY)
    _open_execution(step, event)
    inside = _by_container(x)
    _drop(step, again.dropped, inside)
    for index in again.nodes:
        _begin_anew(step, index, doubtful)
        _drop(step, inside.get(index, ()), inside)
    for index in again.resumed:
        _resume(step, index, again)
    for scope in again.scopes:
        _open(step, scope)
    for index in again.resumed:
        _hold_back(step, index, [scope for scope in inside.get(index, ()) if scope.is_open])
    for scope in x.scopes.values():  # outer ones first
        scope.keeps = scope.parent >= 0 and scopes.keeps(x, scope)
    x.set_cells(x.cells)
    step.touch("counts")
    results, x.results = x.results, None
    restore.fill(x, results)
    step.tell("execution.retried", None, {"from": list(event.nodes)} if event.nodes else None)
    if admission.admit(step):
        control.admitted(step)


def _open_execution(step: Step, event: Retried) -> None:
    x = step.x
    x.ended_at = x.output = x.error = None
    step.outcome.changed_fields.update(dict.fromkeys(_CLEARED))
    x.root.error = None
    x.era += 1
    step.touch("era")
    step.leave_first_rules()
    if event.input is not None:
        x.input = event.input
        step.touch("input")
    if x.started_at is None:
        x.started_at = step.now
        step.touch("started_at")
    if (timeout_ms := x.plan_of().timeout_ms) is not None:
        step.effect(SetTimer("deadline", ids.token(x.id, "", 0), step.now + timeout_ms))


def _open(step: Step, scope: Scope) -> None:
    """A body is open again; budgets start afresh."""
    scope.era = step.x.era if scope.key == ROOT else scope.era + 1
    scope.state, scope.halting, scope.wanted, scope.error, scope.output = ScopeState.OPEN, "", b"", None, None
    step.touch_scope(scope)
    if not scope.body.single and scope.key:
        _write(step, f"o:{scope.key}", None)


def _doubtful(x: Execution, results: Mapping[str, bytes]) -> set[str]:
    """Scopes in which a worker may have begun nodes that nobody knows of: an attempt was cancelled there.

    Only the result of such a one is refused although its worker is heard.
    """
    found: set[str] = set()
    for name, packed in results.items() if x.continued else ():
        index = x.index_of(name.removeprefix("a:")) if name.startswith("a:") else None
        if index is not None and any(one.status is AttemptStatus.CANCELLED for one in unpack_attempts(packed)):
            found.add(x.owner[index].key)
    return found


def _begin_anew(step: Step, index: int, doubtful: Container[str]) -> None:
    """A node has not begun; the numbers of its attempts go on."""
    x = step.x
    attempt, path = x.cells[index].attempt, x.path(index)
    if x.owner[index].key in doubtful:
        attempts = unpack_attempts((x.results or {}).get("a:" + path))
        if (unknown := continuing.used_up(step, index, attempts)) is not None:
            attempt = unknown.attempt
            _write(step, "a:" + path, pack_attempts([*attempts, unknown]))
    step.put_cell(index, Cell(attempt=attempt) if attempt else UNTOUCHED)
    for name in ("o:", "i:", "c:"):
        _write(step, name + path, None)


def _resume(step: Step, index: int, again: Reruns) -> None:
    """The next attempt of a container is open, with the bodies that the last one had."""
    x = step.x
    path = x.path(index)
    step.put_cell(index, Cell(NodeStatus.WAITING, x.cells[index].attempt + 1, 0, step.now))
    for name in ("o:", "c:"):
        _write(step, name + path, None)
    if index in again.last:
        _write(step, f"i:{path}", again.last[index])


def _hold_back(step: Step, index: int, bodies: list[Scope]) -> None:
    """Items of a map that are opened again beyond its `max_parallel` wait until others have ended."""
    spec: Any = step.x.node(index).spec
    if step.x.node(index).kind == "map" and spec.max_parallel is not None:
        for scope in sorted(bodies, key=lambda one: one.number)[spec.max_parallel :]:
            scope.held = True
            step.touch_scope(scope)


def _by_container(x: Execution) -> dict[int, list[Scope]]:
    """The bodies inside each container, of whatever attempt; what undid a node is inside it."""
    inside: dict[int, list[Scope]] = {}
    for scope in x.scopes.values():
        inside.setdefault(scope.parent, []).append(scope)
    return inside


def _drop(step: Step, gone: Iterable[Scope], inside: Mapping[int, Iterable[Scope]]) -> None:
    """Bodies that count no more, and those inside them; they are opened again when their container comes to them."""
    work = list(gone)
    while work:
        scope = work.pop()
        if scope.state is not ScopeState.DORMANT:
            step.close_scope(scope, ScopeState.DORMANT)
        for index in range(scope.base, scope.end):
            work.extend(inside.get(index, ()))


def _write(step: Step, name: str, value: bytes | None) -> None:
    """Changes a field of the results, and what is known of them."""
    results = step.x.results
    if results is None or results.get(name) == value:
        return
    if value is None:
        results.pop(name, None)
    else:
        results[name] = value
    step.keep(name, value)
