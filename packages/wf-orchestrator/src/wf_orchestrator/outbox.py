"""The outbox in memory: task messages that were decided and written, and are still to be sent. The ready queue.

Redis holds all of it; here is a window of each queue's first ones, in which they stand in order. How many may be sent
now, `credits` says.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping

from wf_orchestrator.queries import OutboxEntry
from wf_orchestrator.ready import Ranked, ReadyQueue

WINDOW = 5_000
"""Entries of a queue that are read from Redis at once; twice as many are kept in memory, the rest waits in Redis."""


class Window:
    """The entries of one queue."""

    def __init__(self) -> None:
        self.ready = ReadyQueue()
        self.leaving: dict[str, float] = {}
        """Tokens that are being sent, with the places that they went from."""
        self.horizon = math.inf
        """All that Redis holds up to this score is here; beyond it there may be more in Redis."""

    @property
    def is_short(self) -> bool:
        """Whether more should be read from Redis."""
        return self.horizon < math.inf and len(self.ready) < max(1, WINDOW // 4)


class Outbox:
    """The windows of a partition's queues, and what a re-scan found that nobody here knows of."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.windows: dict[str, Window] = {}
        self.granted: dict[str, int] = {}
        """How many of each queue may be sent now."""
        self._pending: dict[str, OutboxEntry] = {}
        self._ranked: dict[str, Ranked] = {}
        self._suspects: set[str] = set()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def is_short(self) -> bool:
        """Whether entries that follow should be read from Redis."""
        return any(window.is_short for window in self.windows.values())

    @property
    def may_send(self) -> bool:
        """Whether something was granted that has not been taken."""
        return any(self.granted.values())

    def add(self, entries: Iterable[OutboxEntry], ranked: Mapping[str, Ranked] | None = None) -> None:
        """Entries to send, unless they are here already, or lie beyond the horizon: those wait in Redis.

        `ranked` says by token what a scheduling policy makes of them: such entries are taken in wherever they lie.
        """
        for entry in entries:
            token = entry.token
            if token in self._pending:
                continue
            window = self.windows.get(entry.queue)
            if window is None:
                window = self.windows[entry.queue] = Window()
            rank = ranked.get(token) if ranked else None
            if rank is not None:
                self._ranked[token] = rank
            elif entry.score > window.horizon:
                continue
            self._pending[token] = entry
            window.ready.put(token, entry.score, rank)
            if len(window.ready) > 2 * WINDOW:
                self._shrink(entry.queue, window)

    def read(self, entries: Iterable[OutboxEntry], horizons: Mapping[str, float]) -> None:
        """What Redis holds: the first entries of each queue, up to its horizon where it holds more than these."""
        for queue in horizons:
            self.windows.setdefault(queue, Window())
        for queue, window in self.windows.items():
            window.horizon = horizons.get(queue, math.inf)
        self.add(entries)

    def discard(self, token: str) -> bool:
        """The attempt is over, or its message was sent or refused. Whether it was on its way."""
        entry = self._pending.pop(token, None)
        if entry is None:
            return False
        self._ranked.pop(token, None)
        window = self.windows[entry.queue]
        window.ready.drop(token)
        return window.leaving.pop(token, None) is not None

    def holds(self, entry: OutboxEntry) -> bool:
        """Whether the entry is still to be sent."""
        return self._pending.get(entry.token) is entry

    def oldest(self, queue: str) -> int:
        """When the token with the next place of a queue was dispatched, in Unix ms; 0 when nothing waits."""
        token = self.windows[queue].ready.first()
        return 0 if token is None else self._pending[token].queued_at

    def first(self, most: int) -> list[OutboxEntry]:
        """The granted entries, `most` of them; they stay pending until `discard`. Those that were not sent: `again`."""
        entries: list[OutboxEntry] = []
        for queue, granted in self.granted.items():
            window = self.windows[queue]
            for _ in range(min(granted, most - len(entries))):
                taken = window.ready.take()
                if taken is None:
                    break
                token, window.leaving[token] = taken
                entries.append(self._pending[token])
                self.granted[queue] -= 1
        return entries

    def again(self, entries: Iterable[OutboxEntry]) -> None:
        """Entries that could not be sent: they have their places again."""
        for entry in entries:
            if self.holds(entry):
                window = self.windows[entry.queue]
                place = window.leaving.pop(entry.token)
                window.ready.put(entry.token, place, self._ranked.get(entry.token))

    def known(self) -> dict[str, tuple[float, int]]:
        """For each queue its horizon, and how many of its entries up to there are here."""
        counts = dict.fromkeys(self.windows, 0)
        for entry in self._pending.values():
            counts[entry.queue] += entry.score <= self.windows[entry.queue].horizon
        return {queue: (self.windows[queue].horizon, count) for queue, count in counts.items()}

    def resurrected(self, found: Iterable[OutboxEntry]) -> list[OutboxEntry]:
        """Of the entries that a re-scan found those that were unknown twice: Redis forgot that they were sent."""
        unknown = {entry.token: entry for entry in found if self._should_know(entry)}
        twice = [entry for token, entry in unknown.items() if token in self._suspects]
        self._suspects = unknown.keys() - {entry.token for entry in twice}
        return twice

    def _should_know(self, entry: OutboxEntry) -> bool:
        window = self.windows.get(entry.queue)
        return entry.token not in self._pending and (window is None or entry.score <= window.horizon)

    def _shrink(self, queue: str, window: Window) -> None:
        """Leaves the entries with the highest scores to Redis."""
        waiting = [e for e in self._pending.values() if e.queue == queue and e.token not in window.leaving]
        waiting.sort()
        for entry in waiting[WINDOW:]:
            self.discard(entry.token)
        window.horizon = min(window.horizon, waiting[WINDOW - 1].score)
