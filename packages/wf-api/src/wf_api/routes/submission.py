"""POST /workflow, POST /workflow/batch, POST /workflow/validate."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from wf_api.answers import answer
from wf_api.context import Context
from wf_api.endings import wait_seconds
from wf_api.envelope import MOST_INPUTS, open_batch, open_envelope
from wf_api.idempotency import Idempotency
from wf_api.intake import open_body, read_document_body, take, unchecked
from wf_api.openapi import OF_BODY, shows, takes_body
from wf_api.preferences import wants_no_wait
from wf_api.submitting import Wish, submit, take_registered
from wf_core.definitions import Reference

router = APIRouter(tags=["submission"])

_MEMBERS: dict[str, Any] = {
    "workflow": {
        "anyOf": [
            {"$ref": "#/components/schemas/Workflow"},
            {"type": "string", "description": "name, or name@version, of a registered definition"},
        ]
    },
    "labels": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
    "trigger": {"type": ["boolean", "null"]},
}
_SUBMISSION: dict[str, Any] = {
    "description": "A workflow document, or an envelope around one.",
    "anyOf": [
        {"$ref": "#/components/schemas/Workflow"},
        {
            "type": "object",
            "title": "Envelope",
            "required": ["workflow"],
            "additionalProperties": False,
            "properties": {**_MEMBERS, "input": {"description": "checked against the document's `input`"}},
        },
    ],
}
_BATCH: dict[str, Any] = {
    "type": "object",
    "title": "Batch",
    "description": "A workflow document and the inputs of its executions.",
    "required": ["workflow", "inputs"],
    "additionalProperties": False,
    "properties": {
        **_MEMBERS,
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_INPUTS,
            "items": {"description": "checked against the document's `input`; null is none"},
        },
    },
}


@router.post(
    "/workflow",
    status_code=201,
    responses=shows("CreatedModel", *OF_BODY, 409, 503, status=201),
    openapi_extra=takes_body(_SUBMISSION, required=True, yaml=True),
)
async def create_workflow(
    request: Request,
    context: Context,
    trigger: bool = False,
    wait: str | None = None,
    allow_unknown: bool = False,
) -> Response:
    """Creates an execution. `trigger`, here or in the body, starts it, and then `wait` (30s) waits for its end.

    `allow_unknown` accepts tasks and policies that nobody knows yet.
    """
    wish = Wish(trigger, allow_unknown, wants_no_wait(request.headers), wait_seconds(wait))
    idempotency = Idempotency.of(request.headers)
    body = await read_document_body(request, context)
    return await submit(context, body, await open_body(context, body, open_envelope), wish, idempotency)


@router.post(
    "/workflow/batch",
    status_code=201,
    responses=shows("BatchModel", *OF_BODY, 409, 503, status=201),
    openapi_extra=takes_body(_BATCH, required=True, yaml=True),
)
async def create_batch(
    request: Request, context: Context, trigger: bool = False, allow_unknown: bool = False
) -> Response:
    """Creates an execution of one document for each of up to 1,000 inputs, all or none, under one idempotency key.

    `trigger`, here or in the body, starts them. `allow_unknown` accepts tasks and policies that nobody knows yet.
    """
    wish = Wish(trigger, allow_unknown, wants_no_wait(request.headers), seconds=0)
    idempotency = Idempotency.of(request.headers)
    body = await read_document_body(request, context)
    return await submit(context, body, await open_body(context, body, open_batch), wish, idempotency)


@router.post(
    "/workflow/validate",
    responses=shows("ValidationModel", *OF_BODY, 503),
    openapi_extra=takes_body(_SUBMISSION, required=True, yaml=True),
)
async def validate_workflow(request: Request, context: Context, allow_unknown: bool = False) -> Response:
    """Checks a document, and the input of an envelope, as POST /workflow would; creates nothing."""
    Idempotency.of(request.headers)  # every POST takes the header; here twice is once anyway
    body = await read_document_body(request, context)
    envelope = await open_body(context, body, open_envelope)
    if isinstance(envelope.workflow, str):
        wish = Wish(False, allow_unknown, hurry=True, seconds=0)
        reference = Reference.parse(envelope.workflow)
        submission = await take_registered(context, reference, envelope, wish, name_at=envelope.prefix)
    else:
        submission = await take(context, body, envelope, allow_unknown=allow_unknown)
    shown = {
        "valid": True,
        "hash": submission.read.hash,
        "nodes": len(submission.read.document.nodes),
        "warnings": await unchecked(context, allow_unknown=allow_unknown),
    }
    return answer(shown)
