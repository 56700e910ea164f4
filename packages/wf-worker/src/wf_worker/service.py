"""Wires a worker together: connects, starts what runs, watches it, drains."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any

import structlog

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.open import ensure_installation, open_log
from wf_core.errors import SetupError
from wf_core.metrics import Counters
from wf_core.settings import Settings
from wf_core.states import AttemptStatus
from wf_core.store.client import check_redis, connect, redis_errors, wait_for_redis
from wf_core.store.clock import Clock
from wf_core.store.keys import InstallationKeys
from wf_core.store.scripts import Scripts
from wf_worker.attempts import Attempt, Ended
from wf_worker.dead_letters import DeadLetters
from wf_worker.executors import GRACE_SECONDS, Executors
from wf_worker.frames import Configure
from wf_worker.heartbeat import Heartbeat, hear_cancels
from wf_worker.intake import Intake
from wf_worker.lanes import Lanes
from wf_worker.leases import Leases
from wf_worker.loading import split_paths
from wf_worker.registration import Registration, new_worker_id
from wf_worker.reports import Reports

log = structlog.get_logger(__name__)

MOST_REPORTS = 10_000
"""Results that may wait for the fold; beyond it nothing new is claimed."""
_WATCH_SECONDS = 1.0
_LAST_CLAIM_SECONDS = 2.0
_CANCEL_SECONDS = 0.05


class WorkerService:
    """A worker: the supervisor of children that run tasks. Implements `wf_core.services.Service`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = new_worker_id()
        self.counters = Counters()
        self.grace = GRACE_SECONDS
        """Seconds that a cancelled or timed out attempt gets to end by itself."""
        self._queues = _queues(settings)
        self._running: list[asyncio.Task[None]] = []
        self._exit = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Connects, loads the tasks and begins to take messages. Raises SetupError or UnavailableError."""
        async with contextlib.AsyncExitStack() as stack:
            await self._connect(stack)
            await self._assemble(stack)
            self._exit = stack.pop_all()
        self._begin()
        log.info("worker takes tasks", worker=self.id, queues=self._queues, slots=self.settings.worker_slots)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains. Raises what ended a part of it."""
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *self._running], return_when=asyncio.FIRST_COMPLETED)
            await self._drain()
        finally:
            await self._stop([*self._running, stopping])
            await self._exit.aclose()
        for part in self._running:
            if not part.cancelled() and (error := part.exception()) is not None:
                raise error

    async def _connect(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.settings
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
        settings, keys = self.settings, InstallationKeys(self.settings.namespace)
        installation = await ensure_installation(self.log, self.scripts, settings)
        self.executors = Executors(self._configure(), self.clock.now_ms, self._ended, self._freed, self.grace)
        self.registration = Registration(self.redis, keys, self.clock, self.id, self._queues, self.executors)
        lanes = self._lanes = Lanes()
        self.leases = Leases(
            self.log,
            self.scripts,
            settings,
            self.registration,
            lanes,
            self._queues,
            installation.task_partitions,
            installation.incarnation,
            free=lambda: self.executors.free,
            on_lanes=self._lanes_changed,
        )
        self.reports = Reports(self.log, settings.namespace, lambda: self.leases.incarnation, self.counters)
        stack.push_async_callback(self.reports.close)
        self.heartbeat = Heartbeat(
            self.redis,
            self.scripts,
            settings,
            self.clock,
            self.registration,
            self.executors,
            self.reports,
            self.counters,
        )
        self.intake = Intake(
            self.log,
            self.scripts,
            settings,
            self.id,
            lanes,
            self.leases,
            DeadLetters(self.log, settings.namespace, self.id, self.clock, self.counters),
            self.counters,
            free=lambda: self.executors.free,
            may_claim=self._may_claim,
            start=self._start_attempt,
        )
        stack.push_async_callback(self.executors.close)
        await self.leases.ensure_topics()
        await self.executors.start()
        await self.heartbeat.beat()

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

    def _begin(self) -> None:
        keys = InstallationKeys(self.settings.namespace)
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "heartbeat": self.heartbeat.run(),
            "leases": self.leases.run(),
            "read": self.intake.read(),
            "claim": self.intake.claim(),
            "commit": self.intake.commit(),
            "cancels": hear_cancels(self.redis, keys, self.heartbeat.cancelled),
            "runners": self.executors.runners.keep(),
        }
        if self.executors.configure.paths:
            parts["files"] = self._watch_files()
        self._running = [_task(name, part) for name, part in parts.items()]

    # --- an attempt's life

    def _may_claim(self) -> bool:
        return self.heartbeat.may_claim() and len(self.reports) < MOST_REPORTS

    def _start_attempt(self, token: str, message: wire.TaskMessage) -> None:
        log.debug("attempt begins", **_ids(message))
        self.counters.inc("worker_attempts_started_total", task=message.task)
        self.executors.run(token, message)

    def _ended(self, attempt: Attempt, ended: Ended) -> None:
        message, now = attempt.message, self.clock.now_ms()
        status = str(ended.status)
        self.counters.inc("worker_attempts_ended_total", task=message.task, status=status)
        say = log.info if ended.status is AttemptStatus.COMPLETED else log.warning
        reason = f"{ended.error.type}: {ended.error.message[:500]}" if ended.error else ended.reason
        say("attempt ended", **_ids(message), status=status, ms=now - attempt.started_at, reason=reason)
        if ended.status is not AttemptStatus.CANCELLED:
            self.reports.add(attempt.token, message.execution, self._record(attempt, ended, now))

    def _record(self, attempt: Attempt, ended: Ended, now: int) -> wire.Result | wire.Lost:
        message = attempt.message
        if ended.status is AttemptStatus.LOST:
            return wire.Lost(
                execution=message.execution,
                ts=now,
                source=self.id,
                node=message.node,
                attempt=message.attempt,
                reason=ended.reason,
                worker=self.id,
            )
        return wire.Result(
            execution=message.execution,
            ts=now,
            source=self.id,
            node=message.node,
            attempt=message.attempt,
            worker=self.id,
            started_at=attempt.started_at,
            ended_at=now,
            status=str(ended.status),
            output=ended.output,
            error=ended.error,
            package=attempt.package,
        )

    def _lanes_changed(self) -> None:
        self.intake.wake()

    def _freed(self) -> None:
        self.intake.wake()
        self.leases.wake()

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

    # --- the end

    async def _drain(self) -> None:
        """Gives back the partitions, lets tasks finish while it beats, hands back the rest, sends every result."""
        self.registration.leaving = True
        await self.intake.stop_claiming(_LAST_CLAIM_SECONDS)
        await self._stop([part for part in self._running if part.get_name() in _TAKING])
        with contextlib.suppress(*redis_errors):
            await self.intake.commit_all()
            await self.leases.release_all()
        log.info("draining", worker=self.id, running=len(self.executors.running()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.worker_grace):
                await self.executors.idle()
        self.executors.hand_back()
        await self.executors.idle()
        if not await self.reports.flush(self.settings.connect_seconds):
            log.error("the log did not take every result; they will count as lost", results=len(self.reports))
        await self._stop([part for part in self._running if part.get_name() == "heartbeat"])
        with contextlib.suppress(*redis_errors):
            await self.registration.leave()

    @staticmethod
    async def _stop(parts: Collection[asyncio.Task[Any]]) -> None:
        """Cancels, again and again: on Python 3.11 `asyncio.wait_for`, in redis-py, may swallow a cancel and go on."""
        left = set(parts)
        while left:
            for part in left:
                part.cancel()
            _, left = await asyncio.wait(left, timeout=_CANCEL_SECONDS)


_TAKING = frozenset({"leases", "read", "claim", "commit", "files"})


def _task(name: str, part: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(part, name=name)


def _ids(message: wire.TaskMessage) -> dict[str, Any]:
    return {
        "execution": message.execution,
        "node": message.node,
        "attempt": message.attempt,
        "task": message.task,
    }


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
