"""GET /workflows/{execution_id}/events: JSON pages, or a stream of server-sent events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from wf_api import queries
from wf_api.answers import answer
from wf_api.bounded import BoundedRoute
from wf_api.context import Context
from wf_api.openapi import shows
from wf_api.problems import unavailable, unknown_execution
from wf_api.queries import Limit
from wf_api.streams import stream_events
from wf_core.store import reads

router = APIRouter(tags=["executions"], route_class=BoundedRoute)

STREAM = "text/event-stream"


@router.get(
    "/workflows/{execution_id}/events",
    responses=shows("PageModel[EventModel]", 404, 422, 503, also=STREAM),
)
async def list_events(  # noqa: PLR0913 - one argument per parameter; FastAPI passes them by name
    request: Request,
    context: Context,
    execution_id: str,
    after: Annotated[str | None, Query(description="`seq` of the last event that is known")] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before: the same as `after`")] = None,
    limit: Limit = 100,
    last_event_id: Annotated[str | None, Header(description="as `after`, for streams")] = None,
) -> Response:
    """What happened, in order. With `Accept: text/event-stream` as a stream that ends with the execution."""
    streams = STREAM in request.headers.get("accept", "")
    after = after or cursor
    known = (last_event_id or after) if streams else after
    try:
        page = await reads.read_events(
            context.redis, context.settings.namespace, execution_id, after_seq=known, limit=limit
        )
    except ValueError:
        queries.refuse("after", "wrong_seq", "after, or Last-Event-ID, takes the seq of an event.")
    if page is None:
        raise unknown_execution()
    if streams:
        if context.streams.locked():
            raise unavailable("The server feeds as many streams as it can; read pages instead.")
        return StreamingResponse(stream_events(context, execution_id, known), media_type=STREAM)
    return answer(page)
