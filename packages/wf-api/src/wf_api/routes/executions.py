"""GET /workflows and what lies under one execution, but its events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from wf_api import queries
from wf_api.answers import answer
from wf_api.body import JSON
from wf_api.bounded import BoundedRoute
from wf_api.context import Context
from wf_api.heads import read_head
from wf_api.inputs import document_of
from wf_api.openapi import responses, shows, text
from wf_api.problems import unknown_execution, unknown_node
from wf_api.queries import Cursor, Limit
from wf_core.states import ExecutionStatus, NodeStatus
from wf_core.store import reads
from wf_core.store.reads.why import Surroundings, read_why

router = APIRouter(tags=["executions"], route_class=BoundedRoute)

_WRONG_CURSOR = "cursor takes the next_cursor of the page before."


@router.get("/workflows", responses=shows("PageModel[SummaryModel]", 422, 503))
async def list_workflows(  # noqa: PLR0913 - one argument per filter; FastAPI passes them by name
    context: Context,
    status: Annotated[list[str] | None, Query(description="repeatable")] = None,
    name: str | None = None,
    label: Annotated[list[str] | None, Query(description="name=value, repeatable: all must hold")] = None,
    since: Annotated[str | None, Query(description="a time, or a duration before now such as 1h")] = None,
    q: Annotated[str | None, Query(max_length=200, description="searched in ids, names and labels")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Executions, newest first."""
    filters = reads.Filters(
        statuses=queries.statuses(status, ExecutionStatus),
        name=name,
        labels=queries.labels(label),
        since_ms=queries.since_ms(since, context.clock.now_ms()),
        q=q,
    )
    namespace = context.settings.namespace
    try:
        page = await reads.list_executions(
            context.redis, namespace, context.partitions, filters, cursor=cursor, limit=limit
        )
    except ValueError:
        queries.refuse("cursor", "wrong_cursor", _WRONG_CURSOR)
    return answer(page)


@router.get("/workflows/{execution_id}", responses=shows("ExecutionModel", 404, 422, 503))
async def get_workflow(context: Context, execution_id: str, nodes: bool = True) -> Response:
    """One execution, with the first 1,000 nodes of its top level unless `nodes=false`."""
    view = await reads.read_execution(context.redis, context.settings.namespace, execution_id, nodes=nodes)
    if view is None:
        raise unknown_execution()
    return answer(view)


@router.get("/workflows/{execution_id}/results", responses=shows("ResultsModel", 404, 422, 503))
async def get_results(context: Context, execution_id: str) -> Response:
    """The outputs of the nodes that have completed so far."""
    view = await reads.read_results(context.redis, context.settings.namespace, execution_id)
    if view is None:
        raise unknown_execution()
    return answer(view)


@router.get("/workflows/{execution_id}/nodes", responses=shows("PageModel[NodeItemModel]", 404, 422, 503))
async def list_nodes(  # noqa: PLR0913 - one argument per filter; FastAPI passes them by name
    context: Context,
    execution_id: str,
    under: Annotated[
        str | None, Query(description="a node or a scope, such as price or price[3]: what is inside, at any depth")
    ] = None,
    status: Annotated[list[str] | None, Query(description="repeatable")] = None,
    task: str | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Nodes of the top level or, with `under`, those inside a container, in the document's order."""
    chosen = queries.statuses(status, NodeStatus)
    try:
        page = await reads.read_nodes(
            context.redis,
            context.settings.namespace,
            execution_id,
            under=under,
            statuses=chosen,
            task=task,
            cursor=cursor,
            limit=limit,
        )
    except ValueError:
        queries.refuse("cursor", "wrong_cursor", _WRONG_CURSOR)
    except reads.UnknownNodeError as unknown:
        raise unknown_node(execution_id, unknown) from unknown
    if page is None:
        raise unknown_execution()
    return answer(page)


@router.get("/workflows/{execution_id}/nodes/{node_path:path}", responses=shows("NodeModel", 404, 422, 503))
async def get_node(context: Context, execution_id: str, node_path: str) -> Response:
    """One node with its input, output and attempts. Its path stands percent-encoded in the address."""
    try:
        view = await reads.read_node(context.redis, context.settings.namespace, execution_id, node_path)
    except reads.UnknownNodeError as unknown:
        raise unknown_node(execution_id, unknown) from unknown
    if view is None:
        raise unknown_execution()
    return answer(view)


@router.get("/workflows/{execution_id}/why", responses=shows("WhyModel", 404, 422, 503))
async def get_why(
    context: Context,
    execution_id: str,
    node: Annotated[str | None, Query(description="path of a node: why that one is where it is")] = None,
) -> Response:
    """Why an execution, or a node of it, is where it is: a sentence for each cause, nearest first."""
    settings = context.settings
    around = Surroundings(
        settings.namespace, context.partitions, context.clock.now_ms(), round(settings.death_seconds * 1000)
    )
    try:
        async with context.heavy:
            found = await read_why(context.redis, around, execution_id, node)
    except reads.UnknownNodeError as unknown:
        raise unknown_node(execution_id, unknown) from unknown
    if found is None:
        raise unknown_execution()
    return answer(found)


@router.get("/workflows/{execution_id}/definition", responses=responses(404, 422, 503) | text(JSON, "object"))
async def get_definition(context: Context, execution_id: str) -> Response:
    """The document that the execution runs, in canonical form."""
    head = await read_head(context.redis, context.settings.namespace, execution_id)
    return Response(await document_of(context, execution_id, head), media_type=JSON)
