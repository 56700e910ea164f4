"""What a worker publishes about itself: who it is, what it can run, how much room it has."""

from __future__ import annotations

import os
import platform
import re
import secrets
from collections.abc import Sequence
from importlib import metadata
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.store.clock import Clock
from wf_core.store.keys import InstallationKeys
from wf_worker.executors import Executors

EXPIRE_SECONDS = 15
"""Without a heartbeat a worker's entry is gone after this long."""
_FORGET_MS = 60_000
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9.-]")


class Peer(msgspec.Struct, frozen=True):
    """What a worker needs to know of another one."""

    id: str
    queues: list[str] = []
    free: int = 0


_peer = msgspec.json.Decoder(Peer)


def new_worker_id() -> str:
    """An id that no other process has or had: host, pid and a random part."""
    host = _NOT_IN_IDS.sub("-", platform.node()) or "worker"
    return f"{host[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


class Registration:
    """This worker's entry in Redis, and what the others say."""

    def __init__(  # noqa: PLR0913 - what is published comes from all of them
        self,
        redis: Redis,
        keys: InstallationKeys,
        clock: Clock,
        worker_id: str,
        queues: Sequence[str],
        executors: Executors,
    ) -> None:
        self.worker_id = worker_id
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._queues = list(queues)
        self._executors = executors
        self._catalogue = ""
        self._server = ""
        self._started_at = clock.now_ms()
        self.leaving = False
        """Takes no new messages, so others must not leave it a share of them."""

    async def publish(self) -> bool:
        """Renews the entry; True when Redis is another process than last time, so it may have forgotten something."""
        catalogue = self._executors.catalogue
        name = catalogue.hash
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._keys.worker(self.worker_id), self._entry(name), ex=EXPIRE_SECONDS)
        pipe.zadd(self._keys.workers, {self.worker_id: self._clock.now_ms()})
        pipe.zremrangebyscore(self._keys.workers, 0, self._clock.now_ms() - _FORGET_MS)
        pipe.hexists(self._keys.catalogues, name)
        pipe.info("server")
        *_, known, server = await pipe.execute()
        if not known:
            await cast("Any", self._redis.hset(self._keys.catalogues, name, catalogue.encode()))
        if self._catalogue not in ("", name):  # another worker that has the old one publishes it again
            await cast("Any", self._redis.hdel(self._keys.catalogues, self._catalogue))
        self._catalogue = name
        restarted = self._server not in ("", server["run_id"])
        self._server = server["run_id"]
        return restarted

    async def peers(self, silent_ms: int) -> list[Peer]:
        """The workers that were heard within `silent_ms`.

        An entry outlives its worker by far, and a share that is left to the dead is read by nobody.
        """
        since = self._clock.now_ms() - silent_ms
        ids = await cast("Any", self._redis.zrangebyscore(self._keys.workers, since, "+inf"))
        if not ids:
            return []
        entries = await self._redis.mget([self._keys.worker(worker_id.decode()) for worker_id in ids])
        return [_peer.decode(entry) for entry in entries if entry]

    async def leave(self) -> None:
        """Takes the entry away."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.delete(self._keys.worker(self.worker_id))
        pipe.zrem(self._keys.workers, self.worker_id)
        await pipe.execute()

    def _entry(self, catalogue: str) -> bytes:
        return msgspec.json.encode(
            {
                "id": self.worker_id,
                "host": platform.node(),
                "pid": os.getpid(),
                "queues": self._queues,
                "slots": self._executors.configure.slots,
                "free": 0 if self.leaving else self._executors.free,
                "catalogue": catalogue,
                "version": metadata.version("wf-worker"),
                "started_at": self._started_at,
            }
        )
