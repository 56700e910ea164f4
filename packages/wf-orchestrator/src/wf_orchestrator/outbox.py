"""The outbox in memory: task messages that were decided and written, and are still to be sent.

Redis holds all of it; here is a window of the first ones.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable

from wf_orchestrator.queries import OutboxEntry

WINDOW = 5_000
"""Entries of a partition that are kept in memory; the rest waits in Redis."""


class Outbox:
    """The window: pending entries in order of their score, and what a re-scan found that nobody here knows of."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.partial = False
        """Redis holds entries that did not fit into the window."""
        self._pending: dict[str, OutboxEntry] = {}
        self._heap: list[OutboxEntry] = []
        self._suspects: set[str] = set()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waits(self) -> bool:
        """Whether something is to be sent, here or beyond the window."""
        return bool(self._pending) or self.partial

    def add(self, entries: Iterable[OutboxEntry]) -> None:
        """Entries to send, unless they are here already."""
        for entry in entries:
            if entry.token in self._pending:
                continue
            if len(self._pending) >= WINDOW:
                self.partial = True
                break
            self._pending[entry.token] = entry
            heapq.heappush(self._heap, entry)
        self.wake.set()

    def discard(self, token: str) -> None:
        """The attempt is over, or its message was sent or refused."""
        self._pending.pop(token, None)

    def holds(self, entry: OutboxEntry) -> bool:
        """Whether the entry is still to be sent."""
        return self._pending.get(entry.token) is entry

    def first(self, most: int) -> list[OutboxEntry]:
        """The entries to send next; they stay pending until `discard`. Those not discarded come again with `again`."""
        entries: list[OutboxEntry] = []
        while self._heap and len(entries) < most:
            entry = heapq.heappop(self._heap)
            if self._pending.get(entry.token) is entry:
                entries.append(entry)
        return entries

    def again(self, entries: Iterable[OutboxEntry]) -> None:
        """Entries that could not be sent: they are next."""
        for entry in entries:
            if self._pending.get(entry.token) is entry:
                heapq.heappush(self._heap, entry)

    def resurrected(self, found: Iterable[OutboxEntry]) -> list[OutboxEntry]:
        """Of the entries that a re-scan found those that were unknown twice: Redis forgot that they were sent."""
        unknown = {entry.token: entry for entry in found if entry.token not in self._pending}
        twice = [entry for token, entry in unknown.items() if token in self._suspects]
        self._suspects = unknown.keys() - {entry.token for entry in twice}
        return twice
