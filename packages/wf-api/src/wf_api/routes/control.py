"""POST /workflow/trigger/{execution_id} and what else is asked of an execution that exists."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from wf_api import orders, verbs
from wf_api.acceptance import pending
from wf_api.answers import answer
from wf_api.context import ApiContext, Context
from wf_api.control import Fields, nothing, order
from wf_api.idempotency import Idempotency
from wf_api.members import Members, read_members
from wf_api.openapi import OF_BODY, shows, takes_body
from wf_api.preferences import wants_no_wait
from wf_api.queries import refuse_path
from wf_api.verbs import Verb

router = APIRouter(tags=["control"])

LONGEST_REASON = 1000
LONGEST_NAME = 200
MOST_NODES = 1000
"""Nodes that a `retry` names."""
SPARE_BYTES = 64 * 1024
"""A body may be so much longer than twice an input's limit, for its spacing."""
_ACCEPTED = "The log has the command; no orchestrator has applied it yet"
REASON: dict[str, Any] = {"type": ["string", "null"], "maxLength": LONGEST_REASON}
_NODES: dict[str, Any] = {
    "type": ["array", "null"],
    "items": {"type": "string"},
    "maxItems": MOST_NODES,
    "description": "node paths: from these and all downstream of them, too",
}


def _says(**properties: dict[str, Any]) -> dict[str, Any]:
    """What all of these routes have in common; `properties` are those of the body."""
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {
        "responses": shows("CommandModel", *OF_BODY, 404, 409, 503) | shows("CommandModel", status=202, says=_ACCEPTED),
        "openapi_extra": takes_body(schema, required=False),
    }


@router.post("/workflow/trigger/{execution_id}", **_says(input={"description": "replaces the input of the creation"}))
async def trigger_workflow(request: Request, context: Context, execution_id: str) -> Response:
    """Starts a PENDING execution; `input`, when given, replaces the one of its creation."""
    idempotency, body = await read_order(request, context, "input")
    given = body.get("input")
    return await _order(
        request,
        context,
        (verbs.TRIGGER, execution_id, given, idempotency),
        lambda head: orders.trigger(context, execution_id, head, given),
    )


@router.post("/workflows/{execution_id}/cancel", **_says(reason=REASON))
async def cancel_workflow(request: Request, context: Context, execution_id: str) -> Response:
    """Cancels an execution that has not ended, with what runs of it. Asked twice, the answer is the same."""
    return await _reasoned(request, context, verbs.CANCEL, execution_id)


@router.post("/workflows/{execution_id}/pause", **_says(reason=REASON))
async def pause_workflow(request: Request, context: Context, execution_id: str) -> Response:
    """What runs of a RUNNING execution finishes, nothing starts. Asked twice, the answer is the same."""
    return await _reasoned(request, context, verbs.PAUSE, execution_id)


@router.post("/workflows/{execution_id}/resume", **_says())
async def resume_workflow(request: Request, context: Context, execution_id: str) -> Response:
    """A PAUSED execution goes on. Asked twice, the answer is the same."""
    idempotency, _ = await read_order(request, context)
    return await _order(request, context, (verbs.RESUME, execution_id, None, idempotency), nothing)


@router.post(
    "/workflows/{execution_id}/retry",
    **_says(**{"from": _NODES, "input": {"description": "replaces the input"}}),
)
async def retry_workflow(request: Request, context: Context, execution_id: str) -> Response:
    """A FAILED or CANCELLED execution goes on from its failed nodes; what has COMPLETED is kept.

    With `from` it also goes on from these nodes and all downstream of them, after COMPLETED as well.
    """
    idempotency, body = await read_order(request, context, "from", "input")
    nodes, given = body.texts("from", MOST_NODES), body.get("input")
    return await _order(
        request,
        context,
        (verbs.RETRY_FROM if nodes else verbs.RETRY, execution_id, [nodes, given], idempotency),
        lambda head: orders.retry(context, execution_id, head, nodes, given),
    )


@router.post("/workflows/{execution_id}/signals/{signal_name:path}", **_says(payload={}))
async def signal_workflow(request: Request, context: Context, execution_id: str, signal_name: str) -> Response:
    """Gives a signal to an execution that has not ended. One that nobody waits for yet is kept."""
    idempotency, body = await read_order(request, context, "payload")
    if not 0 < len(signal_name) <= LONGEST_NAME:
        refuse_path("signal_name", "wrong_name", f"The name of a signal has 1 to {LONGEST_NAME} characters.")
    value = body.get("payload")
    return await _order(
        request,
        context,
        (verbs.SIGNAL, execution_id, [signal_name, value], idempotency),
        lambda _head: orders.signal(context, signal_name, value),
    )


@router.post("/workflows/{execution_id}/approvals/{node_path:path}", **_says(answer={}))
async def answer_approval(request: Request, context: Context, execution_id: str, node_path: str) -> Response:
    """Answers an approval that is WAITING; its schema checks the answer. The path stands percent-encoded."""
    idempotency, body = await read_order(request, context, "answer")
    value = body.get("answer")
    return await _order(
        request,
        context,
        (verbs.ANSWER, execution_id, [node_path, value], idempotency),
        lambda head: orders.answer(context, execution_id, head, node_path, value),
    )


async def read_order(request: Request, context: ApiContext, *known: str) -> tuple[Idempotency, Members]:
    """The key and the body of a command, which has these members. Raises the problems 400, 408, 413, 415 and 422."""
    idempotency = Idempotency.of(request.headers)
    longest = 2 * context.settings.max_payload_bytes + SPARE_BYTES
    return idempotency, await read_members(request, context, known, longest)


def with_reason(body: Members) -> tuple[str, Fields]:
    """The body and the fields of a command that takes a reason and nothing else. Raises the problem 422."""
    reason = body.text("reason", LONGEST_REASON)

    async def fields(_head: object) -> dict[str, Any]:
        return {"reason": reason}

    return reason, fields


async def _reasoned(request: Request, context: ApiContext, verb: Verb, execution_id: str) -> Response:
    idempotency, body = await read_order(request, context, "reason")
    reason, fields = with_reason(body)
    return await _order(request, context, (verb, execution_id, reason, idempotency), fields)


async def _order(
    request: Request, context: ApiContext, asked: tuple[Verb, str, object, Idempotency], fields: Fields
) -> Response:
    hurry = wants_no_wait(request.headers)
    done = await order(context, *asked, fields, wait=not hurry)
    shown = {"execution_id": done.execution_id, "status": done.status, **pending(done.delivery)}
    headers = {"Preference-Applied": "respond-async"} if hurry else {}
    return answer(shown, 202 if "applied" in shown else 200, headers)
