"""The content of commands: what a request says becomes the fields of its record, or a problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wf_api.context import ApiContext
from wf_api.heads import Head
from wf_api.inputs import document_of, input_at_trigger
from wf_api.problems import ProblemError, of_document, unknown_execution, unknown_node
from wf_core import payload
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.schema.inputs import schema_error, schema_validator
from wf_core.states import NodeStatus
from wf_core.store import reads

APPROVAL = "approval"
MOST_PROBLEMS = 100


async def trigger(context: ApiContext, execution_id: str, head: Head, given: object) -> dict[str, Any]:
    """`given`, when it is not None, replaces the input of the creation. Raises the problem 422."""
    return {"input": await input_at_trigger(context, execution_id, head, given)}


async def retry(
    context: ApiContext, execution_id: str, head: Head, nodes: Sequence[str], given: object
) -> dict[str, Any]:
    """From the failed nodes and `nodes` on, with the old input or `given`. Raises the problem 422."""
    layout = (await _located(context, execution_id)).layout if nodes else None
    problems = []
    for at, node in enumerate(nodes):
        try:
            layout and layout.place(node)
        except reads.UnknownNodeError as unknown:
            near = f"; did you mean {unknown.nearest[0]!r}?" if unknown.nearest else "."
            problems.append(Problem(f"/from/{at}", "unknown_node", f"There is no node {node[:200]!r}{near}"))
    if problems:
        raise of_document(DocumentError(problems), "invalid-parameters")
    chosen = None if given is None else await input_at_trigger(context, execution_id, head, given)
    return {"nodes": tuple(nodes), "input": chosen}


async def retry_failed(_head: Head) -> dict[str, Any]:
    """From the failed nodes on, with the old input."""
    return {"nodes": (), "input": None}


async def signal(context: ApiContext, name: str, value: object) -> dict[str, Any]:
    """A signal with its payload. Raises the problem 422 for what the log would not hold."""
    return {"name": name, "payload": _encoded(context, value, "payload")}


async def answer(context: ApiContext, execution_id: str, head: Head, node: str, value: object) -> dict[str, Any]:
    """The answer to an approval that waits for one.

    Raises the problems 404 (no such node), 409 (it does not wait for an answer) and 422 (its schema refuses it).
    """
    found = await _located(context, execution_id)
    try:
        place = found.layout.place(node)
    except reads.UnknownNodeError as unknown:
        raise unknown_node(execution_id, unknown) from unknown
    status, attempt, *_ = found.snapshot.cell(place)
    if place.kind != APPROVAL or status is not NodeStatus.WAITING:
        what = f"is {status}" if place.kind == APPROVAL else f"is a {place.kind}"
        detail = f"The node {what}: only an approval that is WAITING takes an answer."
        raise ProblemError("wrong-state", detail, current_status=head.status, node_status=str(status))
    encoded = _encoded(context, value, "answer")
    document = payload.decode(await document_of(context, execution_id, head))
    schema = found.layout.described(document, place.path).get("schema")
    if isinstance(schema, dict):
        _check(schema, value)
    return {"node": node, "attempt": attempt, "answer": encoded}


def _encoded(context: ApiContext, value: object, member: str) -> bytes:
    try:
        return payload.encode(value, limit=context.settings.max_payload_bytes, what=f"the {member}")
    except PayloadError as error:
        problem = Problem(f"/{member}", "not_allowed", str(error))
        raise of_document(DocumentError([problem]), "invalid-parameters") from error


def _check(schema: dict[str, Any], value: object) -> None:
    known = properties if isinstance(properties := schema.get("properties"), dict) else ()
    problems: list[Problem] = []
    for error in schema_validator(schema).iter_errors(value):
        problems += schema_error(error, "/answer", "wrong_answer", list(known))
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise of_document(DocumentError(problems), "invalid-answer")


async def _located(context: ApiContext, execution_id: str) -> reads.Located:
    found = await reads.read_layout(context.redis, context.settings.namespace, execution_id)
    if found is None:
        raise unknown_execution()
    return found
