"""Leases task partitions: a fair share of each queue while there are free slots.

A worker without a free slot gives away the partitions in which messages wait, if another one has room.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import structlog

from wf_core.broker import topics
from wf_core.broker.open import read_incarnation
from wf_core.broker.protocol import Log, LogUnavailableError, TopicPartition
from wf_core.settings import Settings
from wf_core.store.client import redis_errors
from wf_core.store.keys import InstallationKeys
from wf_core.store.scripts import Scripts
from wf_worker.lanes import Lane, Lanes, share
from wf_worker.registration import Peer, Registration

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TICK = 0.5
_LOOK_SECONDS = 5.0
"""How often the log's incarnation is read, and consumed messages are trimmed."""
_AT_ONCE = 16
_AWAY: tuple[type[Exception], ...] = (LogUnavailableError, *redis_errors)


class Leases:
    """Takes, renews and gives back lanes.

    `free` tells the free slots, `on_lanes` hears that lanes changed, `doubt` that Redis forgot something.
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        broker: Log,
        scripts: Scripts,
        settings: Settings,
        registration: Registration,
        lanes: Lanes,
        queues: Sequence[str],
        partitions: int,
        incarnation: str,
        free: Callable[[], int],
        on_lanes: Callable[[], None],
        doubt: Callable[[], None],
    ) -> None:
        self.incarnation = incarnation
        self._log = broker
        self._scripts = scripts
        self._settings = settings
        self._keys = InstallationKeys(settings.namespace)
        self._registration = registration
        self._lanes = lanes
        self._queues = queues
        self._partitions = partitions
        self._free = free
        self._on_lanes = on_lanes
        self._doubt = doubt
        self._lease_ms = round(settings.lease_seconds * 1000)
        self._tick = min(_TICK, settings.lease_seconds / 4)
        self._wanted = asyncio.Event()
        self._full_since: float | None = None
        self._looked_at = asyncio.get_running_loop().time()
        self._away = False

    async def run(self) -> None:
        """Leases for ever."""
        while True:
            try:
                await self._step()
                self._away = False
            except _AWAY as error:
                if not self._away:
                    log.warning("task partitions cannot be leased for a moment", error=str(error))
                self._away = True
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick):
                    await self._wanted.wait()

    def wake(self) -> None:
        """A slot came free, or lanes were lost: look at once, if we hold nothing."""
        if self._full_since is not None or not self._lanes:
            self._wanted.set()

    async def ensure_topics(self) -> None:
        """Creates the topics of our queues where they are missing."""
        names = [topics.tasks(self._settings.namespace, queue) for queue in self._queues]
        await self._log.ensure_topics(dict.fromkeys(names, self._partitions))

    async def look(self) -> bool:
        """Reads the log's incarnation again; True when it is another one, so that every lane begins anew."""
        self._looked_at = asyncio.get_running_loop().time()
        found = await read_incarnation(self._log, self._settings)
        if found == self.incarnation:
            return False
        log.error("the log has another incarnation", was=self.incarnation, incarnation=found)
        await self.ensure_topics()
        self.incarnation = found
        for lane in self._lanes:
            self._lanes.drop(lane.source)
        self._wanted.set()
        return True

    async def release_all(self) -> None:
        """Gives every lane back."""
        await self._release(list(self._lanes))

    async def start_over(self) -> None:
        """Redis may have forgotten offsets, and messages with it: each lane is read again from where it now stands."""
        for lane in self._lanes:  # at once: what was read must not be committed
            self._lanes.rewind(lane, lane.committed)
        await _each(list(self._lanes), self.renew)
        self._on_lanes()

    async def _step(self) -> None:
        if asyncio.get_running_loop().time() - self._looked_at > _LOOK_SECONDS:
            await self.look()
            await self._trim()
        peers = await self._registration.peers()
        await _each(list(self._lanes), self.renew)
        for queue in self._queues:
            await self._balance(queue, [peer for peer in peers if queue in peer.queues])

    async def _balance(self, queue: str, peers: Sequence[Peer]) -> None:
        others = sum(1 for peer in peers if peer.id != self._registration.worker_id and peer.free > 0)
        if self._is_full() and others:
            await self._release([lane for lane in self._lanes.of(queue) if lane.waiting])
        held = self._lanes.of(queue)
        wanted = share(self._partitions, others + 1)
        if len(held) > wanted:
            await self._release(held[wanted:])
        elif len(held) < wanted and self._free() > 0:
            await self._take(queue, wanted - len(held))

    def _is_full(self) -> bool:
        """Whether there was no free slot for a heartbeat's time: shorter than that, changing hands costs more."""
        now = asyncio.get_running_loop().time()
        if self._free() > 0:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        return self._full_since is not None and now - self._full_since >= self._settings.heartbeat_seconds

    async def _take(self, queue: str, wanted: int) -> None:
        topic = topics.tasks(self._settings.namespace, queue)
        sources = [TopicPartition(topic, n) for n in range(self._partitions)]
        absent = [source for source in sources if source not in self._lanes]
        random.shuffle(absent)
        while absent and wanted > 0:
            some, absent = absent[:wanted], absent[wanted:]
            taken = await _each(some, lambda source: self._lease(queue, source))
            wanted -= sum(taken)

    async def _lease(self, queue: str, source: TopicPartition) -> bool:
        key = self._keys.task_lease(queue, source.partition)
        offset = await self._ask(key)
        if offset is None:
            return False
        self._lanes.add(Lane(source, queue, key, committed=offset, next_read=offset))
        self._on_lanes()
        return True

    async def renew(self, lane: Lane) -> bool:
        """Holds on to a lane; goes back in it when Redis stores a lower offset than it did. False when it is lost."""
        known = lane.committed  # as of now: a commit may overtake the answer
        offset = await self._ask(lane.key)
        if offset is None:
            self._lanes.drop(lane.source)
            self._on_lanes()
        elif offset < known:
            log.warning("Redis forgot a committed offset; its messages are read again", source=str(lane.source))
            self._doubt()  # first: others may still have to assert their claims on what is read again
            self._lanes.rewind(lane, offset)
            self._on_lanes()
        return offset is not None

    async def _ask(self, key: str) -> int | None:
        worker = self._registration.worker_id
        return await self._scripts.task_lease(key, worker, self._lease_ms, incarnation=self.incarnation)

    async def _release(self, lanes: Sequence[Lane]) -> None:
        if not lanes:
            return
        for lane in lanes:
            self._lanes.drop(lane.source)
        await _each(lanes, lambda lane: self._scripts.task_release(lane.key, self._registration.worker_id))
        self._on_lanes()

    async def _trim(self) -> None:
        for lane in self._lanes:
            if lane.committed > lane.trimmed:
                lane.trimmed = lane.committed
                await self._log.trim(lane.source, lane.committed)


async def _each(items: Iterable[T], step: Callable[[T], Awaitable[bool]]) -> list[bool]:
    """What `step` answers for each item; a few at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> bool:
        async with limit:
            return await step(item)

    return await asyncio.gather(*map(one, items))
