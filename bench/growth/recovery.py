"""A partition with very many live executions is taken over: how long it is without an owner, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable
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
    """Seconds from the lease of a partition until it is live; resident bytes of an orchestrator before and after."""

    live_after: float
    before: int
    after: int


async def take_over(document: dict[str, Any], number: int) -> Takeover:
    """Writes the executions, starts an orchestrator and watches the partition."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(start_redis(folder / "redis"))
        environment = {**variables(server.port, None), "APP_PARTITIONS": "1", "APP_LOG_LEVEL": "WARNING"}
        keys = PartitionKeys.of(environment["APP_NAMESPACE"], 0)
        empty = variables(server.port, None)  # another namespace
        idle = stack.enter_context(Cluster(empty, folder)).start("orchestrator")
        await asyncio.to_thread(_until, lambda: bool(server.ask("KEYS", f"{empty['APP_NAMESPACE']}:orch")))
        await asyncio.sleep(_SETTLE)
        before = resident_bytes(idle.process.pid)
        idle.kill()
        await fill(document, number, partitions=1)(server.port, environment["APP_NAMESPACE"])
        owner = stack.enter_context(Cluster(environment, folder)).start("orchestrator")
        seconds = await _watch(server.port, keys)
        await asyncio.sleep(_SETTLE)
        return Takeover(seconds, before, resident_bytes(owner.process.pid))


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


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("the orchestrator does not start")
        time.sleep(0.05)


async def table(quick: bool) -> list[tuple[str, ...]]:
    """Lines: what they wait for, how many, ms until live, MiB before and after."""
    lines: list[tuple[str, ...]] = [
        ("waiting", "live executions", "ms from lease to live", "orchestrator, MiB before", "after")
    ]
    for what, document in WAITING.items():
        for number in (10_000,) if quick else (10_000, 100_000):
            found = await take_over(document, number)
            mib = [f"{size / 2**20:.0f}" for size in (found.before, found.after)]
            lines.append((what, f"{number:,}", f"{found.live_after * 1000:,.0f}", *mib))
    return lines
