"""GET /healthz, /readyz, /metrics, /schema/workflow.json."""

from __future__ import annotations

import functools
import json

from fastapi import APIRouter, Response

from wf_api.answers import answer
from wf_api.bounded import BoundedRoute
from wf_api.context import Context
from wf_api.openapi import responses, shows, text
from wf_api.problems import unavailable
from wf_api.readiness import OK
from wf_core.schema.validation import workflow_json_schema

router = APIRouter(tags=["operations"], route_class=BoundedRoute)


@router.get("/healthz", responses=shows("HealthModel"))
async def healthz() -> Response:
    """The process runs. Needs no key and asks no other server."""
    return answer({"status": "ok"})


@router.get("/readyz", responses=shows("ReadyModel", 503))
async def readyz(context: Context) -> Response:
    """Whether Redis and the log answer; asked at most once a second."""
    checks = await context.readiness.get()
    away = [name for name, state in checks.items() if state != OK]
    for name, state in checks.items():
        context.counters.set("api_server_ready", float(state == OK), server=name)
    if away:
        raise unavailable(f"{' and '.join(away)}: {checks[away[0]]}.", checks=checks)
    return answer({"status": "ready", "checks": checks})


@router.get(
    "/metrics",
    response_class=Response,
    responses=responses() | text("text/plain"),
)
async def metrics(context: Context) -> Response:
    """Numbers of this process in Prometheus' text format."""
    return Response(context.counters.render(), media_type="text/plain; version=0.0.4")


@router.get(
    "/schema/workflow.json",
    response_class=Response,
    responses=responses() | text("application/schema+json", "object"),
)
async def workflow_schema() -> Response:
    """JSON Schema of a workflow document, for editors."""
    return Response(_schema(), media_type="application/schema+json")


@functools.cache
def _schema() -> bytes:
    return json.dumps(workflow_json_schema()).encode()
