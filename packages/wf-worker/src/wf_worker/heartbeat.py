"""Says that this worker lives and what it holds; hears what is not wanted any more."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import cast

import structlog
from redis.asyncio import Redis

from wf_core.ids import partition_of
from wf_core.metrics import Counters
from wf_core.settings import Settings
from wf_core.store.client import redis_errors
from wf_core.store.clock import Clock
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.scripts import Scripts
from wf_worker.executors import Executors
from wf_worker.registration import Registration
from wf_worker.reports import Reports

log = structlog.get_logger(__name__)

_AT_ONCE = 16
"""Partitions that are beaten at the same time: each takes a connection."""


class Heartbeat:
    """Beats for every event partition in which this worker holds a token, and keeps its registration fresh."""

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        redis: Redis,
        scripts: Scripts,
        settings: Settings,
        clock: Clock,
        registration: Registration,
        executors: Executors,
        reports: Reports,
        counters: Counters,
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._settings = settings
        self._clock = clock
        self._registration = registration
        self._executors = executors
        self._reports = reports
        self._counters = counters
        self._heard = float("-inf")
        self._quiet_until = 0.0
        self._failing = False
        self._limit = asyncio.Semaphore(_AT_ONCE)

    def may_claim(self) -> bool:
        """Whether Redis answered a beat within the death time, and long enough after an outage.

        After an outage other workers' claims may have been forgotten: they beat first.
        """
        now = time.monotonic()
        return now >= self._quiet_until and now - self._heard < self._settings.death_seconds

    async def run(self) -> None:
        """Beats for ever."""
        while True:
            began = time.monotonic()
            try:
                await self.beat()
            except Exception as error:
                if not self._failing:
                    known = isinstance(error, redis_errors)
                    log.error(
                        "no heartbeat reaches Redis", error=f"{type(error).__name__}: {error}", exc_info=not known
                    )
                self._failing = True
                self._counters.inc("worker_heartbeats_failed_total")
            await asyncio.sleep(max(0.05, self._settings.heartbeat_seconds - (time.monotonic() - began)))

    async def beat(self) -> None:
        """One heartbeat. Raises one of `redis_errors` when some part of it did not get through."""
        asked = time.monotonic()
        await self._clock.sync(self._redis)
        restarted = await self._registration.publish()
        held, sent = self._held(), self._reports.sent()
        beats = (self._beat(p, held.get(p, []), sent.get(p, [])) for p in held.keys() | sent.keys())
        resend = await asyncio.gather(*beats)
        self._reports.again(token for tokens in resend for token in tokens)
        answered = time.monotonic()
        if self._failing or restarted or self._settings.death_seconds < answered - self._heard < math.inf:
            log.warning("Redis is back; nothing is claimed for a while", seconds=self._settings.death_seconds)
            self._quiet_until = answered + self._settings.death_seconds
        self._failing = False
        self._heard = asked

    def _held(self) -> dict[int, list[str]]:
        """Tokens by event partition that run, or whose result the log has not acknowledged."""
        held = self._reports.unsent()
        for token in self._executors.running():
            held.setdefault(partition_of(token.partition("/")[0]), []).append(token)
        return held

    async def _beat(self, partition: int, held: list[str], sent: list[tuple[str, int, str]]) -> list[str]:
        """Beats in one partition; returns tokens whose result the fold went past."""
        async with self._limit:
            keys = PartitionKeys.of(self._settings.namespace, partition)
            reply = await self._scripts.beat(keys, self._registration.worker_id, held, sent)
        for token in reply.cancel:
            self.cancelled(token)
        self._reports.forget(reply.folded)
        return reply.resend

    def cancelled(self, token: str) -> None:
        """The token left the in-flight set, or another worker holds it."""
        self._reports.forget([token])
        if self._executors.cancel(token):
            self._counters.inc("worker_cancelled_total")
            log.info("attempt cancelled", token=token)


async def hear_cancels(redis: Redis, keys: InstallationKeys, cancelled: Callable[[str], None]) -> None:
    """Calls `cancelled` with each token that is published, for ever. The heartbeat hears what this misses."""
    while True:
        try:
            async with redis.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(keys.cancel_channel)
                while True:
                    message = await channel.get_message(timeout=1.0)
                    if message is not None and message["type"] == "message":
                        cancelled(cast("bytes", message["data"]).decode())
        except redis_errors as error:
            log.debug("cancels are not heard for a moment", error=str(error))
            await asyncio.sleep(0.5)
