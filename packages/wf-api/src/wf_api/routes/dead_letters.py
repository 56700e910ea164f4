"""GET /dead-letters and what can be done about each: POST …/send, …/discard."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from wf_api import dead_letters, queries
from wf_api.answers import answer
from wf_api.bounded import BoundedRoute
from wf_api.context import Context
from wf_api.idempotency import Idempotency
from wf_api.members import read_members
from wf_api.openapi import OF_BODY, shows, takes_body
from wf_api.queries import Cursor
from wf_core.broker.protocol import MAX_RECORD_BYTES

router = APIRouter(tags=["operations"], route_class=BoundedRoute)

_LONGEST = 4 * MAX_RECORD_BYTES
_SEND: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"record": {"type": ["object", "null"], "description": "sent in place of the one that is there"}},
}
_NOTHING: dict[str, Any] = {"type": "object", "additionalProperties": False}


@router.get("/dead-letters", responses=shows("PageModel[DeadLetterModel]", 422, 503))
async def list_dead_letters(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=100, description="longest page")] = 20,
    cursor: Cursor = None,
) -> Response:
    """Records that nobody could use, newest first. A page whose records are long ends early."""
    before = None if cursor is None else dead_letters.parse_offset(cursor)
    if cursor is not None and before is None:
        queries.refuse("cursor", "wrong_cursor", "cursor takes the next_cursor of the page before.")
    found, next_cursor = await dead_letters.page(context, before, limit)
    return answer({"items": [dead_letters.view(one) for one in found], "next_cursor": next_cursor})


@router.get("/dead-letters/{dead_letter_id}", responses=shows("DeadLetterModel", 404, 422, 503))
async def get_dead_letter(context: Context, dead_letter_id: str) -> Response:
    """One dead letter."""
    return answer(dead_letters.view(await dead_letters.one(context, dead_letter_id)))


@router.post(
    "/dead-letters/{dead_letter_id}/send",
    responses=shows("SettledModel", *OF_BODY, 404, 409, 503),
    openapi_extra=takes_body(_SEND, required=False),
)
async def send_dead_letter(request: Request, context: Context, dead_letter_id: str, again: bool = False) -> Response:
    """Sends the record, or the `record` given, back: an event to its execution's partition, a message to its queue.

    Repeated it gives the first answer; `again` sends it once more.
    """
    Idempotency.of(request.headers)  # every POST takes the header; here twice is once anyway
    body = await read_members(request, context, ("record",), _LONGEST)
    found = await dead_letters.one(context, dead_letter_id)
    mark = await dead_letters.send(context, found, body.get("record"), again=again)
    return answer(dead_letters.settled(found.id, mark))


@router.post(
    "/dead-letters/{dead_letter_id}/discard",
    responses=shows("SettledModel", *OF_BODY, 404, 409, 503),
    openapi_extra=takes_body(_NOTHING, required=False),
)
async def discard_dead_letter(request: Request, context: Context, dead_letter_id: str) -> Response:
    """Marks a dead letter as of no use. Asked twice, the answer is the same."""
    Idempotency.of(request.headers)  # every POST takes the header; here twice is once anyway
    await read_members(request, context, (), _LONGEST)
    found = await dead_letters.one(context, dead_letter_id)
    return answer(dead_letters.settled(found.id, await dead_letters.discard(context, found)))
