"""GET /tasks, GET /workers."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response

from wf_api.answers import answer
from wf_api.bounded import BoundedRoute
from wf_api.context import Context
from wf_api.openapi import shows
from wf_core.store import reads

router = APIRouter(tags=["catalogue"], route_class=BoundedRoute)


@router.get("/tasks", responses=shows("PageModel[TaskModel]", 422, 503))
async def list_tasks(context: Context) -> Response:
    """What the live workers can run, in one page."""
    return answer({"items": await reads.read_tasks(context.redis, context.settings.namespace), "next_cursor": None})


@router.get("/workers", responses=shows("PageModel[WorkerModel]", 422, 503))
async def list_workers(context: Context) -> Response:
    """The workers that beat, and those that fell silent a short time ago, in one page."""
    dead_after = context.settings.death_seconds * 1000
    found = await reads.read_workers(context.redis, context.settings.namespace, context.clock.now_ms())
    items = [{**msgspec.structs.asdict(worker), "alive": worker.silent_ms < dead_after} for worker in found]
    return answer({"items": items, "next_cursor": None})
