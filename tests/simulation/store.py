"""What Redis holds, with an undo log: it forgets its last writes all together, or those of one slot only."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from redis.exceptions import ResponseError

KEPT_SECONDS = 2.0
"""How far back the undo log reaches; an append-only file that is written each second loses less."""


class Hash(dict[bytes, bytes]):
    """A hash."""


class Zset(dict[bytes, float]):
    """A sorted set: member → score."""


class Members(dict[bytes, None]):
    """A set, in order of insertion."""


Fields = Hash | Zset | Members
_Undo = tuple[str, bytes, Any, Any]
_ABSENT = ("absent",)


class Store:
    """Keys and values, with the commands that are used. Names and values are bytes, as on the wire."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.keys: dict[bytes, Any] = {}
        self._now = now
        self._expire: dict[bytes, float] = {}
        self._undo: list[_Undo] = []
        self._history: deque[tuple[float, list[_Undo]]] = deque()
        self._commands: dict[bytes, Callable[..., Any]] = {
            name[4:].upper().encode(): getattr(self, name) for name in dir(type(self)) if name.startswith("_do_")
        }

    def command(self, name: bytes, arguments: list[bytes]) -> Any:
        """Carries out one command. Raises ResponseError for one that is not known."""
        found = self._commands.get(name.upper())
        if found is None:
            raise ResponseError(f"the simulation knows no command {name.decode()}")
        return found(*arguments)

    # --- time travel

    def commit(self) -> None:
        """What was written since the last commit is one step."""
        if self._undo:
            self._history.append((self._now(), self._undo))
            self._undo = []
            oldest = self._now() - KEPT_SECONDS
            while self._history[0][0] < oldest:
                self._history.popleft()

    @property
    def steps(self) -> int:
        """Steps that can be forgotten."""
        oldest = self._now() - KEPT_SECONDS
        return sum(1 for when, _ in self._history if when >= oldest)

    def roll_back(self, steps: int, slot: Callable[[bytes], bool] | None = None) -> None:
        """Forgets the last steps; with `slot` only what they wrote to the keys of which it is true."""
        for _ in range(min(steps, len(self._history))):
            _, undo = self._history.pop()
            for kind, key, name, old in reversed(undo):
                if slot is None or slot(key):
                    self._revert(kind, key, name, old)
        self._history.clear()

    def _revert(self, kind: str, key: bytes, name: Any, old: Any) -> None:
        if kind == "key":
            if old is None:
                self.keys.pop(key, None)
            else:
                self.keys[key] = old
        elif kind == "entry":
            self.keys[key].pop()
            if not self.keys[key]:
                del self.keys[key]
        else:
            cls, value = old
            held = self.keys.get(key)
            if held is None:
                held = self.keys[key] = cls()
            if value == _ABSENT:
                held.pop(name, None)
                if not held:
                    del self.keys[key]
            else:
                held[name] = value

    def _put(self, cls: type[Any], key: bytes, name: bytes, value: Any) -> int:
        held = self.keys.get(key)
        if held is None:
            held = self.keys[key] = cls()
        elif held.__class__ is not cls:
            raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        old = held.get(name, _ABSENT)
        self._undo.append(("field", key, name, (cls, old)))
        held[name] = value
        return int(old == _ABSENT)

    def _drop(self, key: bytes, name: bytes) -> int:
        held = self.keys.get(key)
        if held is None or name not in held:
            return 0
        self._undo.append(("field", key, name, (held.__class__, held.pop(name))))
        if not held:
            del self.keys[key]
        return 1

    def _assign(self, key: bytes, value: Any) -> None:
        self._undo.append(("key", key, None, self.keys.get(key)))
        if value is None:
            self.keys.pop(key, None)
        else:
            self.keys[key] = value

    # --- strings and keys

    def _do_get(self, key: bytes) -> Any:
        if self._expire.get(key, self._now()) < self._now():
            self.keys.pop(key, None)
        return self.keys.get(key)

    def _do_mget(self, *keys: bytes) -> list[Any]:
        return [self._do_get(key) for key in keys]

    def _do_set(self, key: bytes, value: bytes, *options: bytes) -> bytes:
        self._assign(key, value)
        if options:
            self._expire[key] = self._now() + int(options[1]) / (1000 if options[0] == b"PX" else 1)
        return b"OK"

    def _do_setrange(self, key: bytes, start: bytes, data: bytes) -> int:
        at, old = int(start), self.keys.get(key, b"")
        old = old.ljust(at, b"\0")
        self._assign(key, old[:at] + data + old[at + len(data) :])
        return len(self.keys[key])

    def _do_del(self, *keys: bytes) -> int:
        found = [key for key in keys if key in self.keys]
        for key in found:
            self._assign(key, None)
        return len(found)

    _do_unlink = _do_del

    def _do_exists(self, *keys: bytes) -> int:
        return sum(1 for key in keys if key in self.keys)

    def _do_pexpire(self, key: bytes, _ms: bytes) -> int:
        """Runs are too short for what expires so late."""
        return int(key in self.keys)

    def _do_ping(self) -> bytes:
        return b"PONG"

    def _do_time(self) -> list[bytes]:
        seconds, rest = divmod(self._now(), 1)
        return [b"%d" % seconds, b"%d" % int(rest * 1e6)]

    # --- hashes

    def _do_hget(self, key: bytes, name: bytes) -> Any:
        return self.keys.get(key, {}).get(name)

    def _do_hmget(self, key: bytes, *names: bytes) -> list[Any]:
        held = self.keys.get(key, {})
        return [held.get(name) for name in names]

    def _do_hgetall(self, key: bytes) -> list[bytes]:
        return [part for pair in self.keys.get(key, {}).items() for part in pair]

    def _do_hkeys(self, key: bytes) -> list[bytes]:
        return list(self.keys.get(key, {}))

    def _do_hlen(self, key: bytes) -> int:
        return len(self.keys.get(key, ()))

    def _do_hexists(self, key: bytes, name: bytes) -> int:
        return int(name in self.keys.get(key, ()))

    def _do_hset(self, key: bytes, *pairs: bytes) -> int:
        return sum([self._put(Hash, key, name, value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)])

    def _do_hsetnx(self, key: bytes, name: bytes, value: bytes) -> int:
        return 0 if self._do_hexists(key, name) else self._put(Hash, key, name, value)

    def _do_hdel(self, key: bytes, *names: bytes) -> int:
        return sum([self._drop(key, name) for name in names])

    def _do_hincrby(self, key: bytes, name: bytes, by: bytes) -> int:
        value = int(self._do_hget(key, name) or 0) + int(by)
        self._put(Hash, key, name, b"%d" % value)
        return value

    # --- sets and sorted sets

    def _do_sadd(self, key: bytes, *members: bytes) -> int:
        return sum([self._put(Members, key, member, None) for member in members])

    def _do_srem(self, key: bytes, *members: bytes) -> int:
        return sum([self._drop(key, member) for member in members])

    def _do_smembers(self, key: bytes) -> list[bytes]:
        return list(self.keys.get(key, ()))

    def _do_zadd(self, key: bytes, *pairs: bytes) -> int:
        return sum([self._put(Zset, key, m, float(score)) for score, m in zip(pairs[::2], pairs[1::2], strict=True)])

    def _do_zrem(self, key: bytes, *members: bytes) -> int:
        return sum([self._drop(key, member) for member in members])

    def _do_zscore(self, key: bytes, member: bytes) -> Any:
        score = self.keys.get(key, {}).get(member)
        return None if score is None else _text(score)

    def _do_zcard(self, key: bytes) -> int:
        return len(self.keys.get(key, ()))

    def _do_zcount(self, key: bytes, low: bytes, high: bytes) -> int:
        return sum(1 for _ in self._between(key, low, high))

    def _do_zrange(self, key: bytes, start: bytes, stop: bytes, *options: bytes) -> list[bytes]:
        ordered = self._ordered(key)
        first, last = (n + len(ordered) if n < 0 else n for n in (int(start), int(stop)))
        return _scored(ordered[max(0, first) : last + 1], options)

    def _do_zrangebyscore(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> list[bytes]:
        found = list(self._between(key, low, high))
        if b"LIMIT" in options:
            start, most = (int(n) for n in options[options.index(b"LIMIT") + 1 :][:2])
            found = found[start : start + most] if most >= 0 else found[start:]
        return _scored(found, options)

    def _do_zremrangebyscore(self, key: bytes, low: bytes, high: bytes) -> int:
        return sum([self._drop(key, member) for _, member in list(self._between(key, low, high))])

    def _ordered(self, key: bytes) -> list[tuple[float, bytes]]:
        return sorted((score, member) for member, score in self.keys.get(key, {}).items())

    def _between(self, key: bytes, low: bytes, high: bytes) -> Iterator[tuple[float, bytes]]:
        ordered = self._ordered(key)
        scores = [score for score, _ in ordered]
        first = bisect_right(scores, float(low[1:])) if low[:1] == b"(" else bisect_left(scores, float(low))
        last = bisect_left(scores, float(high[1:])) if high[:1] == b"(" else bisect_right(scores, float(high))
        yield from ordered[first:last]

    # --- streams

    def _do_xadd(self, key: bytes, entry_id: bytes, *pairs: bytes) -> bytes:
        stream = self.keys.get(key)
        if stream and _place(entry_id) <= _place(stream[-1][0]):
            raise ResponseError("The ID specified in XADD is equal or smaller than the target stream top item")
        if stream is None:
            stream = self.keys[key] = []
        self._undo.append(("entry", key, None, None))
        stream.append((entry_id, dict(zip(pairs[::2], pairs[1::2], strict=True))))
        return entry_id

    def _do_xrevrange(self, key: bytes, _high: bytes, _low: bytes, *options: bytes) -> list[Any]:
        most = int(options[1]) if options else None
        return [
            [at, [p for pair in fields.items() for p in pair]] for at, fields in self.keys.get(key, [])[::-1][:most]
        ]

    def _do_xlen(self, key: bytes) -> int:
        return len(self.keys.get(key, ()))


def _place(entry_id: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split(b"-"))


def _text(score: float) -> bytes:
    return b"%d" % int(score) if score.is_integer() else repr(score).encode()


def _scored(found: list[tuple[float, bytes]], options: tuple[bytes, ...]) -> list[bytes]:
    if b"WITHSCORES" in options:
        return [part for score, member in found for part in (member, _text(score))]
    return [member for _, member in found]
