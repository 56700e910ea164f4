"""The orchestrator as a service: the one place where everything is wired together."""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from wf_core import ids
from wf_core.broker.open import ensure_installation, open_log
from wf_core.metrics import Counters, serve_metrics
from wf_core.plugins.observers import Observers
from wf_core.settings import Settings
from wf_core.store.client import check_redis, connect, wait_for_redis
from wf_core.store.clock import Clock
from wf_core.store.scripts import Scripts
from wf_orchestrator.context import Context, Health
from wf_orchestrator.gauges import MEANINGS
from wf_orchestrator.plans import Plans
from wf_orchestrator.policy_book import PolicyBook
from wf_orchestrator.queries import Queries
from wf_orchestrator.work import Work

log = structlog.get_logger(__name__)


class OrchestratorService:
    """Leases event partitions, folds them, sends what is ready. Implements `wf_core.services.Service`."""

    def __init__(self, settings: Settings) -> None:
        self.counters = Counters(MEANINGS)
        self.context: Context | None = None
        self._settings = settings
        self._exits = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Connects, checks the servers and the installation, loads policies and observers."""
        async with contextlib.AsyncExitStack() as exits:
            self.context = await self._connect(exits)
            self._exits = exits.pop_all()
        log.info("orchestrator connected", id=self.context.id, partitions=self.context.partitions)

    async def _connect(self, exits: contextlib.AsyncExitStack) -> Context:
        settings = self._settings
        await exits.enter_async_context(serve_metrics(settings, self.counters))
        redis = connect(settings)
        exits.push_async_callback(redis.aclose)
        await wait_for_redis(redis, settings)
        for warning in await check_redis(redis, allow_volatile=settings.redis_allow_volatile):
            log.warning(warning)
        clock = Clock()
        await clock.sync(redis)
        scripts = Scripts(redis)
        events = open_log(settings, redis)
        exits.push_async_callback(events.close)
        await events.start()
        installation = await ensure_installation(events, scripts, settings)
        observers = await exits.enter_async_context(Observers())
        return Context(
            id=f"o-{ids.new_execution_id(0, clock.now_ms())[:26]}",
            settings=settings,
            log=events,
            scripts=scripts,
            queries=Queries(redis, settings.namespace),
            clock=clock,
            monotonic=time.monotonic,
            sleep=asyncio.sleep,
            counters=self.counters,
            health=Health(self.counters),
            observers=observers,
            policies=PolicyBook.load(),
            plans=Plans(),
            partitions=installation.partitions,
            task_partitions=installation.task_partitions,
            incarnation=installation.incarnation,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then finishes what is being folded and gives the partitions back."""
        if self.context is None:
            raise RuntimeError("start() comes first")
        async with self._exits:
            await Work(self.context).run(stop)
