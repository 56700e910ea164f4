"""A model of Redis in memory, as far as APPLY writes it: for a log that is folded again, and for tests of workflows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from wf_core.plan import Plan
from wf_core.store.keys import PartitionKeys
from wf_core.store.ops import split
from wf_orchestrator.machine.restore import fill, keep_results, result_fields, skeleton
from wf_orchestrator.machine.state import Execution

Value = bytes | dict[Any, Any] | set[bytes] | list[Any]


@dataclass(slots=True)
class Model:
    """Redis as far as APPLY writes it: keys with bytes, hashes, zsets (dicts of scores), sets and streams (lists)."""

    keys: dict[str, Value] = field(default_factory=dict)

    def named(self, key: str) -> dict[str, bytes]:
        """A hash, with its fields as text; {} for none."""
        return named(self.keys.get(key, {}))

    def load(self, keys: PartitionKeys, execution_id: str, plan: Plan | None, *, whole: bool = False) -> Execution:
        """An execution that was stored; `whole`: one that has ended, with all of its results, as `retry` needs it."""
        fields, scopes, results = (self.named(key(execution_id)) for key in (keys.execution, keys.scopes, keys.results))
        cells: Any = self.keys.get(keys.nodes(execution_id), b"")
        x = skeleton(execution_id, plan, fields, cells, scopes)
        if whole:
            return keep_results(x, results)
        return fill(x, {name: results[name] for name in result_fields(x) if name in results})

    def apply(self, ops: Sequence[Sequence[str | bytes | int]]) -> None:
        """Does what APPLY does."""
        for op in split(ops):
            command, key, *arguments = (_bytes(part) for part in op)
            getattr(self, f"_{command.decode().lower()}")(key.decode(), arguments)

    def _hset(self, key: str, arguments: list[bytes]) -> None:
        self._get(key, dict).update(_pairs(arguments))

    def _hdel(self, key: str, arguments: list[bytes]) -> None:
        self._remove(key, dict, arguments)

    def _zadd(self, key: str, arguments: list[bytes]) -> None:
        self._get(key, dict).update((member, float(score)) for score, member in _pairs(arguments))

    def _zrem(self, key: str, arguments: list[bytes]) -> None:
        self._remove(key, dict, arguments)

    def _sadd(self, key: str, arguments: list[bytes]) -> None:
        self._get(key, set).update(arguments)

    def _srem(self, key: str, arguments: list[bytes]) -> None:
        self._get(key, set).difference_update(arguments)
        self._drop_empty(key)

    def _set(self, key: str, arguments: list[bytes]) -> None:
        self.keys[key] = arguments[0]

    def _setrange(self, key: str, arguments: list[bytes]) -> None:
        start, data = int(arguments[0]), arguments[1]
        old = self._get(key, bytes).ljust(start, b"\0")
        self.keys[key] = old[:start] + data + old[start + len(data) :]

    def _del(self, key: str, _arguments: list[bytes]) -> None:
        self.keys.pop(key, None)

    def _xadd(self, key: str, arguments: list[bytes]) -> None:
        self._get(key, list).append((arguments[0], dict(_pairs(arguments[1:]))))

    def _get(self, key: str, kind: type[Any]) -> Any:
        return self.keys.setdefault(key, kind())

    def _remove(self, key: str, kind: type[Any], members: list[bytes]) -> None:
        held = self._get(key, kind)
        for member in members:
            held.pop(member, None)
        self._drop_empty(key)

    def _drop_empty(self, key: str) -> None:
        if not self.keys[key]:
            del self.keys[key]


def named(fields: Any) -> dict[str, bytes]:
    """The fields of a hash, or of an entry of a stream, by their names as text."""
    return {name.decode(): value for name, value in fields.items()}


def _bytes(part: str | bytes) -> bytes:
    return part.encode() if isinstance(part, str) else part


def _pairs(arguments: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(arguments[::2], arguments[1::2], strict=True)
