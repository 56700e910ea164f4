"""The record that answers a `dynamic` node: the nodes that it gave, checked like a submitted document; no I/O here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from wf_core import ids, payload
from wf_core.broker.protocol import MAX_RECORD_BYTES
from wf_core.definitions import definitions_in
from wf_core.errors import DocumentError, Problem
from wf_core.schema.canonical import canonical_bytes
from wf_core.schema.document import LONGEST_ID
from wf_core.schema.pointers import child
from wf_core.schema.validation import parse_document
from wf_core.states import NodeStatus
from wf_core.wire import Expanded, Failure
from wf_orchestrator.machine.kinds.dynamic import is_expanding

if TYPE_CHECKING:
    from wf_core.plan import DynamicPlan
    from wf_orchestrator.machine.state import Execution

_LONGEST = MAX_RECORD_BYTES - 64 * 1024
_MOST_SHOWN = 10


def waiting(x: Execution, token: str) -> int | None:
    """The node of an attempt whose nodes are to be checked now; None when that is not so, or not yet."""
    _, path, attempt = ids.split_token(token)
    index = x.index_of(path) if x.is_live and not x.is_paused else None
    if index is None:
        return None
    cell = x.cells[index]
    waits = cell.status is NodeStatus.WAITING and cell.attempt == attempt and not x.is_held(index)
    return index if waits and x.node(index).kind == "dynamic" and is_expanding(x, index) else None


def expanded(x: Execution, index: int, *, source: str, now: int) -> Expanded:
    """What becomes of the nodes that an open node gave. `source` says who appends, `now` is Unix ms."""
    path, spec = x.path(index), x.node(index).spec
    document, error = b"", None
    try:
        document = checked(path, payload.decode(x.inputs[index]), spec, x.definitions)
    except DocumentError as problem:
        error = _failure(path, problem)
    attempt = x.cells[index].attempt
    return Expanded(execution=x.id, ts=now, source=source, node=path, attempt=attempt, document=document, error=error)


def checked(path: str, nodes: Any, spec: DynamicPlan | Any, definitions: Mapping[str, str]) -> bytes:
    """The canonical document around the nodes that a dynamic node gave; its output is that of all nodes by id.

    Raises DocumentError with all that is wrong; pointers begin at `/nodes`.
    """
    name = path[-LONGEST_ID:]
    document = parse_document({"name": name, "nodes": nodes})
    canonical = payload.decode(canonical_bytes(document))
    problems = [*_of_tasks(canonical, spec), *_of_definitions(canonical, definitions)]
    count = sum(1 for _ in _nodes(canonical))
    if count > spec.max_nodes:
        problems.append(Problem("/nodes", "too_many", f"{count:,} nodes, and `max_nodes` is {spec.max_nodes:,}"))
    if problems:
        raise DocumentError(problems)
    output = {
        node_id: f"${{{{ nodes[{json.dumps(node_id, ensure_ascii=False)}].output }}}}" for node_id in document.nodes
    }
    whole = canonical_bytes(document.model_copy(update={"output": output}))
    if len(whole) > _LONGEST:
        detail = f"the nodes are {len(whole):,} bytes, more than the {_LONGEST:,} that may travel; give fewer of them"
        raise DocumentError([Problem("/nodes", "too_large", detail)])
    return whole


def _nodes(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node of a canonical document, at any depth, with the pointer to it."""
    waiting = [("/nodes", document["nodes"])]
    while waiting:
        pointer, nodes = waiting.pop()
        for node_id, node in nodes.items():
            here = child(pointer, node_id)
            yield here, node
            if isinstance(inner := node.get("nodes"), dict):
                waiting.append((f"{here}/nodes", inner))


def _of_tasks(document: Mapping[str, Any], spec: DynamicPlan) -> Iterator[Problem]:
    """The tasks that are not allowed; and what would let others in."""
    for pointer, node in _nodes(document):
        tasks = [(f"{pointer}/task", node.get("task"))]
        if isinstance(undo := node.get("compensate"), dict):
            tasks.append((f"{pointer}/compensate/task", undo.get("task")))
        for place, task in tasks:
            if task is not None and not any(fnmatchcase(task, pattern) for pattern in spec.allow):
                yield Problem(place, "not_allowed", f"the task {task!r} is not allowed here; {_allowed(spec)}")
        if node.get("kind") == "dynamic":
            for pattern in node.get("allow", ["*"]):
                if pattern not in spec.allow and "*" not in spec.allow:
                    detail = f"a dynamic node inside may allow no more than the one around it; {_allowed(spec)}"
                    yield Problem(f"{pointer}/allow", "not_allowed", detail)


def _allowed(spec: DynamicPlan) -> str:
    return f"`allow` has {', '.join(spec.allow) or 'nothing'}"


def _of_definitions(document: Mapping[str, Any], pinned: Mapping[str, str]) -> Iterator[Problem]:
    for reference, pointer in definitions_in(document).items():
        if reference.key not in pinned:
            known = ", ".join(sorted(pinned)) or "none"
            detail = (
                f"the definition {reference.key!r} was not pinned when the execution was created; pinned are: {known}"
            )
            yield Problem(pointer, "unknown_definition", detail)


def _failure(path: str, error: DocumentError) -> Failure:
    shown = [f"{problem.pointer or '/'}: {problem.detail}" for problem in error.problems[:_MOST_SHOWN]]
    more = len(error.problems) - len(shown)
    rest = f"; and {more:,} more" if more else ""
    return Failure(
        type="ExpansionError", message=f"the nodes of {path!r} are wrong: {'; '.join(shown)}{rest}", fatal=True
    )
