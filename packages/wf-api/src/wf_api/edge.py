"""The outermost layer: counts requests, bounds how many run at once, and turns what nobody caught into a problem."""

from __future__ import annotations

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wf_api.problems import response, unavailable, unexpected
from wf_core.metrics import Counters

MOST_REQUESTS = 1000
"""Requests, streams among them, that one process answers at once."""
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class Edge:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._running += 1
        try:
            if self._running > MOST_REQUESTS:
                busy = unavailable(f"The server answers {MOST_REQUESTS} requests already.")
                await response(busy)(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        except Exception as error:  # noqa: BLE001 - the edge: logged under an id, counted, answered
            problem = unexpected(error, scope["method"], scope["path"])
            if not status:
                await problem(scope, receive, noting)
        finally:
            self._running -= 1
            self._count(scope, status, time.perf_counter() - begun)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._counters.inc("api_requests_total", method=method, route=route, status=str(status))
        self._counters.inc("api_request_seconds_total", seconds, method=method, route=route)
        self._counters.set("api_requests_running", self._running)
