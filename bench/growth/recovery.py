"""A partition with very many live executions is taken over: how long it is without an owner, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from wf_testservers.cluster import Cluster
from wf_testservers.engine import variables
from wf_testservers.redis import start_redis

from bench.growth.curves import fill
from bench.processes import resident_bytes
from wf_core.store.keys import PartitionKeys

_PATIENCE = 120.0
_LOOK = 0.001
_SETTLE = 2.0

WAITING: dict[str, dict[str, Any]] = {
    "for a signal": {"name": "waiting", "nodes": {"w": {"kind": "wait", "signal": "go"}}},
    "for a moment in ten days": {"name": "waiting", "nodes": {"w": {"kind": "wait", "duration": "10d"}}},
    "for a moment within a minute": {"name": "waiting", "nodes": {"w": {"kind": "wait", "duration": "50s"}}},
    "for a worker": {"name": "waiting", "nodes": {"a": {"task": "core.noop", "queue": "nobody"}}},
}
"""What the executions are waiting for, by what that is called."""


@dataclass(frozen=True)
class Takeover:
    """Seconds from the lease of a partition until it is live, and bytes that the orchestrator holds after a while."""

    live_after: float
    resident: int


async def take_over(document: dict[str, Any], number: int) -> Takeover:
    """Writes executions into the only partition, starts an orchestrator and watches what it does."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(start_redis(folder / "redis"))
        environment = {**variables(server.port, None), "APP_PARTITIONS": "1", "APP_LOG_LEVEL": "WARNING"}
        await fill(document, number, partitions=1)(server.port, environment["APP_NAMESPACE"])
        owner = stack.enter_context(Cluster(environment, folder)).start("orchestrator")
        seconds = await _watch(server.port, PartitionKeys.of(environment["APP_NAMESPACE"], 0))
        await asyncio.sleep(_SETTLE)
        return Takeover(seconds, resident_bytes(owner.process.pid))


async def _watch(port: int, keys: PartitionKeys) -> float:
    leased = None
    async with Redis(port=port) as redis, asyncio.timeout(_PATIENCE):
        while True:
            owner, is_live = await redis.hmget(keys.meta, ["own", "live"])
            now = time.monotonic()
            leased = leased or (now if owner else None)
            if leased and is_live == b"1":
                return now - leased
            await asyncio.sleep(_LOOK)


async def table(quick: bool) -> list[tuple[str, ...]]:
    """Lines: what they wait for, how many, ms until live, MiB of the orchestrator."""
    lines: list[tuple[str, ...]] = [("waiting", "live executions", "ms from lease to live", "orchestrator, MiB")]
    for what, document in WAITING.items():
        for number in (1, 10_000) if quick else (1, 10_000, 100_000):
            found = await take_over(document, number)
            lines.append((what, f"{number:,}", f"{found.live_after * 1000:,.0f}", f"{found.resident / 2**20:.0f}"))
    return lines
