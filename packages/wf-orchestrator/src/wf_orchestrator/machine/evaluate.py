"""What expressions see, and what they give: parameters, guards, joins, outputs. Raises, never decides.

A name is looked up from the inside out: the body that the node is in, the containers around it, then (from `finally`)
the document's nodes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from wf_core import payload
from wf_core.errors import ExpressionError, PayloadError
from wf_core.expressions import Scope as Names
from wf_core.sentences import counted
from wf_core.wire import Failure
from wf_orchestrator.machine import choices
from wf_orchestrator.machine.decoded import Value
from wf_orchestrator.machine.scope import FINAL, OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wf_core.expressions import Expression, Template
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution

EVALUATION_ERRORS = (ExpressionError, PayloadError)
"""What the author of the document must mend; everything else is an internal error."""

PARAMS_FACTOR = 4
"""Parameters may be this many times `max_payload_bytes` long, since they gather several outputs."""
OUTPUT_FACTOR = 256
"""Likewise the output of an execution or a body, and the items of a map: 64 MiB by default."""
_INPUT = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Mapping[str, Any] = {}


def failure_of(error: Exception) -> Failure:
    """The failure that an evaluation error becomes; no retry can help."""
    return Failure(type=type(error).__name__, message=str(error), fatal=True)


def params(x: Execution, index: int) -> bytes:
    """The parameters of a node as a JSON object. Raises one of EVALUATION_ERRORS."""
    node = x.node(index)
    limit = x.settings.max_payload_bytes * PARAMS_FACTOR
    constant = node.params.is_constant
    if constant and len(node.params.constant_json) <= limit:
        return node.params.constant_json
    value = payload.decode(node.params.constant_json) if constant else render(x, index, node.params)
    return payload.encode(value, limit=limit, what=f"the object of parameters of node {x.path(index)!r}")


def encoded(x: Execution, index: int, template: Template, what: str, factor: int = PARAMS_FACTOR) -> bytes:
    """The JSON of a template at a node. Raises one of EVALUATION_ERRORS; `what` names the value in it."""
    value = render(x, index, template)
    return payload.encode(value, limit=x.settings.max_payload_bytes * factor, what=what)


def render(x: Execution, index: int, template: Template, extra: Mapping[str, Any] = _NOTHING) -> Any:
    """The value of a template at a node. Raises ExpressionError."""
    if template.is_constant:
        return template.render(_SEES_NOTHING)
    return template.render(_names(x, x.owner[index], index, template, extra))


def render_for_all(x: Execution, template: Template) -> Any:
    """The value of a template about the whole execution. Raises ExpressionError."""
    return template.render(_SEES_NOTHING if template.is_constant else _names(x, x.root, None, template, _NOTHING))


def holds(x: Execution, index: int, condition: Expression, extra: Mapping[str, Any] = _NOTHING) -> bool:
    """Whether a condition at a node is true. Raises ExpressionError when it fails or gives something else."""
    return condition.holds(_names(x, x.owner[index], index, condition, extra))


def holds_in(x: Execution, scope: Scope, condition: Expression, extra: Mapping[str, Any]) -> bool:
    """Whether a condition is true of a body that has ended, whose nodes it sees. Raises ExpressionError."""
    return condition.holds(_names(x, scope, None, condition, extra))


def output(x: Execution, scope: Scope) -> bytes:
    """A body's output: its template, its only leaf's output, or an object of the leaves' outputs by id."""
    body = scope.body
    limit = x.settings.max_payload_bytes * OUTPUT_FACTOR
    whose = "the execution" if scope.parent == OUTSIDE else scope.key
    if body.output is not None:
        value = body.output.render(_names(x, scope, None, body.output, _NOTHING))
        return payload.encode(value, limit=limit, what=f"the output of {whose}")
    leaves = [(body.nodes[leaf].id, x.outputs.get(scope.base + leaf, b"null")) for leaf in body.leaves]
    if len(leaves) == 1:
        return leaves[0][1]
    size = sum(len(data) for _, data in leaves)
    if size > limit:
        raise PayloadError(
            f"the outputs of the {len(leaves):,} leaves of {whose} are {size:,} bytes together, more than the "
            f"{limit:,} that it may give; say in `output` what is wanted"
        )
    return b"{" + b",".join(payload.encode(node) + b":" + data for node, data in leaves) + b"}"


def too_long(what: str, size: int, limit: int) -> PayloadError:
    """The error of a value that is gathered from many and is too long."""
    return PayloadError(f"{what} is {size:,} bytes, more than the {limit:,} that it may be")


def wrong_batch(key: str, size: int, came: str) -> PayloadError:
    """The error of a batch whose output is not one per item. `came` says what it is."""
    what = f"{key} had {counted(size, 'item')} and gave {came}"
    return PayloadError(f"with `batch`, a body gives a list with one output per item; {what}")


def input_of(x: Execution) -> Any:
    """The execution's input."""
    return _decoded(x, _INPUT, x.input, "the input")


def items(x: Execution, index: int) -> Any:
    """The items of a map that was begun."""
    return _decoded(x, ("i", index), x.inputs[index], f"the list of items of {x.path(index)!r}")


def error_of(error: Failure | None) -> dict[str, Any] | None:
    """An error as expressions see it."""
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "node": error.node, "attempt": error.attempt}


def rfc3339(time_ms: int) -> str:
    """Unix ms as text, in UTC."""
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _names(
    x: Execution, scope: Scope, index: int | None, wanted: Expression | Template, extra: Mapping[str, Any]
) -> Names:
    """What an expression in a body (at a node, or about the whole body) sees of what it names."""
    named = wanted.names
    local = named.difference(("input", "execution"))
    return Names(
        input=input_of(x) if "input" in named else None,
        nodes={name: _node(x, scope, name) for name in sorted(wanted.references)},
        execution=_execution(x) if "execution" in named else _NOTHING,
        extra={**dict(_around(x, scope, index)), **extra} if local else extra,
    )


def _execution(x: Execution) -> dict[str, Any]:
    return {
        "id": x.id,
        "started_at": None if x.started_at is None else rfc3339(x.started_at),
        "status": x.ending or x.status.value,
        "error": error_of(x.error),
    }


_SEES_NOTHING = Names(input=None, nodes={}, execution={})


def _around(x: Execution, scope: Scope, index: int | None) -> Iterator[tuple[str, Any]]:
    """Names that the bodies around a node give, outermost first, so that the innermost of a name is the last."""
    chain = [scope]
    while chain[-1].parent != OUTSIDE:
        chain.append(x.owner[chain[-1].parent])
    for inner in reversed(chain[:-1]):
        yield from _caught(x, inner.parent)
        container = x.node(inner.parent)
        spec: Any = container.spec
        if container.kind == "map":
            yield "index", inner.number * (spec.batch or 1)
            yield spec.as_, item(x, inner)
        elif container.kind == "loop":
            yield "iteration", inner.number
            yield "last", last(x, inner.parent)
    if index is not None:
        yield from _caught(x, index)


def _caught(x: Execution, index: int) -> Iterator[tuple[str, Any]]:
    """Names of errors at the target of a `catch`: null for those of catches that it does not run for."""
    scope = x.owner[index]
    for local in scope.node(index).catchers:
        for catch in scope.body.nodes[local].catch:
            if catch.as_ and catch.to == index - scope.base:
                yield catch.as_, None
    if (found := choices.caught_for(x, index)) is not None and found[1]:
        yield found[1], error_of(found[0])


def item(x: Execution, scope: Scope) -> Any:
    """The item (or, with `batch`, the items) that a scope of a map is for."""
    spec: Any = x.node(scope.parent).spec
    values = items(x, scope.parent)
    if spec.batch is None:
        return values[scope.number]
    return values[scope.number * spec.batch : (scope.number + 1) * spec.batch]


def last(x: Execution, container: int) -> Any:
    """The output of a loop's last pass that ended; None before."""
    data = x.inputs.get(container)
    return None if data is None else _decoded(x, ("i", container), data, "the output of the last pass")


def _node(x: Execution, scope: Scope, name: str) -> dict[str, Any]:
    index = find(x, scope, name)
    data = x.outputs.get(index)
    return {
        "output": None if data is None else _decoded(x, index, data, f"the output of node {x.path(index)!r}"),
        "status": x.cells[index].status.value,
        "error": error_of(x.errors.get(index)),
    }


def seen(x: Execution, index: int) -> bytes:
    """A node that has ended, in JSON as expressions see it."""
    status, error = x.cells[index].status.value.encode(), payload.encode(error_of(x.errors.get(index)))
    return b'{"output":%b,"status":"%b","error":%b}' % (x.outputs.get(index, b"null"), status, error)


def find(x: Execution, scope: Scope, name: str) -> int:
    """The index of the node that a name means in a body."""
    while True:
        local = scope.body.index_of.get(name)
        if local is not None and not (scope.body.single and scope.parent != OUTSIDE):
            return scope.base + local
        if scope.parent != OUTSIDE:
            scope = x.owner[scope.parent]
        elif scope.key == FINAL:
            scope = x.root
        else:
            raise LookupError(f"there is no node {name!r}")


def _decoded(x: Execution, key: Any, data: bytes, what: str) -> Any:
    """The value of `data`, decoded once for many readers."""
    found = x.values.find(key)
    if found is None:
        try:
            found = Value(payload.decode(data), len(data))
        except msgspec.DecodeError as error:
            raise PayloadError(f"{what} is no JSON: {error}") from error
        x.values.put(key, found)
    return found.value
