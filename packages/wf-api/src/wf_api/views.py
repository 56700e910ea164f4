"""Answers that are put together from more than one read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_api.problems import unknown_execution
from wf_core.store import reads

if TYPE_CHECKING:
    from wf_api.context import ApiContext


async def execution_end(context: ApiContext, execution_id: str) -> dict[str, Any]:
    """The answer to a creation whose end was waited for."""
    view = await reads.read_execution(context.redis, context.settings.namespace, execution_id, nodes=False)
    if view is None:
        raise unknown_execution()
    return {
        "execution_id": execution_id,
        "status": view.status,
        "output": view.output,
        "error": view.error,
    }
