"""What a worker goes on with by itself: the next node of a tail, its parameters those that the fold would give it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from wf_core import payload
from wf_core.states import NodeStatus
from wf_core.wire import Begin, Following, Tail, TaskMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wf_core.expressions import Template

_TEMPLATES = 256
"""Templates that are kept ready: a definition that runs again and again has the same ones each time."""
_NOTHING: Mapping[str, bytes] = {}


def next_of(message: TaskMessage, output: bytes) -> tuple[TaskMessage, Begin] | None:
    """The message of the node that follows once `message`'s attempt gave `output` (JSON), and how its result names it.

    None when there is none, when its parameters cannot be evaluated, or when they are longer than its tail allows: then
    the result goes without, and the fold says what is wrong. `then` of the new message is the rest of the tail.
    """
    tail = message.then
    if tail is None or not tail.following:
        return None
    first, *rest = tail.following
    nodes = _NOTHING
    if any(following.template for following in tail.following):
        nodes = {**tail.nodes, message.id: ended(output)}
    params = _params(first, nodes, tail)
    if params is None or len(params) > tail.limit:
        return None
    following = TaskMessage(
        execution=message.execution,
        node=first.node,
        attempt=first.attempt,
        task=first.task,
        params=params,
        workflow=message.workflow,
        queued_at=message.queued_at,
        timeout_ms=first.timeout_ms,
        priority=message.priority,
        heartbeat_ms=first.heartbeat_ms,
        id=first.id,
        then=Tail(following=tuple(rest), limit=tail.limit, nodes=dict(nodes), input=tail.input) if rest else None,
    )
    return following, Begin(node=first.node, attempt=first.attempt, params=params)


def ended(output: bytes) -> bytes:
    """A node that completed with `output`, in JSON as expressions see it: what `Tail.nodes` holds."""
    return b'{"output":%b,"status":"%b","error":null}' % (output, NodeStatus.COMPLETED.value.encode())


def _params(following: Following, nodes: Mapping[str, bytes], tail: Tail) -> bytes | None:
    """The JSON object of parameters; None when it cannot be evaluated, for whatever reason: the fold says it."""
    if not following.template:
        return following.params
    # Expressions are loaded when the first template comes: most workers never need them, and all start sooner.
    from wf_core.expressions import Scope

    try:
        template = _template(following.params)
        seen: dict[str, Any] = {name: payload.decode(nodes[name]) for name in template.references}
        given: Any = None
        if "input" in template.names:
            if tail.input is None:
                return None
            given = payload.decode(tail.input)
        return payload.encode(template.render(Scope(input=given, nodes=seen, execution={})), limit=tail.limit)
    except Exception:  # noqa: BLE001 - the result of the node before it must not be lost over what CEL raises
        return None


@lru_cache(maxsize=_TEMPLATES)
def _template(params: bytes) -> Template:
    """The template in a document's parameters, which passed the compiler when the document was accepted."""
    from wf_core.expressions import scan_template

    return scan_template(payload.decode(params), "/params")
