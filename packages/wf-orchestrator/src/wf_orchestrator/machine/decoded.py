"""Values that were decoded for expressions, kept for those that name them next. A cache: no part of the state."""

from __future__ import annotations

from typing import Any, NamedTuple

MOST_BYTES = 16 * 2**20
"""Of JSON whose values one generation holds, and then one value of any size."""


class Value(NamedTuple):
    """A value, and how many bytes of JSON it was."""

    value: Any
    size: int


class Decoded:
    """Two generations: when the younger one is full, what nobody asked for in its time is forgotten.

    So a list of items that is larger than all else stays while items of it are asked for.
    """

    __slots__ = ("_bytes", "_old", "_young")

    def __init__(self) -> None:
        self._young: dict[Any, Value] = {}
        self._old: dict[Any, Value] = {}
        self._bytes = 0

    def find(self, key: Any) -> Value | None:
        """What is kept under a key."""
        found = self._young.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self._young[key] = found
            self._bytes += found.size
        return found

    def put(self, key: Any, value: Value) -> None:
        """Keeps a value."""
        if self._bytes > MOST_BYTES:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._young[key] = value
        self._bytes += value.size

    def pop(self, key: Any, default: Any = None) -> Any:
        """Forgets a value, which has changed or is of no use any more."""
        older = self._old.pop(key, None)
        younger = self._young.pop(key, None)
        if younger is not None:
            self._bytes -= younger.size
        return younger or older or default

    def clear(self) -> None:
        """Forgets everything."""
        self._young.clear()
        self._old.clear()
        self._bytes = 0
