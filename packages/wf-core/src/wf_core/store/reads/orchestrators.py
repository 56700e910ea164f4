"""Orchestrators that beat."""

from __future__ import annotations

from typing import Any, cast

from redis.asyncio import Redis

from wf_core.store.keys import InstallationKeys


async def count_orchestrators(redis: Redis, namespace: str, since_ms: int) -> int:
    """How many were heard at or after `since_ms` (Unix ms of Redis' clock)."""
    return int(await cast("Any", redis.zcount(InstallationKeys(namespace).orchestrators, since_ms, "+inf")))
