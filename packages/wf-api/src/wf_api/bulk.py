"""One command to every execution that filters find, a page at a time. Each is ordered as it would be alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from wf_api.acceptance import pending
from wf_api.problems import ProblemError

if TYPE_CHECKING:
    from wf_api.control import Answer
    from wf_core.store import reads

AT_ONCE = 20
"""Commands of one request that are on their way together."""
MOST = 200
"""Executions of one page."""

Order = Callable[[str], Awaitable["Answer"]]


async def order_all(page: reads.ExecutionPage, order: Order) -> dict[str, Any]:
    """What became of each execution of a page, in its order; one that refuses keeps no other from its command.

    Raises the problem 503 when a server is away: what was ordered before that stays ordered.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(execution_id: str) -> dict[str, Any]:
        async with gate:
            try:
                done = await order(execution_id)
            except ProblemError as problem:
                if problem.kind not in ("wrong-state", "unknown-execution"):
                    raise
                # It ended, or was deleted, after the list was read.
                return {"execution_id": execution_id, "status": None, "problem": problem.detail}
        shown = {"execution_id": execution_id, "status": done.status, "problem": None}
        return {**shown, **pending(done.delivery)}

    items = await asyncio.gather(*(one(item.execution_id) for item in page.items))
    return {"items": items, "next_cursor": page.next_cursor}
