"""POST /workflow/trigger/{execution_id}, POST /workflows/{execution_id}/cancel."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from wf_api.acceptance import pending
from wf_api.answers import answer
from wf_api.context import ApiContext, Context
from wf_api.control import Answer, cancel, trigger
from wf_api.idempotency import Idempotency
from wf_api.members import read_members
from wf_api.models import CommandModel
from wf_api.openapi import OF_BODY, responses, takes_body
from wf_api.preferences import wants_no_wait
from wf_api.problems import of_document
from wf_core.errors import DocumentError, Problem

router = APIRouter(tags=["control"])

LONGEST_REASON = 1000
SPARE_BYTES = 64 * 1024
"""A body may be so much longer than twice an input's limit, for its spacing."""
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": CommandModel, "description": "The log has the command; no orchestrator has applied it yet"}
}
_TRIGGER: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"input": {"description": "replaces the input of the creation"}},
}
_CANCEL: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"reason": {"type": ["string", "null"], "maxLength": LONGEST_REASON}},
}


@router.post(
    "/workflow/trigger/{execution_id}",
    response_model=CommandModel,
    responses=responses(*OF_BODY, 404, 409, 503) | _ACCEPTED,
    openapi_extra=takes_body(_TRIGGER, required=False),
)
async def trigger_workflow(request: Request, context: Context, execution_id: str) -> Response:
    """Starts a PENDING execution; `input`, when given, replaces the one of its creation."""
    idempotency = Idempotency.of(request.headers)
    body = await read_members(request, context, ("input",), _longest(context))
    hurry = wants_no_wait(request.headers)
    return _answer(await trigger(context, execution_id, body.get("input"), idempotency, wait=not hurry), hurry=hurry)


@router.post(
    "/workflows/{execution_id}/cancel",
    response_model=CommandModel,
    responses=responses(*OF_BODY, 404, 409, 503) | _ACCEPTED,
    openapi_extra=takes_body(_CANCEL, required=False),
)
async def cancel_workflow(request: Request, context: Context, execution_id: str) -> Response:
    """Cancels an execution that has not ended, with what runs of it. Asked twice, the answer is the same."""
    idempotency = Idempotency.of(request.headers)
    body = await read_members(request, context, ("reason",), _longest(context))
    reason = "" if body.get("reason") is None else body["reason"]
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        detail = f"`reason` is a text of at most {LONGEST_REASON} characters."
        raise of_document(DocumentError([Problem("/reason", "wrong_type", detail)]), "invalid-parameters")
    hurry = wants_no_wait(request.headers)
    return _answer(await cancel(context, execution_id, reason, idempotency, wait=not hurry), hurry=hurry)


def _longest(context: ApiContext) -> int:
    return 2 * context.settings.max_payload_bytes + SPARE_BYTES


def _answer(done: Answer, *, hurry: bool) -> Response:
    shown = {"execution_id": done.execution_id, "status": done.status, **pending(done.delivery)}
    headers = {"Preference-Applied": "respond-async"} if hurry else {}
    return answer(shown, 202 if "applied" in shown else 200, headers)
