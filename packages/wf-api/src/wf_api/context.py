"""What every request needs, made once by `create_app` and handed to the routes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from redis.asyncio import Redis

from wf_api.accepting import Asked, accepting
from wf_api.cached import Cached
from wf_api.lane import Lane
from wf_api.policies import Policies, installed_policies
from wf_api.positions import Positions
from wf_api.readiness import check_servers
from wf_api.reading import Reading
from wf_api.recent import Recent
from wf_core.broker.protocol import Log
from wf_core.catalogue import Catalogue
from wf_core.metrics import Counters
from wf_core.schema.inputs import Inputs
from wf_core.settings import Settings
from wf_core.store import reads
from wf_core.store.clock import Clock
from wf_core.store.scripts import Created, Scripts

CATALOGUE_SECONDS = 1.0
READINESS_SECONDS = 1.0
INLINE_BYTES = 32 * 1024
"""A body up to this size is checked on the event loop; a larger one in a thread, so that nobody waits for it."""
HEAVY_REQUESTS = 2
"""Large bodies that are checked at once: each takes a thread and many times its size in memory."""
MOST_STREAMS = 200
"""Event streams at once; each looks four times a second."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The servers behind the API and what is kept in memory about them."""

    settings: Settings
    redis: Redis
    log: Log
    scripts: Scripts
    clock: Clock
    partitions: int
    policies: Policies | None
    positions: Positions
    accepting: Lane[Asked, dict[int, Created] | None]
    catalogue: Cached[Catalogue]
    readiness: Cached[dict[str, str]]
    counters: Counters = field(default_factory=Counters)
    documents: Recent[Reading] = field(default_factory=lambda: Recent(128))
    """Small documents that were found right, by a digest of how they were written."""
    inputs: Recent[Inputs] = field(default_factory=lambda: Recent(512))
    """What documents take as input, by hash."""
    folded: Recent[bool] = field(default_factory=lambda: Recent(20_000))
    """Keys of documents that were seen whole."""
    heavy: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HEAVY_REQUESTS))
    streams: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_STREAMS))
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service stops: streams end."""

    @classmethod
    def create(  # noqa: PLR0913 - one argument per server, all by name
        cls, settings: Settings, *, redis: Redis, log: Log, scripts: Scripts, clock: Clock, partitions: int
    ) -> ApiContext:
        """A context with empty caches. `partitions` is the number of event partitions of the installation."""
        return cls(
            settings=settings,
            redis=redis,
            log=log,
            scripts=scripts,
            clock=clock,
            partitions=partitions,
            policies=installed_policies(),
            positions=Positions(redis, settings.namespace),
            accepting=accepting(scripts),
            catalogue=Cached(lambda: reads.read_catalogue(redis, settings.namespace), CATALOGUE_SECONDS),
            readiness=Cached(lambda: check_servers(redis, log, settings.namespace), READINESS_SECONDS),
        )

    async def compute(self, size: int, work: Callable[[], T]) -> T:
        """What `work` returns, which takes time by the `size` (bytes) of what a client sent."""
        if size <= INLINE_BYTES:
            return work()
        async with self.heavy:
            return await asyncio.to_thread(work)

    async def close(self) -> None:
        """Ends streams and background tasks; the servers' clients belong to whoever made them."""
        self.closing.set()
        for part in (self.accepting, self.positions, self.catalogue, self.readiness):
            with contextlib.suppress(asyncio.CancelledError):
                await part.close()


async def _context_of(request: Request) -> ApiContext:  # no plain function: each call of one would take a thread
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context_of)]
