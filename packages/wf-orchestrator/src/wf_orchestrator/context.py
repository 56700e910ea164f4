"""What every step of the shell is given: servers, clocks, settings. Made once in `service.py`; nothing is global."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from wf_core import ids
from wf_core.broker import topics
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.errors import UnavailableError
from wf_core.metrics import Counters
from wf_core.plugins.observers import Observers
from wf_core.settings import Settings
from wf_core.store.client import redis_errors
from wf_core.store.clock import Clock
from wf_core.store.scripts import Scripts
from wf_core.wire import Event, Lost, encode
from wf_orchestrator.credits import Credits
from wf_orchestrator.executions import Executions
from wf_orchestrator.plans import Plans
from wf_orchestrator.policy_book import PolicyBook
from wf_orchestrator.queries import Queries
from wf_orchestrator.timers import Alarm

log = structlog.get_logger(__name__)

T = TypeVar("T")

LONGEST_PAUSE = 2.0
"""Seconds between two tries of a step while a server is away."""

TRANSIENT: tuple[type[Exception], ...] = (*redis_errors, UnavailableError)
"""A server is away: the step is repeated later. Anything else is a mistake of ours: in a partition's step it stops that
partition for a while, elsewhere it ends the service."""


class PartitionLostError(Exception):
    """This owner must let go of the partition and lease it again (or leave it): what it remembers may be wrong."""


class OutrunError(PartitionLostError):
    """Folding took longer than the lease and another owner came: it is to be left alone, or both would go on so."""


class Health:
    """Says once that a server went away and once that it is back; steps report how they fared."""

    def __init__(self, counters: Counters) -> None:
        self._away: set[str] = set()
        self._counters = counters

    @property
    def away(self) -> frozenset[str]:
        """The servers (`redis`, `log`) that do not answer."""
        return frozenset(self._away)

    def failed(self, error: Exception) -> None:
        """A step could not reach a server."""
        server = "log" if isinstance(error, UnavailableError) else "redis"
        self._counters.inc("unavailable_total", server=server)
        if server not in self._away:
            self._away.add(server)
            log.warning("server is away, trying again", server=server, error=str(error) or type(error).__name__)

    def answered(self, server: str) -> None:
        """A step reached the server."""
        if server in self._away:
            self._away.discard(server)
            log.info("server is back", server=server)


@dataclass(slots=True)
class Context:
    """Everything from outside that a step may use."""

    id: str
    """Of this orchestrator; new per process."""
    settings: Settings
    log: Log
    scripts: Scripts
    queries: Queries
    clock: Clock
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    counters: Counters
    health: Health
    observers: Observers
    policies: PolicyBook
    plans: Plans
    partitions: int
    task_partitions: int
    incarnation: str
    """Of the log, as last read from it."""
    executions: Executions = field(default_factory=Executions)
    serial: Iterator[int] = field(default_factory=itertools.count)
    """Numbers that this process uses once: for nonces and batch ids."""
    credits: Credits = field(init=False)
    alarm: Alarm = field(init=False)

    def __post_init__(self) -> None:
        self.credits = Credits(self.namespace, self.monotonic)
        self.alarm = Alarm(self.clock.now_ms)

    @property
    def namespace(self) -> str:
        """Prefix of keys and topics."""
        return self.settings.namespace

    @property
    def lease_ms(self) -> int:
        """How long a lease lasts without renewal."""
        return round(self.settings.lease_seconds * 1000)

    def events(self, partition: int) -> TopicPartition:
        """The events of a partition."""
        return TopicPartition(topics.events(self.namespace), partition)

    def lost(self, token: str, reason: str, worker: str = "", silent_ms: int = 0) -> Lost:
        """The record that an attempt was lost, as of now."""
        execution, node, attempt = ids.split_token(token)
        return Lost(
            execution=execution,
            ts=self.clock.now_ms(),
            source=self.id,
            node=node,
            attempt=attempt,
            reason=reason,
            worker=worker,
            silent_ms=silent_ms,
        )

    async def append(self, partition: int, events: list[Event]) -> None:
        """Appends events of the shell's own to a partition. Raises LogUnavailableError: append them again later."""
        await self.log.append(self.events(partition), [encode(event) for event in events])


async def every(
    context: Context,
    seconds: float | Callable[[], float],
    step: Callable[[], Awaitable[None]],
    *,
    longest: float = LONGEST_PAUSE,
    wake: asyncio.Event | None = None,
) -> None:
    """Repeats `step` for ever, `seconds` apart; while a server is away, soon again and then less and less often.

    Soon, whatever `seconds` is: a lease that was not renewed must not run out because of one lost connection.
    `seconds` may be asked for after each step. `wake` ends the pause after a step that did not fail.
    """
    pause = 0.0
    while True:
        if wake is not None:
            wake.clear()
        try:
            await step()
            pause = 0.0
        except TRANSIENT as error:
            context.health.failed(error)
            pause = min(longest, max(0.1, 2 * pause))
        after = seconds() if callable(seconds) else seconds
        if wake is None or pause:
            await context.sleep(pause or after)
        else:
            timer = asyncio.get_running_loop().call_later(after, wake.set)
            await wake.wait()
            timer.cancel()


async def for_each(items: Iterable[T], step: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Does `step` for every item, `at_once` at a time. The first error is raised when all have ended."""
    gate = asyncio.Semaphore(at_once)

    async def one(item: T) -> None:
        async with gate:
            await step(item)

    results = await asyncio.gather(*map(one, items), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
