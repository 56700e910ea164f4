"""The timers in memory: a window of the zset."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

WINDOW_MS = 60_000
"""How far ahead timers are kept in memory; the zset is read again twice as often."""
WINDOW = 10_000
AGAIN_MS = 2_000
"""A timer that fired and is still there fires again: its record may be lost."""
LONGEST_MS = 60_000
"""Longest pause before a timer fires again that cannot lead to anything for the time being."""
STEP_MS = 50
"""How often timers are looked at, at the least."""


class Timers:
    """The window: members `kind|token` with their due time in Unix ms."""

    def __init__(self) -> None:
        self.horizon = 0
        """Timers that fall due until then are here, unless the window is full."""
        self.partial = False
        """More timers than fit are due before the horizon: read again once these have fired."""
        self._due: dict[str, int] = {}
        self._next: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._pauses: dict[str, int] = {}
        """Of timers that were put off: the pause before they fire again, in ms."""
        self._fired = (0, 0)
        """How many fired within which STEP_MS."""

    def __len__(self) -> int:
        return len(self._due)

    def set(self, member: str, due_ms: int) -> None:
        """A timer, unless it lies beyond the window or is known."""
        if self._due.get(member) == due_ms:
            return
        if due_ms > self.horizon:
            self.clear(member)
            return
        if len(self._due) >= 2 * WINDOW:
            self.partial = True
            return
        self._pauses.pop(member, None)
        self._due[member] = due_ms
        self._schedule(member, due_ms)

    def clear(self, member: str) -> None:
        """The timer is not wanted any more."""
        self._due.pop(member, None)
        self._next.pop(member, None)
        self._pauses.pop(member, None)

    def due(self, now_ms: int, most: int) -> list[str]:
        """Members that are due, oldest first, no more than `most` within STEP_MS however often they are asked for.

        Each is due again 2 s later unless it is cleared, or put off.
        """
        found: list[str] = []
        step = now_ms // STEP_MS
        most -= self._fired[1] if self._fired[0] == step else 0
        while self._heap and self._heap[0][0] <= now_ms and len(found) < most:
            when, member = heapq.heappop(self._heap)
            if self._next.get(member) == when:
                found.append(member)
                self._schedule(member, now_ms + AGAIN_MS)
        self._fired = (step, len(found) + (self._fired[1] if self._fired[0] == step else 0))
        return found

    def put_off(self, member: str, now_ms: int) -> None:
        """It fired in vain, and would again: each time it waits twice as long, a minute at most."""
        if member in self._due:
            self._pauses[member] = min(LONGEST_MS, 2 * self._pauses.get(member, AGAIN_MS))
            self._schedule(member, now_ms + self._pauses[member])

    def due_of(self, member: str) -> int | None:
        """When a timer first fell, or falls, due, in Unix ms; None when it is not here."""
        return self._due.get(member)

    def beginning(self, prefix: str) -> list[tuple[int, str]]:
        """The timers whose member begins with `prefix`, with their due times. Looks at each timer."""
        return [(due, member) for member, due in self._due.items() if member.startswith(prefix)]

    def waits(self, now_ms: int) -> bool:
        """Whether something is due."""
        return bool(self._heap) and self._heap[0][0] <= now_ms

    def replace(self, found: list[tuple[str, int]], horizon: int) -> None:
        """What the zset holds until `horizon`: unknown timers are added, those that left it are dropped."""
        self.horizon = horizon
        self.partial = len(found) >= WINDOW
        if not self.partial:
            stored = {member for member, _ in found}
            for member in self._due.keys() - stored:
                self.clear(member)
        for member, due_ms in found:
            self.set(member, due_ms)

    def _schedule(self, member: str, when: int) -> None:
        self._next[member] = when
        heapq.heappush(self._heap, (when, member))


class Alarm:
    """Rings when a timer falls due that was just set, so that nobody has to look all the time. `now_ms` is a clock."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.rings = asyncio.Event()
        self._now_ms = now_ms

    def set(self, due_ms: float) -> None:
        """A timer falls due then, in Unix ms. What lies further ahead than STEP_MS is found without it."""
        left = due_ms - self._now_ms()
        if left <= 0:
            self.rings.set()
        elif left < STEP_MS:
            asyncio.get_running_loop().call_later((left + 1) / 1000, self.rings.set)
