"""No request hangs: whatever is asked of Redis on behalf of a request must answer within a few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

ANSWER_SECONDS = 6.0
"""Longest wait for the servers behind one answer; a TimeoutError becomes the problem 503."""


class BoundedRoute(APIRoute):
    """A route whose handler only reads: it has `ANSWER_SECONDS` to begin its answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler under a time limit."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await handle(request)

        return bounded
