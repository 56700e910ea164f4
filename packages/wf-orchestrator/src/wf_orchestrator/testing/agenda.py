"""What is to happen, by virtual time: timers, ends of attempts, what a test planned."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

Action = Callable[[], None]


class _Entry(NamedTuple):
    due_ms: int
    number: int
    key: str


class Agenda:
    """A heap of actions with names. Of two that are due at one time the one that was set first comes first."""

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._current: dict[str, tuple[int, Action, bool]] = {}
        self._count = 0

    def set(self, key: str, due_ms: int, action: Action, *, idle: bool = False) -> None:
        """Plans `action` in place of what has this key. `idle`: it alone is no reason to let time pass."""
        self._count += 1
        self._current[key] = (self._count, action, idle)
        heapq.heappush(self._heap, _Entry(due_ms, self._count, key))

    def clear(self, key: str) -> None:
        """Forgets what has this key, if anything."""
        self._current.pop(key, None)

    def clear_all(self, prefix: str) -> None:
        """Forgets everything whose key begins so."""
        for key in [key for key in self._current if key.startswith(prefix)]:
            del self._current[key]

    def is_idle(self) -> bool:
        """Whether nothing is planned that time should pass for."""
        return all(idle for _, _, idle in self._current.values())

    def next_due_ms(self) -> int | None:
        """When the next action is due, in virtual Unix ms; None when there is none."""
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0].due_ms if self._heap else None

    def pop(self) -> Action:
        """Takes the next action off. Raises IndexError when there is none."""
        if self.next_due_ms() is None:
            raise IndexError("nothing is planned")
        entry = heapq.heappop(self._heap)
        return self._current.pop(entry.key)[1]

    def _is_current(self, entry: _Entry) -> bool:
        current = self._current.get(entry.key)
        return current is not None and current[0] == entry.number
