"""Makes a worker's process: connects, starts the children, runs the supervisor until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

import structlog

from wf_core.broker import topics
from wf_core.broker.open import ensure_installation, open_log
from wf_core.errors import SetupError
from wf_core.metrics import Counters, serve_metrics
from wf_core.settings import Settings
from wf_core.store.client import check_redis, connect, wait_for_redis
from wf_core.store.clock import Clock
from wf_core.store.scripts import Scripts
from wf_worker.attempts import Attempt, Ended
from wf_worker.executors import GRACE_SECONDS, Executors
from wf_worker.forks import Forks
from wf_worker.frames import Configure
from wf_worker.loading import split_paths
from wf_worker.registration import new_worker_id
from wf_worker.supervisor import Supervisor, cancel_all

log = structlog.get_logger(__name__)

_WATCH_SECONDS = 1.0


class WorkerService:
    """A worker: the supervisor of children that run tasks. Implements `wf_core.services.Service`."""

    def __init__(self, settings: Settings, forks: Forks | None = None) -> None:
        self.settings = settings
        self.id = new_worker_id()
        self.counters = Counters()
        self.grace = GRACE_SECONDS
        """Seconds that a cancelled or timed out attempt gets to end by itself."""
        self._forks = forks
        self._queues = _queues(settings)
        self._exit = contextlib.AsyncExitStack()

    @classmethod
    def early(cls) -> Callable[[Settings], Self]:
        """What makes a worker whose children are forked from this process, and share its pages.

        To be called while the process has one thread and no loop.
        """
        forks = Forks.early()
        return lambda settings: cls(settings, forks)

    async def start(self) -> None:
        """Connects, loads the tasks and begins to take messages. Raises SetupError or UnavailableError."""
        async with contextlib.AsyncExitStack() as stack:
            await self._connect(stack)
            await self._assemble(stack)
            self._exit = stack.pop_all()
        more: dict[str, Coroutine[Any, Any, None]] = {"runners": self.executors.runners.keep()}
        if self.executors.configure.paths:
            more["files"] = self._watch_files()
        self.supervisor.begin(more)
        log.info("worker takes tasks", worker=self.id, queues=self._queues, slots=self.settings.worker_slots)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains. Raises what ended a part of it."""
        parts = self.supervisor.running
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
            await self.supervisor.drain()
        finally:
            await cancel_all([*parts, stopping])
            await self._exit.aclose()
        for part in parts:
            if not part.cancelled() and (error := part.exception()) is not None:
                raise error

    async def _connect(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        await stack.enter_async_context(serve_metrics(settings, self.counters))
        self.redis = connect(settings)
        stack.push_async_callback(self.redis.aclose)
        await wait_for_redis(self.redis, settings)
        for warning in await check_redis(self.redis, allow_volatile=settings.redis_allow_volatile):
            log.warning(warning)
        self.scripts = Scripts(self.redis)
        self.clock = Clock()
        await self.clock.sync(self.redis)
        self.log = open_log(settings, self.redis)
        stack.push_async_callback(self.log.close)
        await self.log.start()

    async def _assemble(self, stack: contextlib.AsyncExitStack) -> None:
        installation = await ensure_installation(self.log, self.scripts, self.settings)
        self.executors = Executors(
            self._configure(),
            self.clock.now_ms,
            on_end=self._ended,
            on_free=self._freed,
            grace=self.grace,
            forks=self._forks or Forks(),
        )
        self.supervisor = Supervisor(
            self.settings,
            self.id,
            self.redis,
            self.scripts,
            self.log,
            self.clock,
            installation,
            self._queues,
            self.executors,
            self.counters,
        )
        stack.push_async_callback(self.supervisor.reports.close)
        stack.push_async_callback(self.executors.close)
        await self.supervisor.leases.ensure_topics()
        await self.executors.start()
        await self.supervisor.heartbeat.beat()

    def _configure(self) -> Configure:
        settings = self.settings
        return Configure(
            worker=self.id,
            slots=settings.worker_slots,
            allow=tuple(_split(settings.worker_allow)),
            paths=split_paths(settings.worker_task_paths),
            skip={},
            max_payload_bytes=settings.max_payload_bytes,
            log_level=settings.log_level,
            log_format=settings.log_format,
        )

    def _ended(self, attempt: Attempt, ended: Ended) -> None:
        self.supervisor.ended(attempt, ended)

    def _freed(self) -> None:
        self.supervisor.freed()

    async def _watch_files(self) -> None:
        """Fresh children whenever a task file changed, for ever."""
        paths = self.executors.configure.paths
        known = await asyncio.to_thread(_mtimes, paths)
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            found = await asyncio.to_thread(_mtimes, paths)
            if found != known:
                known = found
                log.info("task files changed; new attempts use them", paths=paths)
                self.executors.reload()


def _split(setting: str) -> list[str]:
    return [part.strip() for part in setting.split(",") if part.strip()]


def _queues(settings: Settings) -> list[str]:
    queues = list(dict.fromkeys(_split(settings.worker_queues)))
    wrong = [queue for queue in queues if not topics.QUEUE.fullmatch(queue)]
    if wrong or not queues:
        raise SetupError(
            f"APP_WORKER_QUEUES is {settings.worker_queues!r}; write one or more names of up to 60 of a-z 0-9 . _ -"
        )
    return queues


def _mtimes(paths: tuple[str, ...]) -> dict[str, int]:
    """When each file beside the tasks was changed, in nanoseconds."""
    found: dict[str, int] = {}
    for file in (file for path in paths for file in Path(path).glob("*.py")):
        with contextlib.suppress(OSError):
            found[str(file)] = file.stat().st_mtime_ns
    return found
