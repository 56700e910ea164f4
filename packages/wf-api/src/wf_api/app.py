"""Puts the application together."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI

from wf_api import openapi, problems
from wf_api.auth import BearerAuth, SameSite, is_loopback
from wf_api.context import ApiContext
from wf_api.edge import Edge
from wf_api.queries import only_known
from wf_api.routes import (
    bulk,
    catalogue,
    control,
    dead_letters,
    definitions,
    events,
    executions,
    operations,
    submission,
)


def create_app(context: ApiContext) -> FastAPI:
    """The application over the servers of `context`, which stays the caller's to close."""
    app = _App(
        title="wf",
        version="1",
        description="Submits, controls and shows workflow executions.",
        docs_url=None,  # the usual pages load their scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.context = context
    problems.install(app)
    for area in (submission, control, bulk, executions, events, definitions, catalogue, dead_letters):
        app.include_router(area.router, dependencies=[Depends(only_known)])
    app.include_router(operations.router)  # probes and scrapers add what they like
    if context.settings.api_key is not None:
        app.add_middleware(BearerAuth, key=context.settings.api_key.get_secret_value())
    else:
        app.add_middleware(SameSite, anywhere=not is_loopback(context.settings.api_host))
    app.add_middleware(Edge, counters=context.counters)
    return app


class _App(FastAPI):
    """Fills in what FastAPI leaves out of /openapi.json."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            context: ApiContext = self.state.context
            needs_key = context.settings.api_key is not None
            self.openapi_schema = openapi.complete(super().openapi(), needs_key=needs_key)
        return self.openapi_schema
