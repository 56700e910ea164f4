"""The insides of containers: opening, finishing and ending them. Nothing recurses, however deep they are nested."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from wf_core.states import NodeStatus, ScopeState
from wf_orchestrator.machine import continuing, room
from wf_orchestrator.machine.scope import Scope
from wf_orchestrator.machine.state import UNTOUCHED, Cell

if TYPE_CHECKING:
    from wf_core.plan import Body, NodePlan
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

_CONTAINERS = ("map", "loop", "dynamic")
MOST_CELLS = 2_000_000
"""Nodes of one execution, those in bodies that were opened included."""


def open_scope(  # noqa: PLR0913 - the place of a body, and what it may take over
    step: Step, container: int, number: int, key: str, body: Body, *, document: bytes = b""
) -> Scope:
    """Opens a body inside a container: `key` names it.

    A scope of an earlier attempt is opened again; the numbers of its nodes' attempts go on.
    """
    x = step.x
    scope = x.scopes.get(key)
    floor, forgotten = x.floors.get(container, (0, 0))
    floor = max(floor, x.owner[container].floor)  # bodies of its own may have been forgotten with those around it
    if scope is None:
        scope = Scope(key, room.place(x.free, len(body.nodes), x.size), body, container, floor=floor, document=document)
        scope.keeps = keeps(x, scope)
        attempts = [floor] * len(body.nodes)
        x.add_scope(scope)
    else:
        attempts = [_last_number(step, index) for index in range(scope.base, scope.end)]
        scope.era += 1
        scope.state, scope.halting, scope.wanted, scope.error, scope.output = ScopeState.OPEN, "", b"", None, None
        _forget_values_stored(step, scope)
    scope.number = number
    scope.forgotten = max(scope.forgotten, forgotten)
    _clean(step, scope, attempts)
    if x.cells[container].status is NodeStatus.WAITING:
        x.inside.setdefault(container, {})[number] = scope
    step.touch_scope(scope)
    step.opened += 1
    step.opening.append(scope)
    return scope


def _last_number(step: Step, index: int) -> int:
    """The highest number that an attempt of a node of an earlier attempt may have had."""
    x = step.x
    if x.continued and (unknown := continuing.used_up(step, index, x.attempts.get(index, ()))) is not None:
        step.record(index, unknown)
        return unknown.attempt
    return x.cells[index].attempt


def _forget_values_stored(step: Step, scope: Scope) -> None:
    """Removes what the nodes of an earlier attempt were given and gave."""
    for index in range(scope.base, scope.end):
        if step.x.cells[index].attempt:
            for name in ("o:", "i:"):
                step.keep(name + scope.path(index), None)


def _clean(step: Step, scope: Scope, attempts: list[int]) -> None:
    """Sets the cells of a scope to PENDING; numbers of attempts go on."""
    x = step.x
    size = len(attempts)
    if scope.end > len(x.cells):
        missing = scope.end - len(x.cells)
        x.cells += [UNTOUCHED] * missing
        for ends in (x.succeeded, x.failed, x.skipped):
            ends.extend([0] * missing)
    for index, attempt in enumerate(attempts, scope.base):
        if x.cells[index] != UNTOUCHED or attempt:
            step.put_cell(index, Cell(attempt=attempt) if attempt else UNTOUCHED)
        x.succeeded[index] = x.failed[index] = x.skipped[index] = 0
        for kept in (x.outputs, x.errors, x.values, x.caught, step.fresh):
            kept.pop(index, None)
        x.values.pop(("i", index), None)
        step.begun.discard(index)
    x.counts[NodeStatus.PENDING] += size
    step.touch("counts")
    scope.left = size


def has_room(x: Execution, body: Body) -> bool:
    """Whether one more body fits into the execution."""
    return x.size + len(body.nodes) <= MOST_CELLS


def retire(step: Step, container: int) -> None:
    """Takes the scopes of a container's earlier attempts out of the count: it begins anew.

    What their nodes did stays done, and may have to be undone, until they have done it again.
    """
    x = step.x
    floor, forgotten = x.floors.get(container, (0, 0))
    for scope in below(x, range(container, container + 1)):
        if scope.state is not ScopeState.DORMANT:
            _uncount(x, scope)
            step.close_scope(scope, ScopeState.DORMANT)
    x.inside.pop(container, None)
    x.floors[container] = max(floor, forgotten), 0
    step.touch("counts")


def forget_values(x: Execution, scope: Scope) -> None:
    """Drops what only the nodes of a scope, which has ended, could name."""
    for index in range(scope.base, scope.end):
        for kept in (x.outputs, x.errors, x.values, x.caught):
            kept.pop(index, None)


def keeps(x: Execution, scope: Scope) -> bool:
    """Whether the attempts of a scope's nodes stay in memory: see `Scope.keeps`."""
    if undoes(x, scope):
        return x.era > 0
    around = x.owner[scope.parent]
    return around.keeps or _begins_again(x, around.node(scope.parent))


def undoes(x: Execution, scope: Scope) -> bool:
    """Whether it is a compensation."""
    return scope.parent >= 0 and scope.body is x.node(scope.parent).compensate


def _begins_again(x: Execution, container: NodePlan) -> bool:
    """Whether a container may have bodies of earlier attempts: it says `retry`, or the execution was retried."""
    return container.own_retry or x.era > 0


def may_come_again(x: Execution, scope: Scope) -> bool:
    """Whether a container around the scope that may begin again has not ended; always so of a compensation."""
    if undoes(x, scope):
        return True
    while scope.parent >= 0:
        around = x.owner[scope.parent]
        if _begins_again(x, around.node(scope.parent)) and not x.cells[scope.parent].status.is_terminal:
            return True
        scope = around
    return False


def drop_attempts(x: Execution, container: int) -> None:
    """A container that may have been tried again has ended: the attempts inside it need not be at hand any more."""
    scope = x.owner[container]
    if _begins_again(x, scope.node(container)) and not scope.keeps:
        for inner in below(x, range(container, container + 1)):
            if undoes(x, inner):
                continue
            for index in range(inner.base, inner.end):
                x.attempts.pop(index, None)


def _uncount(x: Execution, scope: Scope) -> None:
    for cell in x.cells[scope.base : scope.end]:
        x.counts[cell.status] -= 1


def forget(step: Step, scope: Scope) -> None:
    """Forgets a scope that has ended, with all that is in it; other scopes may have its cells."""
    x = step.x
    has_scopes = any(node.kind in _CONTAINERS or node.compensate for node in scope.body.nodes)
    inner = below(x, range(scope.base, scope.end)) if has_scopes else []
    floor, forgotten = x.floors.get(scope.parent, (0, 0))
    highest = max(cell.attempt for one in (*inner, scope) for cell in x.cells[one.base : one.end])
    x.floors[scope.parent] = floor, max(forgotten, highest, *(one.forgotten for one in inner))
    for one in [*inner, scope]:
        if one.state is not ScopeState.DORMANT:
            _uncount(x, one)
        for index in range(one.base, one.end):
            step.forget_node(index)
            step.put_cell(index, UNTOUCHED)
            x.floors.pop(index, None)
        step.keep("o:" + one.key, None)
        step.outcome.scopes[one.key] = None
    x.forget_scopes([*inner, scope])
    step.touch("counts")


def below(x: Execution, containers: range) -> list[Scope]:
    """All scopes inside these nodes, at any depth, whatever their state."""
    found = [scope for container in containers for scope in x.within.get(container, {}).values()]
    for scope in found:  # the list is the queue as well: what is appended is visited
        for index in range(scope.base, scope.end):
            found += x.within.get(index, {}).values()
    return found


def cancel(step: Step, index: int, reason: str, *, tell: bool = True) -> None:
    """Ends a node that is not wanted any more, and all that is inside it."""
    x = step.x
    if x.cells[index].status is NodeStatus.WAITING and not x.is_held(index):
        step.kind(index).drop(step, index, reason)
        step.drop_timeouts(index)
    step.cancel(index, reason, tell=tell)
    end_inside(step, index, reason)
    drop_attempts(x, index)


def end_inside(step: Step, container: int, reason: str) -> None:
    """Ends all that is inside a container, which is about to end or has ended."""
    x = step.x
    work, containers = [container], []
    while work:
        ended = work.pop()
        x.progress.pop(ended, None)
        if ended != container and x.node(ended).kind in _CONTAINERS:
            containers.append(ended)
        for scope in x.inside.pop(ended, {}).values():
            scope.output = None
            if not scope.is_open:
                continue
            step.close_scope(scope, ScopeState.CANCELLED)
            forget_values(x, scope)
            for index in range(scope.base, scope.end):
                status = x.cells[index].status
                if status.is_terminal:
                    continue
                if status is NodeStatus.WAITING and not x.is_held(index):
                    step.kind(index).drop(step, index, reason)
                    step.drop_timeouts(index)
                step.cancel(index, reason, tell=status is not NodeStatus.PENDING)
                work.append(index)
    for ended in containers:
        drop_attempts(x, ended)


def end_all(step: Step, scope: Scope, reason: str, *, skip: bool = False) -> None:
    """Ends every node of a scope at once; the history lists those that had started.

    `skip`: what has not started is SKIPPED, not CANCELLED.
    """
    x = step.x
    for index in range(scope.base, scope.end):
        status = x.cells[index].status
        if status.is_terminal:
            continue
        if skip and status is NodeStatus.PENDING and index not in step.fresh:
            step.skip(index)
        else:
            cancel(step, index, reason, tell=status is not NodeStatus.PENDING)


def refresh_waiting(x: Execution) -> None:
    """Drops from the heap what is held no more."""
    held = (entry for entry in x.waiting if entry[1] < x.size and x.owner[entry[1]].is_open)
    x.waiting = [entry for entry in held if x.is_held(entry[1])]
    heapq.heapify(x.waiting)
