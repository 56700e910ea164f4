"""Waits until an orchestrator folded a position of the log: one poller for all requests, alive while one waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

import structlog
from redis.asyncio import Redis

from wf_core.store.client import redis_errors
from wf_core.store.keys import PartitionKeys

log = structlog.get_logger(__name__)

FASTEST_SECONDS = 0.002
SLOWEST_SECONDS = 0.05
AWAY_SECONDS = 0.25


class Positions:
    """The offsets that the partitions have folded, as far as someone waits for them."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace
        self._waiting: defaultdict[int, set[tuple[int, asyncio.Future[None]]]] = defaultdict(set)
        self._poller: asyncio.Task[None] | None = None
        self._pause = FASTEST_SECONDS

    async def passed(self, partition: int, position: int, seconds: float) -> bool:
        """Waits up to `seconds` until `partition` has folded the record at `position`; whether it has."""
        entry = (position, asyncio.get_running_loop().create_future())
        self._waiting[partition].add(entry)
        self._pause = FASTEST_SECONDS
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="positions")
        try:
            async with asyncio.timeout(seconds):
                await entry[1]
        except TimeoutError:
            return False
        finally:
            self._waiting[partition].discard(entry)
            if not self._waiting[partition]:
                del self._waiting[partition]
        return True

    async def close(self) -> None:
        """Ends the poller."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def _poll(self) -> None:
        while self._waiting:
            try:
                folded = await self._offsets(list(self._waiting))
            except redis_errors as error:
                log.debug("waiting for Redis", error=str(error))
                await asyncio.sleep(AWAY_SECONDS)
                continue
            if self._wake(folded):
                self._pause = FASTEST_SECONDS
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 1.3, SLOWEST_SECONDS)

    async def _offsets(self, partitions: list[int]) -> dict[int, int]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for partition in partitions:
                pipe.hget(PartitionKeys.of(self._namespace, partition).meta, "off")
            return {p: int(value or 0) for p, value in zip(partitions, await pipe.execute(), strict=True)}

    def _wake(self, folded: dict[int, int]) -> int:
        woken = 0
        for partition, offset in folded.items():
            for position, future in self._waiting.get(partition, ()):
                if offset > position and not future.done():
                    future.set_result(None)
                    woken += 1
        return woken
