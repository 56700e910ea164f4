"""What faults act on: servers, processes, links, and what is known of data that was lost on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis
from wf_testservers.cluster import Cluster
from wf_testservers.kafka import KafkaServer
from wf_testservers.proxy import Proxy
from wf_testservers.redis import RedisServer

from chaos.journal import Journal
from chaos.load import Load
from chaos.supervisor import Supervisor
from chaos.waiting import until
from wf_core.broker.open import open_log
from wf_core.broker.protocol import Log
from wf_core.settings import Settings
from wf_core.store.client import connect


class NotNowError(Exception):
    """The fault cannot be injected at the moment: its target is away or busy with another one."""


@dataclass
class Scene:
    """One run's servers and processes. `links` are proxies by name, `redis/worker-5` or `kafka`."""

    settings: Settings
    redis: RedisServer
    kafka: KafkaServer | None
    cluster: Cluster
    supervisor: Supervisor
    links: Mapping[str, Proxy]
    load: Load
    journal: Journal
    truncations: list[float] = field(default_factory=list)
    """Unix seconds at which Redis was killed to lose the end of its file."""
    losses: list[float] = field(default_factory=list)
    """Unix seconds at which the log was lost whole."""
    injected: int = 0
    """Records that belong in the dead letters."""
    _busy: set[str] = field(default_factory=set)

    @property
    def lost_data(self) -> bool:
        """Whether a fault lost data of a server."""
        return bool(self.truncations or self.losses)

    @asynccontextmanager
    async def alone(self, *targets: str) -> AsyncIterator[None]:
        """Nothing else is done to these targets meanwhile. Raises NotNowError when something is."""
        if self._busy & set(targets):
            raise NotNowError
        self._busy.update(targets)
        self.journal.disturbed = time.monotonic()
        try:
            yield
        finally:
            self.journal.disturbed = time.monotonic()
            self._busy.difference_update(targets)

    async def at_rest(self, seconds: float) -> None:
        """Waits until no fault holds a target. Raises TimeoutError."""
        await until(lambda: not self._busy, seconds)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """A connection to Redis beside all proxies."""
        client = Redis(host=self.redis.host, port=self.redis.port, socket_timeout=20, socket_connect_timeout=2)
        try:
            yield client
        finally:
            await client.aclose()

    @asynccontextmanager
    async def log(self) -> AsyncIterator[tuple[Redis, Log]]:
        """The log as services have it, beside the proxies of Redis, with the client that it uses."""
        client = connect(self.settings)
        log = open_log(self.settings, client)
        try:
            await log.start()
            yield client, log
        finally:
            await log.close()
            await client.aclose()


async def after(seconds: float) -> float:
    """Waits; returns the Unix time then."""
    await asyncio.sleep(seconds)
    return time.time()


def appended_file(directory: Path) -> Path:
    """The append-only file that Redis writes to now: Redis 7 keeps a folder with numbered increments."""
    increments = list((directory / "appendonlydir").glob("*.incr.aof"))
    if not increments:
        return directory / "appendonly.aof"
    return max(increments, key=lambda path: int(path.name.split(".")[-3]))
