"""POST /workflow, POST /workflow/validate."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from wf_api.acceptance import pending
from wf_api.answers import answer
from wf_api.body import Body, read_body
from wf_api.bounded import ANSWER_SECONDS
from wf_api.context import ApiContext, Context
from wf_api.creation import create, is_known
from wf_api.endings import wait_for_end, wait_seconds
from wf_api.idempotency import Idempotency
from wf_api.intake import take
from wf_api.models import CreatedModel, ValidationModel
from wf_api.openapi import OF_BODY, responses, takes_body
from wf_api.preferences import wants_no_wait
from wf_api.problems import ProblemError
from wf_api.views import execution_end

router = APIRouter(tags=["submission"])

_SUBMISSION: dict[str, Any] = {
    "description": "A workflow document, or an envelope around one.",
    "anyOf": [
        {"$ref": "#/components/schemas/Workflow"},
        {
            "type": "object",
            "title": "Envelope",
            "required": ["workflow"],
            "additionalProperties": False,
            "properties": {
                "workflow": {"$ref": "#/components/schemas/Workflow"},
                "input": {"description": "checked against the document's `input`"},
                "labels": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
                "trigger": {"type": ["boolean", "null"]},
            },
        },
    ],
}


@router.post(
    "/workflow",
    status_code=201,
    response_model=CreatedModel,
    responses=responses(*OF_BODY, 409, 503),
    openapi_extra=takes_body(_SUBMISSION, required=True, yaml=True),
)
async def create_workflow(
    request: Request,
    context: Context,
    trigger: bool = False,
    wait: str | None = None,
    allow_unknown: bool = False,
) -> Response:
    """Creates an execution. `trigger` starts it, and then `wait` (30s) waits for its end.

    `allow_unknown` accepts tasks and policies that nobody knows yet.
    """
    seconds = wait_seconds(wait)
    idempotency = Idempotency.of(request.headers)
    body = await _body(request, context)
    again = await is_known(context, idempotency)  # a repetition gets its first answer, whoever knows its tasks now
    submission = await take(context, body, trigger=trigger, allow_unknown=allow_unknown or again)
    hurry = wants_no_wait(request.headers)
    creation = await create(context, submission, idempotency, wait=not hurry)
    headers = {"Location": f"/workflows/{creation.execution_id}"}
    if hurry:
        headers["Preference-Applied"] = "respond-async"
    if seconds and submission.trigger and await wait_for_end(context, creation.execution_id, seconds):
        async with asyncio.timeout(ANSWER_SECONDS):
            return answer(await execution_end(context, creation.execution_id), 201, headers)
    shown = {"execution_id": creation.execution_id, "status": creation.status, **pending(creation.delivery)}
    return answer(shown, 201, headers)


@router.post(
    "/workflow/validate",
    response_model=ValidationModel,
    responses=responses(*OF_BODY, 503),
    openapi_extra=takes_body(_SUBMISSION, required=True, yaml=True),
)
async def validate_workflow(request: Request, context: Context, allow_unknown: bool = False) -> Response:
    """Checks a document, and the input of an envelope, as POST /workflow would; creates nothing."""
    Idempotency.of(request.headers)  # every POST takes the header; here twice is once anyway
    body = await _body(request, context)
    submission = await take(context, body, trigger=False, allow_unknown=allow_unknown)
    warnings = []
    if not allow_unknown and not await context.catalogue.get():
        warnings.append("No worker is alive: the names and parameters of tasks were not checked.")
    shown = {"valid": True, "hash": submission.hash, "nodes": len(submission.document.nodes), "warnings": warnings}
    return answer(shown)


async def _body(request: Request, context: ApiContext) -> Body:
    body = await read_body(request, context.settings.max_body_bytes, yaml=True)
    if body is None:
        raise ProblemError("unparsable", "The body is empty. Send a workflow document as JSON or YAML.")
    return body
