"""GET /definitions, GET, PUT and DELETE /definitions/{definition_name}, POST /definitions/{name}/executions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from wf_api.answers import answer
from wf_api.bounded import BoundedRoute
from wf_api.context import Context
from wf_api.definitions import definition, register, remove
from wf_api.endings import wait_seconds
from wf_api.envelope import envelope_of
from wf_api.idempotency import Idempotency
from wf_api.intake import read_document_body, unchecked
from wf_api.members import read_members
from wf_api.openapi import OF_BODY, shows, takes_body
from wf_api.preferences import wants_no_wait
from wf_api.problems import of_document
from wf_api.queries import Cursor, Limit
from wf_api.submitting import Wish, submit_registered
from wf_core.definitions import Reference
from wf_core.errors import DocumentError, Problem
from wf_core.store import reads
from wf_core.store.reads.views import moment

router = APIRouter(tags=["definitions"])
_reading = APIRouter(route_class=BoundedRoute)

Version = Annotated[str | None, Query(max_length=200, description="a document's own version, or its hash")]
_DOCUMENT: dict[str, Any] = {"$ref": "#/components/schemas/Workflow"}
_BESIDE = ("input", "labels", "trigger", "version")
_RUN: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "input": {"description": "checked against the document's `input`"},
        "labels": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        "trigger": {"type": ["boolean", "null"]},
        "version": {"type": ["string", "null"], "description": "the newest when absent"},
    },
}


@_reading.get("/definitions", responses=shows("PageModel[DefinitionItemModel]", 422, 503))
async def list_definitions(context: Context, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Registered definitions by name, each with its newest version."""
    return answer(await reads.list_definitions(context.redis, context.settings.namespace, cursor=cursor, limit=limit))


@_reading.get("/definitions/{definition_name}", responses=shows("DefinitionModel", 404, 422, 503))
async def get_registered_definition(context: Context, definition_name: str, version: Version = None) -> Response:
    """The newest version of a definition, or the one that `version` names, with its document."""
    return answer(await definition(context, Reference(definition_name, version), name_at=None))


router.include_router(_reading)


@router.put(
    "/definitions/{definition_name}",
    responses=shows("RegisteredModel", *OF_BODY, 409, 503)
    | shows("RegisteredModel", status=201, says="A version is new"),
    openapi_extra={"requestBody": takes_body(_DOCUMENT, required=True, yaml=True)["requestBody"]},
)
async def put_definition(
    request: Request, context: Context, definition_name: str, allow_unknown: bool = False
) -> Response:
    """Makes a document the newest version of a definition; 200 when it is that already.

    `allow_unknown` accepts tasks, policies and definitions that are not known yet.
    """
    body = await read_document_body(request, context)
    done = await register(context, definition_name, body, allow_unknown=allow_unknown)
    shown = {
        "name": definition_name,
        "version": done.version.version,
        "hash": done.version.hash,
        "created_at": moment(done.version.ts),
        "warnings": await unchecked(context, allow_unknown=allow_unknown),
    }
    return answer(shown, 201 if done.is_new else 200)


@router.delete("/definitions/{definition_name}", responses=shows("RemovedModel", 404, 422, 503))
async def delete_definition(context: Context, definition_name: str, version: Version = None) -> Response:
    """Removes a definition with all its versions, or only the one that `version` names. Executions are not touched."""
    return answer({"name": definition_name, "removed": await remove(context, definition_name, version)})


@router.post(
    "/definitions/{definition_name}/executions",
    status_code=201,
    responses=shows("CreatedModel", *OF_BODY, 404, 409, 503, status=201),
    openapi_extra=takes_body(_RUN, required=False),
)
async def run_definition(  # noqa: PLR0913 - one argument per parameter; FastAPI passes them by name
    request: Request,
    context: Context,
    definition_name: str,
    trigger: bool = False,
    wait: str | None = None,
    allow_unknown: bool = False,
) -> Response:
    """Creates an execution of a definition, as POST /workflow does of a document."""
    wish = Wish(trigger, allow_unknown, wants_no_wait(request.headers), wait_seconds(wait))
    idempotency = Idempotency.of(request.headers)
    given = await read_members(request, context, _BESIDE, context.settings.max_body_bytes)
    version = given.pop("version", None)
    if not isinstance(version, str | None):
        raise of_document(DocumentError([Problem("/version", "wrong_type", "`version` is a text.")]))
    envelope = envelope_of({**given, "workflow": definition_name}, ("workflow", *_BESIDE))
    return await submit_registered(
        context, Reference(definition_name, version), envelope, wish, idempotency, version_at="/version"
    )
