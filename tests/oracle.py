"""What must hold of an installation at rest, whatever happened to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpx

from wf_core.broker.open import open_log
from wf_core.settings import Settings
from wf_core.store.client import connect
from wf_orchestrator.verify import verify

TERMINAL = frozenset({"node.completed", "node.failed", "node.cancelled", "node.skipped", "node.upstream_failed"})
"""Kinds of events that end a node."""


async def assert_folded(settings: Settings) -> None:
    """Redis holds in every partition what its log says."""
    redis = connect(settings)
    log = open_log(settings, redis)
    await log.start()
    try:
        for partition in range(settings.partitions):
            assert await verify(redis, log, settings.namespace, partition) == []
    finally:
        await log.close()
        await redis.aclose()


async def assert_ended_once(client: httpx.AsyncClient, execution_id: str, nodes: Iterable[str]) -> None:
    """Each of these nodes, and no other, has ended, and has ended once."""

    async def get(path: str, **params: Any) -> Any:
        return (await client.get(path, params=params)).raise_for_status().json()

    assert ends(await history(get, execution_id)) == dict.fromkeys(nodes, 1)


async def history(get: Callable[..., Awaitable[Any]], execution_id: str) -> list[dict[str, Any]]:
    """All events of an execution; `get` gives the JSON behind a path and its parameters."""
    events: list[dict[str, Any]] = []
    position: dict[str, str] = {}
    while True:
        page = await get(f"/workflows/{execution_id}/events", limit=500, **position)
        events += page["items"]
        if not page["next_cursor"]:
            return events
        position = {"after": page["next_cursor"]}


def ends(events: Iterable[dict[str, Any]]) -> Counter[str]:
    """How often each node ended."""
    return Counter(event["node"] for event in events if event["kind"] in TERMINAL)
