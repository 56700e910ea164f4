"""What expressions see, and what they give: parameters, guards, joins, outputs. Raises, never decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from wf_core import payload
from wf_core.errors import ExpressionError, PayloadError
from wf_core.expressions import Scope
from wf_core.wire import Failure

if TYPE_CHECKING:
    from wf_core.expressions import Expression
    from wf_orchestrator.machine.state import Execution

EVALUATION_ERRORS = (ExpressionError, PayloadError)
"""What the author of the document must mend; everything else is an internal error."""

PARAMS_FACTOR = 4
"""Parameters may be this many times `max_payload_bytes` long, since they gather several outputs."""
OUTPUT_FACTOR = 256
"""Likewise the output of an execution: 64 MiB by default."""
_CACHED_BYTES = 16 * 2**20
_INPUT = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def failure_of(error: Exception) -> Failure:
    """The failure that an evaluation error becomes; no retry can help."""
    return Failure(type=type(error).__name__, message=str(error), fatal=True)


def params(x: Execution, index: int) -> bytes:
    """The parameters of a node as a JSON object. Raises one of EVALUATION_ERRORS."""
    node = x.node(index)
    limit = x.settings.max_payload_bytes * PARAMS_FACTOR
    what = f"the object of parameters of node {node.id!r}"
    if not node.params.is_constant:
        value = node.params.render(scope(x, node.params.references))
        return payload.encode(value, limit=limit, what=what)
    data = node.params.constant_json
    return data if len(data) <= limit else payload.encode(payload.decode(data), limit=limit, what=what)


def holds(x: Execution, condition: Expression) -> bool:
    """Whether a guard or join is true. Raises ExpressionError when it fails or gives something else."""
    return condition.holds(scope(x, condition.references))


def output(x: Execution) -> bytes:
    """The execution's output: its template, its only leaf's output, or an object of the leaves' outputs by id."""
    plan = x.plan_of()
    limit = x.settings.max_payload_bytes * OUTPUT_FACTOR
    if plan.output is not None:
        value = plan.output.render(scope(x, plan.output.references))
        return payload.encode(value, limit=limit, what="the output of the execution")
    leaves = [(plan.nodes[index].id, x.outputs.get(index, b"null")) for index in plan.leaves]
    if len(leaves) == 1:
        return leaves[0][1]
    size = sum(len(data) for _, data in leaves)
    if size > limit:
        raise PayloadError(
            f"the outputs of the {len(leaves):,} leaves are {size:,} bytes together, more than the {limit:,} that an "
            "execution may give; say in `output` what is wanted"
        )
    return b"{" + b",".join(payload.encode(node) + b":" + data for node, data in leaves) + b"}"


def scope(x: Execution, references: frozenset[str]) -> Scope:
    """What an expression that names the nodes `references` sees."""
    return Scope(
        input=_decoded(x, _INPUT, x.input),
        nodes={name: _node(x, name) for name in sorted(references)},
        execution={
            "id": x.id,
            "started_at": None if x.started_at is None else rfc3339(x.started_at),
            "status": x.status.value,
            "error": _error(x.error),
        },
    )


def rfc3339(time_ms: int) -> str:
    """Unix ms as text, in UTC."""
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _node(x: Execution, name: str) -> dict[str, Any]:
    index = x.plan_of().index_of[name]
    data = x.outputs.get(index)
    return {
        "output": None if data is None else _decoded(x, index, data),
        "status": x.cells[index].status.value,
        "error": _error(x.errors.get(index)),
    }


def _error(error: Failure | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "node": error.node, "attempt": error.attempt}


def _decoded(x: Execution, key: int, data: bytes) -> Any:
    """The value of `data`, decoded once for many readers; the cache starts anew when it has grown large."""
    if key not in x.values:
        if x.values_bytes > _CACHED_BYTES:
            x.values.clear()
            x.values_bytes = 0
        try:
            x.values[key] = payload.decode(data)
        except msgspec.DecodeError as error:
            whose = "the input" if key == _INPUT else f"the output of node {x.node(key).id!r}"
            raise PayloadError(f"{whose} is no JSON: {error}") from error
        x.values_bytes += len(data)
    return x.values[key]
