"""The state from Redis, in two steps, since only the first one knows what of the results the second one needs.

    x = skeleton(execution_id, plan, fields, cells, bodies)
    wanted = result_fields(x)                fields of `{p}:r:<id>` (HMGET)
    fill(x, results)

This is the exact inverse of `snapshot.to_ops`: loading what the operations wrote gives the state that the fold has in
memory. `fields` are the whole hash `{p}:x:<id>` with text keys, `cells` the string `{p}:s:<id>` (b"" when absent),
`bodies` the whole hash `{p}:b:<id>`, `results` the fields of `result_fields` that exist. An execution that has ended
may be loaded with `plan=None` and `cells=b""`: it ignores everything save that it accepts commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from wf_core.ids import COMPENSATION
from wf_core.plan import load_plan
from wf_core.states import NodeStatus, ScopeState
from wf_core.store.codec import unpack_attempts, unpack_nodes, unpack_scope
from wf_orchestrator.machine import choices, compensation, scopes, waits
from wf_orchestrator.machine import fields as stored
from wf_orchestrator.machine.failure import told_of
from wf_orchestrator.machine.kinds import map as map_kind
from wf_orchestrator.machine.scope import FINAL, Progress, Scope
from wf_orchestrator.machine.state import Cell, Execution

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wf_core.plan import Body, Plan
    from wf_core.store.codec import ScopeRecord

_LIVE = (NodeStatus.QUEUED, NodeStatus.RETRYING, NodeStatus.WAITING)


def skeleton(
    execution_id: str,
    plan: Plan | None,
    fields: Mapping[str, bytes],
    cells: bytes,
    bodies: Mapping[str, bytes],
) -> Execution:
    """The execution with its cells and scopes. Raises KeyError when a field that every execution has is missing."""
    values = stored.decode(fields)
    halting, wanted = values.pop("halting", ""), values.pop("wanted", b"")
    x = Execution(id=execution_id, plan=plan, **values)
    x.add_own_scopes()
    if plan is not None:
        records = {key: unpack_scope(data) for key, data in bodies.items()}
        for key, record in sorted(records.items(), key=lambda one: (one[1].parent, one[1].number, one[0])):
            _add(x, key, record)
        x.set_cells([Cell(*cell) for cell in unpack_nodes(cells, x.size)])
    x.root.era = x.era
    if x.is_live:
        x.root.halting, x.root.wanted, x.root.error = halting, wanted, x.error
    return x


def _add(x: Execution, key: str, record: ScopeRecord) -> None:
    """Puts a stored scope in its place; its container's scope is there already, since its key is shorter."""
    scope = x.scopes.get(FINAL) if key == FINAL else None
    if scope is None:
        scope = Scope(key, record.base, _body(x, key, record), record.parent)
        scope.keeps = scopes.keeps(x, scope)
        x.add_scope(scope)
        floor, forgotten = x.floors.get(record.parent, (0, 0))
        x.floors[record.parent] = max(floor, record.floor), max(forgotten, record.forgotten)
    for name in ("number", "state", "halting", "wanted", "error", "floor", "forgotten", "era", "document", "held"):
        setattr(scope, name, getattr(record, name))


def _body(x: Execution, key: str, record: ScopeRecord) -> Body:
    """The body that a scope runs: what undoes its node, a frozen plan, or what the document says."""
    node = x.node(record.parent)
    if node.compensate is not None and key == x.path(record.parent) + COMPENSATION:
        return node.compensate
    if record.document:
        return load_plan(record.document, "").root
    spec: Any = node.spec
    body: Body = spec.body
    return body


def result_fields(x: Execution) -> list[str]:
    """The fields of `{p}:r:<id>` that `fill` needs."""
    if x.plan is None or not x.is_live:
        return []
    wanted = [name + scope.path(index) for scope, index in _counted(x) for name in _names(x, scope, index)]
    wanted += ["a:" + scope.path(index) for scope, index in _kept(x)]
    wanted += ["c:" + x.path(index) for index in _undoable(x)]
    wanted += ["o:" + s.key for s in x.scopes.values() if s.state is ScopeState.COMPLETED and _is_awaited(x, s)]
    return wanted


def _undoable(x: Execution) -> Iterator[int]:
    """Nodes that may have completed once and have something that undoes them, those of earlier attempts as well."""
    for scope in x.scopes.values():
        for local, node in enumerate(scope.body.nodes):
            if node.compensate is not None and x.cells[scope.base + local].attempt:
                yield scope.base + local


def _is_awaited(x: Execution, scope: Scope) -> bool:
    """Whether the container of a scope that has ended may still want its output."""
    return scope.parent >= 0 and x.cells[scope.parent].status is NodeStatus.WAITING


def _kept(x: Execution) -> Iterator[tuple[Scope, int]]:
    """The nodes whose attempts stay in memory, since a container around them may be tried again."""
    for scope in x.scopes.values():
        if scope.keeps and scopes.may_come_again(x, scope):
            for index in range(scope.base, scope.end):
                if x.cells[index].attempt:
                    yield scope, index


def _counted(x: Execution) -> Iterator[tuple[Scope, int]]:
    for scope in x.scopes.values():
        if scope.state is not ScopeState.DORMANT:
            for index in range(scope.base, scope.end):
                yield scope, index


def _names(x: Execution, scope: Scope, index: int) -> Iterator[str]:
    """What is kept in memory of a node."""
    cell, node = x.cells[index], scope.node(index)
    needed = scope.is_open and index - scope.base in scope.body.needed
    failed = cell.status is NodeStatus.FAILED and (needed or (node.catch and scope.is_open))
    if cell.attempt and (failed or not cell.status.is_terminal) and not scope.keeps:
        yield "a:"
    if cell.status in _LIVE:
        yield "i:"
    if cell.status is NodeStatus.WAITING and node.kind == "wait":
        yield "w:"
    if cell.status is NodeStatus.COMPLETED and needed:
        yield "o:"


def keep_results(x: Execution, results: Mapping[str, bytes]) -> Execution:
    """Gives the skeleton of an execution that has ended all its results, for a `retry`."""
    x.forget()
    x.results = dict(results)
    return x


def fill(x: Execution, results: Mapping[str, bytes]) -> Execution:
    """Gives the skeleton what it holds of the results."""
    if x.status.is_terminal or x.plan is None:
        x.forget()
        return x
    _fill_nodes(x, results)
    for index, cell in enumerate(x.cells):
        if cell.status.is_terminal and x.owner[index].is_open:
            choices.count_end(x, index)
    for index in _undoable(x):
        if kept := results.get("c:" + x.path(index)):
            x.compensations[index] = compensation.unpack(kept)
    x.undoing = compensation.in_order(x)
    for scope in x.scopes.values():
        _fill_container(x, scope, results)
    for index in x.inside:
        _fill_progress(x, index)
    _fill_waits(x, results)
    x.waiting.sort()
    return x


def _fill_nodes(x: Execution, results: Mapping[str, bytes]) -> None:
    for _, index in _counted(x):
        cell = x.cells[index]
        if cell.status.is_terminal:
            _fill_ended(x, index, results)
        elif cell.attempt or cell.status in _LIVE:
            _fill_live(x, index, results)
    for scope, index in _kept(x):
        if attempts := unpack_attempts(results.get("a:" + scope.path(index))):
            x.attempts[index] = attempts


def _fill_ended(x: Execution, index: int, results: Mapping[str, bytes]) -> None:
    path, node, status = x.path(index), x.node(index), x.cells[index].status
    if not x.owner[index].is_open:
        return
    if status is NodeStatus.COMPLETED and x.is_kept(index) and "o:" + path in results:
        x.outputs[index] = results["o:" + path]
    elif status is NodeStatus.FAILED and (attempts := unpack_attempts(results.get("a:" + path))):
        error = attempts[-1].error
        if error is None:
            return
        if x.is_kept(index):
            x.errors[index] = told_of(x, index, error)
        if node.catch and (catch := choices.catch_of(x, index, error)):
            x.caught[index] = catch.to


def _fill_live(x: Execution, index: int, results: Mapping[str, bytes]) -> None:
    path, status = x.path(index), x.cells[index].status
    if attempts := unpack_attempts(results.get("a:" + path)):
        x.attempts[index] = attempts
    begun = status in _LIVE if x.node(index).kind == "task" else status is NodeStatus.WAITING and not x.is_held(index)
    if begun and "i:" + path in results:
        x.inputs[index] = results["i:" + path]
    if status is NodeStatus.WAITING and x.is_held(index):
        x.waiting.append((-x.node(index).priority, index))
    elif status is NodeStatus.WAITING and x.node(index).kind == "task":
        x.lookups.add(index)


def _fill_container(x: Execution, scope: Scope, results: Mapping[str, bytes]) -> None:
    """A scope inside a container whose attempt is open."""
    if scope.state is ScopeState.DORMANT or scope.parent < 0:
        return
    if x.cells[scope.parent].status is not NodeStatus.WAITING or x.is_held(scope.parent):
        return
    x.inside.setdefault(scope.parent, {})[scope.number] = scope
    if scope.state is ScopeState.SKIPPED:
        scope.output = b"null"
    elif scope.state is ScopeState.COMPLETED:
        scope.output = results.get("o:" + scope.key)


def _fill_progress(x: Execution, index: int) -> None:
    node = x.node(index)
    if node.kind != "map":
        return
    spec: Any = node.spec
    total = map_kind.total_of(msgspec.json.decode(x.inputs[index], type=list[msgspec.Raw]), spec)
    bodies = x.inside[index].values()
    x.progress[index] = Progress(
        total,
        len(bodies),
        sum(one.is_open and not one.held for one in bodies),
        sum(one.state is ScopeState.FAILED for one in bodies),
        sorted(one.number for one in bodies if one.held),
    )


def _fill_waits(x: Execution, results: Mapping[str, bytes]) -> None:
    """The open waits, once it is known which are held."""
    for scope, index in _counted(x):
        node = scope.node(index)
        if node.kind == "wait" and x.cells[index].status is NodeStatus.WAITING and not x.is_held(index):
            spec: Any = node.spec
            waits.load(x, index, spec, results.get("w:" + scope.path(index)))
