"""POST /workflows/cancel, /pause, /resume, /retry: to all executions that filters find."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from wf_api import bulk, orders, queries, verbs
from wf_api.answers import answer
from wf_api.context import ApiContext, Context
from wf_api.control import Fields, nothing, order
from wf_api.idempotency import Idempotency
from wf_api.openapi import OF_BODY, shows, takes_body
from wf_api.queries import Cursor
from wf_api.routes.control import REASON, read_order, with_reason
from wf_api.verbs import Verb
from wf_core.states import ExecutionStatus
from wf_core.store import reads

router = APIRouter(tags=["control"])


async def _filters(  # noqa: PLR0913 - one argument per filter; FastAPI passes them by name
    context: Context,
    status: Annotated[list[str] | None, Query(description="repeatable; all that allow the command when absent")] = None,
    name: str | None = None,
    label: Annotated[list[str] | None, Query(description="name=value, repeatable: all must hold")] = None,
    since: Annotated[str | None, Query(description="a time, or a duration before now such as 1h")] = None,
    q: Annotated[str | None, Query(max_length=200, description="searched in ids, names and labels")] = None,
) -> reads.Filters:
    """What the command is for. Raises the problem 422 where nothing is said: that would be everything."""
    if not (status or name or label or since or q):
        queries.refuse("name", "missing_filter", "Say which executions: status, name, label, since or q.")
    return reads.Filters(
        statuses=queries.statuses(status, ExecutionStatus),
        name=name,
        labels=queries.labels(label),
        since_ms=queries.since_ms(since, context.clock.now_ms()),
        q=q,
    )


Chosen = Annotated[reads.Filters, Depends(_filters)]
Limit = Annotated[int, Query(ge=1, le=bulk.MOST, description="most executions of one request")]


def _says(**properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {
        "status_code": 202,
        "responses": shows("PageModel[OrderedModel]", *OF_BODY, 503, status=202),
        "openapi_extra": takes_body(schema, required=False),
    }


@router.post("/workflows/cancel", **_says(reason=REASON))
async def cancel_workflows(
    request: Request, context: Context, chosen: Chosen, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Cancels the executions that the filters find, newest first, a page at a time."""
    idempotency, body = await read_order(request, context, "reason")
    return await _all(context, verbs.CANCEL, chosen, (limit, cursor), idempotency, *with_reason(body))


@router.post("/workflows/pause", **_says(reason=REASON))
async def pause_workflows(
    request: Request, context: Context, chosen: Chosen, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Pauses the executions that the filters find, newest first, a page at a time."""
    idempotency, body = await read_order(request, context, "reason")
    return await _all(context, verbs.PAUSE, chosen, (limit, cursor), idempotency, *with_reason(body))


@router.post("/workflows/resume", **_says())
async def resume_workflows(
    request: Request, context: Context, chosen: Chosen, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Resumes the executions that the filters find, newest first, a page at a time."""
    idempotency, _ = await read_order(request, context)
    return await _all(context, verbs.RESUME, chosen, (limit, cursor), idempotency, None, nothing)


@router.post("/workflows/retry", **_says())
async def retry_workflows(
    request: Request, context: Context, chosen: Chosen, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Retries the executions that the filters find from their failed nodes, newest first, a page at a time."""
    idempotency, _ = await read_order(request, context)
    return await _all(context, verbs.RETRY, chosen, (limit, cursor), idempotency, [[], None], orders.retry_failed)


async def _all(  # noqa: PLR0913 - the verb, whom it is for, and what it says
    context: ApiContext,
    verb: Verb,
    chosen: reads.Filters,
    part: tuple[int, str | None],
    idempotency: Idempotency,
    body: object,
    fields: Fields,
) -> Response:
    limit, cursor = part
    filters = chosen if chosen.statuses else replace(chosen, statuses=verb.allowed)
    try:
        page = await reads.list_executions(
            context.redis, context.settings.namespace, context.partitions, filters, cursor=cursor, limit=limit
        )
    except ValueError:
        queries.refuse("cursor", "wrong_cursor", "cursor takes the next_cursor of the page before.")

    async def one(execution_id: str) -> Any:
        return await order(context, verb, execution_id, body, idempotency, fields, wait=False)

    return answer(await bulk.order_all(page, one), 202)
