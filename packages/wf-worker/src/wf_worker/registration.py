"""What a worker publishes about itself: who it is, what it can run, how much room it has."""

from __future__ import annotations

import itertools
import os
import platform
import re
import secrets
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.store.clock import Clock
from wf_core.store.keys import InstallationKeys
from wf_worker.attempts import AttemptRunner

EXPIRE_SECONDS = 15
"""Without a heartbeat a worker's entry is gone after this long."""
_FORGET_MS = 60_000
_MOST_BROKEN = 20
_REASON_LIMIT = 500
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9.-]")


class Peer(msgspec.Struct, frozen=True):
    """What a worker needs to know of another one."""

    id: str
    queues: list[str] = []
    free: int = 0
    redis: str = ""
    """`Registration.server` in which it last beat for everything that it holds."""


_peer = msgspec.json.Decoder(Peer)


def new_worker_id() -> str:
    """An id that no other process has or had: host, pid and a random part."""
    host = _NOT_IN_IDS.sub("-", platform.node()) or "worker"
    return f"{host[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


class Registration:
    """This worker's entry in Redis, and what the others say. `waiting` tells the messages that it has not claimed."""

    def __init__(  # noqa: PLR0913 - what is published comes from all of them
        self,
        redis: Redis,
        keys: InstallationKeys,
        clock: Clock,
        worker_id: str,
        queues: Sequence[str],
        executors: AttemptRunner,
        silent_ms: int,
        waiting: Callable[[], int],
    ) -> None:
        self.worker_id = worker_id
        self.server = ""
        """Which Redis answered last: a restart or a fail-over gives another name."""
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._queues = list(queues)
        self._executors = executors
        self._silent_ms = silent_ms
        self._waiting = waiting
        self._catalogue = ""
        self._asserted = ""
        self._started_at = self._published_at = clock.now_ms()
        self._heard: set[str] = set()
        self._awaited: set[str] = set()
        self.leaving = False
        """Takes no new messages, so others must not leave it a share of them."""

    async def publish(self) -> None:
        """Renews the entry, and learns which Redis it is that answers."""
        server = await self._ask_server()
        if server != self.server:  # who was alive until then is read before newer entries hide it
            found = await self._ids(self._published_at - self._silent_ms)
            self._awaited = {*self._awaited, *self._heard, *found} - {self.worker_id}
            self.server = server
        await self._put()

    async def assert_all(self) -> None:
        """Every partition in which this worker holds something was beaten since `server` answered: the others may know.

        Call it before anything else is claimed.
        """
        if self._asserted != self.server:
            self._asserted = self.server
            await self._put()

    async def missing(self) -> list[str]:
        """Workers that were alive before `server` answered first and have not beaten there for all that they hold."""
        if self._awaited:
            entries = await self._entries(sorted(self._awaited))
            self._awaited -= {peer.id for peer in entries if peer.redis == self.server}
        return sorted(self._awaited)

    async def _put(self) -> None:
        now = self._clock.now_ms()
        catalogue = self._executors.catalogue
        name = catalogue.hash
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._keys.worker(self.worker_id), self._entry(name), ex=EXPIRE_SECONDS)
        pipe.zadd(self._keys.workers, {self.worker_id: now})
        pipe.zremrangebyscore(self._keys.workers, 0, now - _FORGET_MS)
        pipe.hexists(self._keys.catalogues, name)
        *_, known = await pipe.execute()
        if not known:
            await cast("Any", self._redis.hset(self._keys.catalogues, name, catalogue.encode()))
        if self._catalogue not in ("", name):  # another worker that has the old one publishes it again
            await cast("Any", self._redis.hdel(self._keys.catalogues, self._catalogue))
        self._catalogue = name
        self._published_at = now

    async def peers(self) -> list[Peer]:
        """The workers that were heard within `silent_ms`.

        An entry outlives its worker by far, and a share that is left to the dead is read by nobody.
        """
        found = await self._entries(await self._ids(self._clock.now_ms() - self._silent_ms))
        self._heard = {peer.id for peer in found}
        return found

    async def _ids(self, since: int) -> list[str]:
        ids = await cast("Any", self._redis.zrangebyscore(self._keys.workers, since, "+inf"))
        return [worker_id.decode() for worker_id in ids]

    async def _entries(self, ids: Sequence[str]) -> list[Peer]:
        pipe = self._redis.pipeline(transaction=False)  # the keys lie on several nodes of a cluster
        for worker_id in ids:
            pipe.get(self._keys.worker(worker_id))
        entries = await pipe.execute() if ids else []
        return [_peer.decode(entry) for entry in entries if entry]

    async def _ask_server(self) -> str:
        return str((await cast("Any", self._redis.info("server")))["run_id"])

    async def leave(self) -> None:
        """Takes the entry away."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.delete(self._keys.worker(self.worker_id))
        pipe.zrem(self._keys.workers, self.worker_id)
        await pipe.execute()

    def _broken(self) -> dict[str, str]:
        """Why some tasks are missing here; the first few, as the entry is sent with each heartbeat."""
        broken = itertools.islice(self._executors.catalogue.broken.items(), _MOST_BROKEN)
        return {name: reason[:_REASON_LIMIT] for name, reason in broken}

    def _entry(self, catalogue: str) -> bytes:
        return msgspec.json.encode(
            {
                "id": self.worker_id,
                "host": platform.node(),
                "pid": os.getpid(),
                "queues": self._queues,
                "slots": self._executors.slots,
                "free": 0 if self.leaving else self._executors.free,
                "waiting": self._waiting(),
                "catalogue": catalogue,
                "broken": self._broken(),
                "redis": self._asserted,
                "version": metadata.version("wf-worker"),
                "started_at": self._started_at,
            }
        )
