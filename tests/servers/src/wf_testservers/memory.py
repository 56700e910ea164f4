"""What the operations of APPLY do to Redis, on plain Python values: for tests of what is pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wf_core.store import ops as operations
from wf_core.store.codec import HistoryLine, history_lines

_METHODS = {"DEL": "delete"}


class Store:
    """Keys and their values: hashes and zsets are dicts, sets sets, strings bytearrays, histories lists of lines.

    Which lines of a history lie in one entry depends on the batches, so the entries are not kept.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}

    def apply(self, ops: Iterable[operations.Op]) -> None:
        """Runs what APPLY would run, through the same checks."""
        for command, key, *arguments in operations.split(ops):
            name = str(key)
            getattr(self, _METHODS.get(str(command)) or str(command).lower())(name, *arguments)
            if not self.keys.get(name):
                self.keys.pop(name, None)

    def get(self, key: str) -> Any:
        """The value at a key, {} when there is none."""
        return self.keys.get(key, {})

    def set(self, key: str, value: str) -> None:
        """Sets a string."""
        self.keys[key] = bytearray(value.encode())

    def delete(self, key: str) -> None:
        """Removes a key."""
        self.keys.pop(key, None)

    def hset(self, key: str, *pairs: Any) -> None:
        """Sets fields; text becomes bytes, as in Redis."""
        self.keys.setdefault(key, {}).update(
            {name: value.encode() if isinstance(value, str) else value for name, value in _pairs(pairs)}
        )

    def hdel(self, key: str, *names: str) -> None:
        """Removes fields."""
        held = self.keys.setdefault(key, {})
        for name in names:
            held.pop(name, None)

    def zrem(self, key: str, *members: str) -> None:
        """Removes members."""
        self.hdel(key, *members)

    def zadd(self, key: str, *pairs: str) -> None:
        """Sets scores, all of them whole numbers here."""
        self.keys.setdefault(key, {}).update({member: int(score) for score, member in _pairs(pairs)})

    def sadd(self, key: str, *members: str) -> None:
        """Adds members."""
        self.keys.setdefault(key, set()).update(members)

    def setrange(self, key: str, offset: str, data: bytes) -> None:
        """Overwrites a part of a string, which grows with zero bytes."""
        held = self.keys.setdefault(key, bytearray())
        held.extend(bytes(max(0, int(offset) + len(data) - len(held))))
        held[int(offset) : int(offset) + len(data)] = data

    def xadd(self, key: str, entry_id: str, *pairs: Any) -> None:
        """Appends the lines of an entry of a history. Raises ValueError when their places do not grow."""
        stream = self.keys.setdefault(key, [])
        for line in history_lines(entry_id.encode(), {name.encode(): value for name, value in _pairs(pairs)}):
            if stream and _place(line) <= _place(stream[-1]):
                raise ValueError(f"{line.seq} is not above {stream[-1].seq}")
            stream.append(line)


def _place(line: HistoryLine) -> tuple[int, ...]:
    return tuple(int(part) for part in line.seq.split("-"))


def _pairs(flat: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(*[iter(flat)] * 2, strict=True)
