"""The oracle: state(offset) = fold(log[:offset]). Folds a whole log again and compares it with Redis, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import Log, OffsetOutOfRangeError, TopicPartition
from wf_core.errors import WfError
from wf_core.plan import Plan
from wf_core.store.keys import PartitionKeys
from wf_core.store.ops import split
from wf_core.wire import Created, Document, Event
from wf_orchestrator.batches import Decoded, fold
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import Execution, PartitionState
from wf_orchestrator.plans import Plans

READ_SECONDS = 5.0
_OTHERS = ("m", "cl", "hb", "acc", "qa", "qs", "log")
"""Keys of a partition that are no fold of its log, or (the names of queues) depend on how it was cut into batches.

Outboxes are compared with what is in flight and was sent.
"""


class UnverifiableError(WfError):
    """The operator must act: the log does not reach back to the beginning, or someone still works on the partition."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where Redis is not what the log says. `None` stands for absence."""

    key: str
    field: str
    expected: Any
    found: Any


Value = bytes | dict[Any, Any] | set[bytes] | list[Any]


@dataclass(slots=True)
class Model:
    """Redis as far as APPLY writes it: keys with bytes, hashes, zsets (dicts of scores), sets and streams (lists)."""

    keys: dict[str, Value] = field(default_factory=dict)

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


class Refold:
    """A partition's log, folded from its beginning, as nobody but the log knows it."""

    def __init__(self, namespace: str, partition: int) -> None:
        self.keys = PartitionKeys.of(namespace, partition)
        self.state = PartitionState()
        self.model = Model()
        self.offset = 0
        self._executions: dict[str, Execution] = {}
        self._documents: dict[str, dict[int, bytes]] = {}
        self._parts: dict[str, int] = {}
        self._plans = Plans()

    async def add(self, records: Sequence[bytes]) -> None:
        """Folds the next records."""
        decoded: list[Decoded] = []
        for offset, record in enumerate(records, self.offset):
            try:
                event = wire.decode_event(record)
            except msgspec.MsgspecError:
                continue
            decoded.append(Decoded(offset, event, await self._plan(event)))
        self.model.apply(to_ops(self.keys, fold(self.state, self._executions, decoded)))
        self.offset += len(records)

    async def _plan(self, event: Event) -> Plan | None:
        if isinstance(event, Document):
            self._documents.setdefault(event.hash, {})[event.part] = event.data
            self._parts[event.hash] = event.parts
        elif isinstance(event, Created):
            parts = self._documents.get(event.document, {})
            if parts and len(parts) == self._parts[event.document]:
                return self._plans.get(event.document) or await self._plans.compile(event.document, parts)
        return None


async def verify(redis: Redis, log: Log, namespace: str, partition: int) -> list[Difference]:
    """Where the state of a partition differs from the fold of its log up to the stored offset. Empty: nowhere.

    The partition must be at rest. Raises UnverifiableError when it moved meanwhile, when the log was cut or replaced.
    """
    refold = Refold(namespace, partition)
    meta = await _hash(redis, refold.keys.meta)
    if int(meta.get(b"gen", 0)):
        raise UnverifiableError(f"partition {partition} outlived its log; what came before cannot be folded again")
    await _read(log, refold, TopicPartition(topics.events(namespace), partition), int(meta.get(b"off", 0)))
    found = await _found(redis, refold.keys)
    if (await _hash(redis, refold.keys.meta)).get(b"off") != meta.get(b"off"):
        raise UnverifiableError(f"partition {partition} is at work; verify it when it is at rest")
    differences = list(_compare(refold.model.keys, found, refold.keys))
    for name, value in (("seq", refold.state.seq), ("ts", refold.state.ts)):
        if int(meta.get(name.encode(), 0)) != value:
            differences.append(Difference(refold.keys.meta, name, value, meta.get(name.encode())))
    return differences


async def _read(log: Log, refold: Refold, source: TopicPartition, end: int) -> None:
    reader = log.reader()
    try:
        reader.assign({source: 0})
        while refold.offset < end:
            batches = await reader.read(READ_SECONDS)
            if not batches:
                raise UnverifiableError(f"the log ends at {refold.offset}, before the stored offset {end}")
            for batch in batches:
                await refold.add(batch.records[: end - batch.offset])
    except OffsetOutOfRangeError as error:
        raise UnverifiableError(f"the log of partition {source.partition} no longer reaches back: {error}") from error
    finally:
        await reader.close()


async def _found(redis: Redis, keys: PartitionKeys) -> dict[str, Value]:
    readers: dict[bytes, Any] = {
        b"hash": redis.hgetall,
        b"string": redis.get,
        b"set": redis.smembers,
        b"stream": redis.xrange,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
    }
    found: dict[str, Value] = {}
    escaped = keys.prefix.replace("{", "[{]").replace("}", "[}]")
    async for key in redis.scan_iter(match=f"{escaped}:*", count=1000):
        kind = await redis.type(key)
        value = await readers[cast("bytes", kind)](key)
        found[key.decode()] = dict(value) if kind == b"zset" else value
    return found


async def _hash(redis: Redis, key: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await cast("Any", redis.hgetall(key))
    return found


def _compare(expected: dict[str, Value], found: dict[str, Value], keys: PartitionKeys) -> Iterator[Difference]:
    skipped = len(keys.prefix) + 1
    for key in sorted(expected.keys() | found.keys()):
        kind = key[skipped:].partition(":")[0]
        if kind in _OTHERS or kind == "ob" or key.startswith(f"{keys.prefix}:log"):
            continue
        yield from _differences(key, expected.get(key), found.get(key))
    in_flight = set(cast("dict[bytes, bytes]", found.get(keys.in_flight, {})))
    sent = set(cast("dict[bytes, bytes]", found.get(keys.sent, {})))
    waiting = {
        token
        for key, value in found.items()
        if key.startswith(keys.outbox(""))
        for token in cast("dict[bytes, float]", value)
    }
    for token in sorted(in_flight - sent - waiting):
        yield Difference(keys.in_flight, token.decode(), "in an outbox, or sent", None)
    for token in sorted((waiting | sent) - in_flight):
        yield Difference(keys.outbox("*"), token.decode(), None, "sent or waiting, but not in flight")


def _differences(key: str, expected: Value | None, found: Value | None) -> Iterator[Difference]:
    if expected == found:
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                yield Difference(key, name.decode(), expected.get(name), found.get(name))
        return
    yield Difference(key, "", expected, found)


def _bytes(part: str | bytes) -> bytes:
    return part.encode() if isinstance(part, str) else part


def _pairs(arguments: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(arguments[::2], arguments[1::2], strict=True)
