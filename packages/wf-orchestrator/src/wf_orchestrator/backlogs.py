"""What waits, and for how much there is room: what is read of it from Redis, and what owners tell each other there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from wf_core.store.keys import InstallationKeys, PartitionKeys

_LOOKS_AGAIN = (b"withdraw|", b"queue|", b"child|", b"expand|")
"""Timers that stay due as long as a worker has the attempt, a child that was retried runs, or a pause lasts."""
_TIMERS = 100
"""Due timers that are looked at: those that withdraw attempts which a worker has stay due until it is done."""


class Backlog(NamedTuple):
    """What waits in a partition, and how much there is of what."""

    accepted: int
    """Commands that are not folded."""
    in_flight: int
    claimed: set[str]
    """Tokens."""
    live: dict[str, int]
    """Executions that have not ended, by status."""
    ended: int
    timer_ms: int
    """When the first timer fell due, Unix ms; 0: none has."""
    outbox: dict[str, int]
    """Messages to send, by queue."""


@dataclass(frozen=True, slots=True)
class Room:
    """What decides how much may be sent, by queue."""

    free: dict[str, int] = field(default_factory=dict)
    """Free slots of live workers."""
    idle: set[str] = field(default_factory=set)
    """Where a live worker has free slots and not one message."""
    busy: set[str] = field(default_factory=set)
    """Where messages wait for slots of a live worker."""
    others: dict[str, list[list[int]]] = field(default_factory=dict)
    """What waits at each of the other owners that has something, by level: the highest priority first."""


class _Worker(msgspec.Struct, frozen=True):
    """Of a worker's entry: what it takes from, and for how much it has room."""

    queues: list[str] = []
    free: int = 0
    waiting: int = 1
    """Messages that it has read and not claimed; an older release does not say."""


_worker = msgspec.json.Decoder(_Worker)
_told = msgspec.json.Decoder(dict[str, list[int]])


class Backlogs:
    """Reads over all partitions that are owned, and this orchestrator's word to the others."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._keys = InstallationKeys(namespace)

    async def measure(self, partitions: Sequence[PartitionKeys], now_ms: int) -> list[Backlog]:
        """What waits in each partition, in their order. Two round trips."""
        pipe = self._pipeline()
        for keys in partitions:
            pipe.hlen(keys.accepted)
            pipe.hlen(keys.in_flight)
            pipe.hkeys(keys.claims)
            pipe.zcard(keys.index("s:PENDING"))
            pipe.zcard(keys.index("s:RUNNING"))
            pipe.zcard(keys.index("ended"))
            pipe.zrangebyscore(keys.timers, "-inf", now_ms, start=0, num=_TIMERS, withscores=True)
            pipe.smembers(keys.queues)
        found = await pipe.execute() if partitions else []
        rows = [found[start : start + 8] for start in range(0, len(found), 8)]
        pipe = self._pipeline()
        queues = [(n, queue.decode()) for n, row in enumerate(rows) for queue in sorted(row[-1])]
        for n, queue in queues:
            pipe.zcard(partitions[n].outbox(queue))
        outboxes: list[dict[str, int]] = [{} for _ in rows]
        for (n, queue), number in zip(queues, await pipe.execute() if queues else [], strict=True):
            outboxes[n][queue] = number
        return [
            Backlog(
                accepted,
                in_flight,
                {token.decode() for token in claimed},
                {"PENDING": pending, "RUNNING": running},
                ended,
                next((round(due) for timer, due in timers if not timer.startswith(_LOOKS_AGAIN)), 0),
                outbox,
            )
            for (accepted, in_flight, claimed, pending, running, ended, timers, _), outbox in zip(
                rows, outboxes, strict=True
            )
        ]

    async def exchange(
        self, orchestrator: str, own: Mapping[str, Sequence[int]], *, owners_since: int, workers_since: int
    ) -> Room:
        """Tells the others what waits here, by queue and level, and hears from them and from the workers.

        Who was heard since then (Unix ms) counts. Two round trips.
        """
        keys, pipe = self._keys, self._pipeline()
        pipe.hgetall(keys.backlogs)  # before the list: who is in it and not yet listed must not be taken for gone
        pipe.zrange(keys.orchestrators, 0, -1, withscores=True)
        pipe.zrangebyscore(keys.workers, workers_since, "+inf")
        told, listed, workers = await pipe.execute()
        pipe = self._pipeline()
        for worker_id in workers:
            pipe.get(keys.worker(worker_id.decode()))
        if (word := msgspec.json.encode(own)) != told.pop(orchestrator.encode(), b"{}"):
            pipe.hset(keys.backlogs, orchestrator, word)
        if gone := told.keys() - {name for name, _ in listed}:
            pipe.hdel(keys.backlogs, *gone)
        entries = (await pipe.execute())[: len(workers)]
        heard = [told[name] for name, since in listed if since >= owners_since and name in told]
        return _room(map(_told.decode, heard), map(_worker.decode, filter(None, entries)))

    def _pipeline(self) -> Any:
        return self._redis.pipeline(transaction=False)


def _room(others: Iterable[Mapping[str, list[int]]], workers: Iterable[_Worker]) -> Room:
    room = Room()
    for backlog in others:
        for queue, levels in backlog.items():
            room.others.setdefault(queue, []).append(levels)
    for worker in workers:
        for queue in worker.queues:
            room.free[queue] = room.free.get(queue, 0) + worker.free
            if worker.waiting:
                room.busy.add(queue)
            elif worker.free:
                room.idle.add(queue)
    return room
