"""Says that this worker lives and what it holds; hears what is not wanted any more."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
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
from wf_worker.continuing import Continuing
from wf_worker.registration import Registration
from wf_worker.reports import Reports

log = structlog.get_logger(__name__)

_SOON = 0.1
"""Seconds between two heartbeats while Redis is away, and until every worker has beaten after that."""
_LEAST_PAUSE = 0.05
_AT_ONCE = 16
"""Partitions that are beaten at the same time: each takes a connection."""


class Heartbeat:
    """Beats for every event partition in which this worker holds a token, and keeps its registration fresh.

    It also says when claims may be trusted after an outage of Redis. The connection may have blinked: then the server
    still answers to the same name (its run id), remembers everything that it acknowledged, and claiming goes on with
    the first heartbeat that gets through. Another name means a restart or a fail-over: claims of the last second may be
    forgotten, and a message that is read again would run beside an attempt that still runs. So

    1. nothing is committed, and each lane is read again from the offset that Redis now stores (`on_restart`);
    2. this worker beats, by which its own claims are asserted again, and only then publishes the server's name;
    3. nothing is claimed before every other worker that was alive when Redis was last heard has published this name.
       One that left or died meanwhile never will: after a death time (2.5 s) nobody is waited for any longer, as then
       its attempts are given up anyway. At least one heartbeat's time passes, for a worker that had only just started
       and whose entry is forgotten as well.

    A worker that starts waits in the same way for those that it finds registered.
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        redis: Redis,
        scripts: Scripts,
        settings: Settings,
        clock: Clock,
        registration: Registration,
        executors: Continuing,
        reports: Reports,
        counters: Counters,
        on_restart: Callable[[], Awaitable[None]],
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._settings = settings
        self._clock = clock
        self._registration = registration
        self._executors = executors
        self._reports = reports
        self._counters = counters
        self._on_restart = on_restart
        self._heard = float("-inf")
        """When the last heartbeat that got through was sent."""
        self.server = ""
        """Run id of the Redis that this worker has beaten on."""
        self._quiet: tuple[float, float] | None = None
        """After an outage: until when at least, and at most, nothing is claimed."""
        self._told: dict[str, bytes] = {}
        """Progress by token as Redis knows it: only what changed is told again."""
        self._failing = False
        self._doubts = self._settled = 0
        """Reasons to doubt that Redis is the one from which was read, and those that a heartbeat has settled since."""
        self._wanted = asyncio.Event()
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._silent: set[int] = set()
        """Partitions that did not answer the last time: they come last, or they would hold up the others."""
        self._longest = settings.death_seconds / 3  # for either half: all that answers is beaten within the death time

    def may_claim(self) -> bool:
        """Whether Redis answered a beat within the death time, and knows every worker's claims."""
        silent = time.monotonic() - self._heard
        return self._quiet is None and self.may_commit() and silent < self._settings.death_seconds

    def may_begin(self, heard: float) -> bool:
        """Whether claims may be trusted, and `heard` is less than half the death time ago.

        That is when the claim, or the last heartbeat, that named an attempt was sent and Redis answered it. Then nobody
        can have given the attempt up, and nobody will before its partition was silent for as long again. A heartbeat
        that did not name it says nothing: a claim may have been answered so late that it was condemned meanwhile.
        """
        return time.monotonic() - heard < self._settings.death_seconds / 2 and self._quiet is None and self.may_commit()

    def may_commit(self) -> bool:
        """Whether Redis is known to be the one from which was read."""
        return self._settled == self._doubts

    def doubt(self) -> None:
        """Redis did not answer another part of this worker: nothing is claimed or committed before it is heard."""
        self._doubts += 1
        self._wanted.set()

    async def run(self) -> None:
        """Beats for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._wanted.clear()
            try:
                await self.beat()
            except Exception as error:
                self._doubts += 1
                if not self._failing:
                    known = isinstance(error, redis_errors)
                    log.error(
                        "no heartbeat reaches Redis", error=f"{type(error).__name__}: {error}", exc_info=not known
                    )
                self._failing = True
                self._counters.inc("worker_heartbeats_failed_total")
            hurry = self._failing or self._quiet is not None
            pause = (_SOON if hurry else self._settings.heartbeat_seconds) - (loop.time() - began)
            await asyncio.sleep(_LEAST_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause - _LEAST_PAUSE):
                    await self._wanted.wait()

    async def beat(self) -> None:
        """One heartbeat. Raises one of `redis_errors` when some part of it did not get through."""
        asked, doubts = time.monotonic(), self._doubts
        try:
            async with asyncio.timeout(self._longest if self._held() else None):
                await self._clock.sync(self._redis)
                await self._registration.publish()
        except redis_errors:  # one server of a cluster: the owners on the others must not miss this worker
            await self._beat_all()
            raise
        if self._registration.server != self.server:
            await self._start_over()
        for error in await self._beat_all():
            raise error
        await self._registration.assert_all()
        if self._quiet is not None:
            await self._wait_for_others(*self._quiet)
        self._failing = False
        self._heard, self._settled = asked, doubts

    async def _start_over(self) -> None:
        """Redis is another one than before, so it may have forgotten something."""
        server, now = self._registration.server, asyncio.get_running_loop().time()
        least = self._settings.heartbeat_seconds if self.server else 0.0
        self._quiet = now + least, now + self._settings.death_seconds
        self._told.clear()
        self._settled = -1
        if self.server:
            log.warning("Redis restarted; nothing is claimed until all workers have beaten", was=self.server)
            await self._on_restart()
        self.server = server

    async def _wait_for_others(self, least: float, most: float) -> None:
        missing, now = await self._registration.missing(), asyncio.get_running_loop().time()
        if now >= most or (now >= least and not missing):
            self._quiet = None
            if missing:
                log.warning("some workers have not beaten since Redis restarted; claims go on", missing=missing)

    async def _beat_all(self) -> list[Exception]:
        """Beats in every partition in which something is held; the errors of those that did not answer."""
        held, sent = self._held(), self._reports.sent()
        progress = self._executors.progress()
        news, begun = self._news(progress), self._begun()
        until = asyncio.get_running_loop().time() + self._longest
        partitions = sorted(held.keys() | sent.keys(), key=lambda p: (p in self._silent, p))
        beats = (
            self._beat(p, held.get(p, []), sent.get(p, []), news.get(p, []), begun.get(p, []), until)
            for p in partitions
        )
        replies = await asyncio.gather(*beats, return_exceptions=True)
        self._silent = {p for p, reply in zip(partitions, replies, strict=True) if isinstance(reply, Exception)}
        self._told = {} if self._silent else progress
        self._reports.again(token for tokens in replies if isinstance(tokens, list) for token in tokens)
        return [reply for reply in replies if isinstance(reply, Exception)]

    def _held(self) -> dict[int, list[str]]:
        """Tokens by event partition that run, or whose result the log has not acknowledged."""
        held = self._reports.unsent()
        for token in self._executors.running():
            held.setdefault(partition_of(token.partition("/")[0]), []).append(token)
        return held

    def _news(self, progress: dict[str, bytes]) -> dict[int, list[tuple[str, bytes]]]:
        """By event partition what Redis does not know yet of the progress of attempts, by token."""
        news: dict[int, list[tuple[str, bytes]]] = {}
        for name, said in progress.items():
            if self._told.get(name) is not said:
                news.setdefault(partition_of(name.partition("/")[0]), []).append((name, said))
        return news

    def _begun(self) -> dict[int, list[tuple[str, str]]]:
        """By event partition the tokens that this worker began and that are undecided, each with the one before it."""
        begun: dict[int, list[tuple[str, str]]] = {}
        for name, before in self._executors.undecided().items():
            begun.setdefault(partition_of(name.partition("/")[0]), []).append((name, before))
        return begun

    async def _beat(  # noqa: PLR0913 - all that is said in one partition
        self,
        partition: int,
        held: list[str],
        sent: list[tuple[str, int, str]],
        progress: list[tuple[str, bytes]],
        begun: list[tuple[str, str]],
        until: float,
    ) -> list[str]:
        """Beats in one partition, before `until`; returns tokens whose result the fold went past."""
        async with asyncio.timeout_at(until), self._limit:
            keys, asked = PartitionKeys.of(self._settings.namespace, partition), time.monotonic()
            reply = await self._scripts.beat(keys, self._registration.worker_id, held, sent, progress, begun)
        for token in reply.cancel:
            self.cancelled(token)
        self._reports.forget(reply.folded)
        self._executors.heard(held, asked)
        self._executors.decided(reply.begun)
        return reply.resend

    def cancelled(self, token: str) -> None:
        """The token left the in-flight set, or another worker holds it."""
        self._reports.forget([token])
        if self._executors.cancel(token):
            self._counters.inc("worker_cancelled_total")
            log.info("attempt cancelled", token=token)


async def hear_cancels(
    redis: Redis, keys: InstallationKeys, cancelled: Callable[[str], None], stopped: Callable[[str], None]
) -> None:
    """Calls `cancelled` with each token that is published, and `stopped` with each execution, for ever.

    The heartbeat hears of the tokens that this misses.
    """
    while True:
        try:
            async with redis.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(keys.cancel_channel)
                while True:
                    message = await channel.get_message(timeout=1.0)
                    if message is not None and message["type"] == "message":
                        word = cast("bytes", message["data"]).decode()
                        (cancelled if "/" in word else stopped)(word)
        except redis_errors as error:
            log.debug("cancels are not heard for a moment", error=str(error))
            await asyncio.sleep(0.2)
