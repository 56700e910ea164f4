"""The parts of a worker, wired: messages are claimed and run, results are reported, and at the end it drains."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import partial
from importlib import metadata
from typing import Any

import structlog
from redis.asyncio import Redis

from wf_core import wire
from wf_core.broker.protocol import Log
from wf_core.metrics import Counters
from wf_core.settings import Settings
from wf_core.states import AttemptStatus
from wf_core.store.client import redis_errors
from wf_core.store.clock import Clock
from wf_core.store.keys import InstallationKeys
from wf_core.store.scripts import Installation, Scripts
from wf_worker.attempts import Attempt, AttemptRunner, Ended
from wf_worker.continuing import Begun, Continuing
from wf_worker.dead_letters import DeadLetters
from wf_worker.heartbeat import Heartbeat, hear_cancels
from wf_worker.intake import Intake
from wf_worker.lanes import Lanes
from wf_worker.leases import Leases
from wf_worker.registration import Registration
from wf_worker.reports import Reports
from wf_worker.tails import tail_of

log = structlog.get_logger(__name__)

MOST_REPORTS = 10_000
"""Results that may wait for the fold; beyond it nothing new is claimed."""
_LAST_CLAIM_SECONDS = 2.0
_CANCEL_SECONDS = 0.05
_TAKING = frozenset({"leases", "read", "claim", "commit", "files"})


class Supervisor:
    """A worker without its children: `executors` run the attempts and call `ended` and `freed`."""

    def __init__(  # noqa: PLR0913 - the world that it works in
        self,
        settings: Settings,
        worker_id: str,
        redis: Redis,
        scripts: Scripts,
        broker: Log,
        clock: Clock,
        installation: Installation,
        queues: Sequence[str],
        executors: AttemptRunner,
        counters: Counters,
    ) -> None:
        self.settings = settings
        self.id = worker_id
        self.running: list[asyncio.Task[None]] = []
        """The parts that were begun; each runs until it is cancelled, or fails."""
        self._redis = redis
        self._clock = clock
        self._counters = counters
        self._keys = InstallationKeys(settings.namespace)
        self._package = f"wf-worker {metadata.version('wf-worker')}"
        self._host = platform.node()
        lanes = Lanes()
        self.reports = Reports(broker, settings.namespace, lambda: self.leases.incarnation, counters)
        self.executors = self._go_on(executors, lanes)
        silent_ms = round(settings.death_seconds * 1000)
        self.registration = Registration(
            redis, self._keys, clock, worker_id, queues, self.executors, silent_ms, waiting=lambda: lanes.waiting
        )
        self.leases = Leases(
            broker,
            scripts,
            settings,
            self.registration,
            lanes,
            queues,
            installation.task_partitions,
            installation.incarnation,
            free=lambda: self.executors.free,
            on_lanes=self._lanes_changed,
            doubt=self._doubt,
        )
        self.heartbeat = Heartbeat(
            redis,
            scripts,
            settings,
            clock,
            self.registration,
            self.executors,
            self.reports,
            counters,
            on_restart=self.leases.start_over,
        )
        self.intake = self._take_in(scripts, broker, lanes, installation.partitions)

    def _go_on(self, executors: AttemptRunner, lanes: Lanes) -> Continuing:
        return Continuing(
            executors,
            self.reports,
            lanes,
            self._clock.now_ms,
            may_begin=lambda heard: self.heartbeat.may_begin(heard) and len(self.reports) < MOST_REPORTS,
            leaving=lambda: self.registration.leaving,
            start=self._start_attempt,
            on_end=self.ended,
            on_free=self.freed,
        )

    def _take_in(self, scripts: Scripts, broker: Log, lanes: Lanes, partitions: int) -> Intake:
        return Intake(
            broker,
            scripts,
            self.settings,
            self.id,
            partitions,
            lanes,
            self.leases,
            DeadLetters(broker, self.settings.namespace, self.id, self._clock, self._counters),
            self._counters,
            free=lambda: self.executors.free,
            may_claim=self._may_claim,
            may_commit=self.heartbeat.may_commit,
            doubt=self._doubt,
            server=lambda: self.heartbeat.server,
            start=self._start_attempt,
        )

    def begin(self, more: Mapping[str, Coroutine[Any, Any, None]]) -> None:
        """Starts every part, and `more` beside them."""
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "heartbeat": self.heartbeat.run(),
            "leases": self.leases.run(),
            "read": self.intake.read(),
            "claim": self.intake.claim(),
            "commit": self.intake.commit(),
            "cancels": hear_cancels(self._redis, self._keys, self.heartbeat.cancelled, self.executors.stop_tails),
            **more,
        }
        self.running = [_task(name, part) for name, part in parts.items()]

    async def drain(self) -> None:
        """Gives back the partitions, lets tasks finish while it beats, hands back the rest, sends every result."""
        self.registration.leaving = True
        await self.intake.stop_claiming(_LAST_CLAIM_SECONDS)
        await cancel_all([part for part in self.running if part.get_name() in _TAKING])
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
        await cancel_all([part for part in self.running if part.get_name() == "heartbeat"])
        with contextlib.suppress(*redis_errors):
            await self.registration.leave()

    # --- an attempt's life

    def ended(self, attempt: Attempt, ended: Ended) -> None:
        """An attempt ended: its record is appended, unless nobody wants it any more."""
        message, now = attempt.message, self._clock.now_ms()
        status = str(ended.status)
        self._counters.inc("worker_attempts_ended_total", task=message.task, status=status)
        if ended.status is AttemptStatus.COMPLETED:  # all but nobody wants to read that, at thousands a second
            log.debug("attempt ended", **_ids(message), status=status, ms=now - attempt.started_at)
        else:
            reason = f"{ended.error.type}: {ended.error.message[:500]}" if ended.error else ended.detail or ended.reason
            log.warning("attempt ended", **_ids(message), status=status, ms=now - attempt.started_at, reason=reason)
        begun = self._next_after(attempt, ended)
        if begun is not None:
            self._counters.inc("worker_attempts_continued_total")
            record = self._record(attempt, ended, now, begun.begin)
            self.reports.add(attempt.token, message.execution, record, partial(self.executors.settle, begun))
        elif ended.status is not AttemptStatus.CANCELLED:
            self.reports.add(attempt.token, message.execution, self._record(attempt, ended, now))

    def _next_after(self, attempt: Attempt, ended: Ended) -> Begun | None:
        try:
            return self.executors.next_after(attempt, ended)
        except Exception:  # a mistake of ours, which must not cost the result, nor the child that still runs others
            log.exception("a tail is not gone on with", **_ids(attempt.message))
            return None

    def freed(self) -> None:
        """A slot came free."""
        self.intake.wake()
        self.leases.wake()

    def _lanes_changed(self) -> None:
        self.intake.wake()

    def _doubt(self) -> None:
        self.heartbeat.doubt()

    def _may_claim(self) -> bool:
        return self.heartbeat.may_claim() and len(self.reports) < MOST_REPORTS

    def _start_attempt(self, token: str, message: wire.TaskMessage, heard: float) -> None:
        if self.executors.runs(token) or self.reports.holds(token):
            return  # Redis forgot that it is ours, and has just learnt it again
        log.debug("attempt begins", **_ids(message))
        self._counters.inc("worker_attempts_started_total", task=message.task)
        self.executors.run(token, message, heard)

    def _record(
        self, attempt: Attempt, ended: Ended, now: int, begin: wire.Begin | None = None
    ) -> wire.Result | wire.Lost:
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
                detail=ended.detail,
                started_at=attempt.started_at,
                package=attempt.package,
                worker_package=self._package,
                host=self._host,
                log_tail=tail_of(attempt.tail),
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
            worker_package=self._package,
            host=self._host,
            log_tail="" if ended.status is AttemptStatus.COMPLETED else tail_of(attempt.tail),
            begin=begin,
            v=wire.BEGINS if begin is not None else 1,
        )


async def cancel_all(parts: Collection[asyncio.Task[Any]]) -> None:
    """Cancels, again and again: on Python 3.11 `asyncio.wait_for`, in redis-py, may swallow a cancel and go on."""
    left = set(parts)
    while left:
        for part in left:
            part.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_SECONDS)


def _task(name: str, part: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(part, name=name)


def _ids(message: wire.TaskMessage) -> dict[str, Any]:
    return {
        "execution": message.execution,
        "node": message.node,
        "attempt": message.attempt,
        "task": message.task,
    }
