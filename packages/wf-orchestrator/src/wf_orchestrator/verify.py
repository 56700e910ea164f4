"""The oracle: state(offset) = fold(log[:offset]). Folds a whole log again and compares it with Redis, byte for byte.

Redis is read in small groups of keys, each together with the offset that it stood at, and the fold is brought to that
very offset before they are compared: so a partition may be at work meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from wf_core.broker import topics
from wf_core.broker.protocol import Log, LogReader, OffsetOutOfRangeError, TopicPartition
from wf_core.errors import WfError
from wf_core.store.codec import AttemptRecord, HistoryLine, history_lines, unpack_attempts
from wf_core.store.keys import PartitionKeys
from wf_core.wire import NewerRecordError
from wf_orchestrator.redis_model import Value
from wf_orchestrator.refold import Refold

READ_SECONDS = 5.0
_AT_ONCE = 50
"""Keys that are read in one step, which holds Redis for so long."""
_OTHERS = ("m", "cl", "pg", "hb", "acc", "qa", "qs", "ob", "log")
"""Keys of a partition that are no fold of its log, or (the names of queues) depend on how it was cut into batches.

Outboxes are compared with what is in flight and was sent.
"""
# READ  KEYS {p}:m, key...  {{off, gen, seq, ts}, {type, value}...}
_READ = """
local read = {
  hash = {'HGETALL'}, string = {'GET'}, set = {'SMEMBERS'}, zset = {'ZRANGE', '0', '-1', 'WITHSCORES'},
  stream = {'XRANGE', '-', '+'},
}
local m = redis.call('HMGET', KEYS[1], 'off', 'gen', 'seq', 'ts')
local found = {{m[1] or '0', m[2] or '0', m[3] or '0', m[4] or '0'}}
for i = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  local command = read[kind]
  local value = command and redis.call(command[1], KEYS[i], unpack(command, 2)) or ''
  found[i] = {kind, value}
end
return found
"""


class UnverifiableError(WfError):
    """The operator must act: the log does not reach back to the beginning, or Redis or the log lost something."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where Redis is not what the log says. `None` stands for absence."""

    key: str
    field: str
    expected: Any
    found: Any


@dataclass(frozen=True, slots=True)
class Verified:
    """A partition that was compared, up to `offset` (exclusive). No differences: Redis is what the log says."""

    partition: int
    offset: int
    executions: int
    differences: list[Difference]


class _Seen(NamedTuple):
    """Keys of Redis as they stood at one offset."""

    offset: int
    generation: int
    seq: int
    ts: int
    values: dict[str, Value]


async def verify(redis: Redis, log: Log, namespace: str, partition: int) -> list[Difference]:
    """Where the state of a partition differs from the fold of its log. Empty: nowhere. Raises as `examine`."""
    return (await examine(redis, log, namespace, partition)).differences


async def examine(redis: Redis, log: Log, namespace: str, partition: int) -> Verified:
    """Compares a partition, which may be at work, with the fold of its log.

    Raises UnverifiableError when the log was cut or replaced, when it or Redis lost something meanwhile, and when a
    newer release wrote a record.
    """
    source = TopicPartition(topics.events(namespace), partition)
    if begin := await log.begin(source):
        raise UnverifiableError(f"the log of partition {partition} begins at offset {begin}: retention cut it")
    reader = log.reader()
    try:
        reader.assign({source: 0})
        return await _Examination(redis, reader, Refold(namespace, partition), partition).run()
    except OffsetOutOfRangeError as error:
        raise UnverifiableError(f"the log of partition {partition} was cut while it was read: {error}") from error
    except NewerRecordError as error:
        raise UnverifiableError(
            f"partition {partition} holds a record that is newer than this release: {error}"
        ) from error
    finally:
        await reader.close()


class _Examination:
    """One comparison of one partition."""

    def __init__(self, redis: Redis, reader: LogReader, refold: Refold, partition: int) -> None:
        self._redis = redis
        self._reader = reader
        self._refold = refold
        self._partition = partition
        self._ahead: list[bytes] = []
        """Records that were read and are not to be folded yet."""

    async def run(self) -> Verified:
        keys = self._refold.keys
        await self._look([])
        differences: list[Difference] = []
        passed: set[str] = set()
        async for group in self._groups():
            passed.update(group)
            differences += await self._compare(group)
        # What the log made and the scan did not pass: it is missing, or came after the scan.
        missed = sorted(key for key in self._refold.model.keys.keys() - passed if _is_folded(keys, key))
        for start in range(0, len(missed), _AT_ONCE):
            differences += await self._compare(missed[start : start + _AT_ONCE])
        differences += await self._compare_flight()
        executions = sum(key.startswith(keys.execution("")) for key in self._refold.model.keys)
        return Verified(self._partition, self._refold.offset, executions, differences)

    async def _groups(self) -> AsyncIterator[list[str]]:
        keys = self._refold.keys
        escaped = keys.prefix.replace("{", "[{]").replace("}", "[}]")
        group: list[str] = []
        async for found in self._redis.scan_iter(match=f"{escaped}:*", count=1000):
            key = cast("bytes", found).decode()
            if _is_folded(keys, key):
                group.append(key)
            if len(group) == _AT_ONCE:
                yield group
                group = []
        if group:
            yield group

    async def _compare(self, group: Sequence[str]) -> list[Difference]:
        seen = await self._look(group)
        return [
            difference
            for key in group
            for difference in _differences(key, self._refold.model.keys.get(key), seen.values.get(key))
        ]

    async def _compare_flight(self) -> list[Difference]:
        """In flight is what waits in an outbox, was sent, or was begun, and nothing else; and the fold's counters."""
        keys, state = self._refold.keys, self._refold.state
        queues: set[bytes] = set()
        while True:
            outboxes = [keys.outbox(queue.decode()) for queue in sorted(queues)]
            seen = await self._look([keys.queues, keys.in_flight, keys.sent, *outboxes])
            there = _members(seen.values.get(keys.queues))
            if there <= queues:
                break
            queues |= there  # and look again: an outbox must be read in the same step as what is in flight
        in_flight, sent, *waiting = (_members(seen.values.get(key)) for key in (keys.in_flight, keys.sent, *outboxes))
        waits, begun = set().union(*waiting), _members(self._refold.model.keys.get(keys.claims))
        found = [
            Difference(keys.in_flight, token.decode(), "in an outbox, or sent", None)
            for token in sorted(in_flight - sent - waits - begun)
        ]
        found += [
            Difference(keys.outbox("*"), token.decode(), None, "sent or waiting, but not in flight")
            for token in sorted((waits | sent) - in_flight)
        ]
        for name, expected, stored in (("seq", state.seq, seen.seq), ("ts", state.ts, seen.ts)):
            if expected != stored:
                found.append(Difference(keys.meta, name, expected, stored))
        return found

    async def _look(self, group: Sequence[str]) -> _Seen:
        """Reads keys in one step, and folds up to the offset that they stood at."""
        touched = [self._refold.keys.meta, *group]
        numbers, *values = await cast("Any", self._redis.eval(_READ, len(touched), *touched))
        offset, generation, seq, ts = map(int, numbers)
        seen = _Seen(offset, generation, seq, ts, _values(group, values))
        if seen.generation:
            raise UnverifiableError(
                f"partition {self._partition} outlived its log; what came before cannot be folded again"
            )
        if seen.offset < self._refold.offset:
            raise UnverifiableError(f"Redis went back in partition {self._partition} while it was read")
        await self._fold_to(seen.offset)
        return seen

    async def _fold_to(self, end: int) -> None:
        refold = self._refold
        while refold.offset < end:
            if not self._ahead:
                batches = await self._reader.read(READ_SECONDS)
                self._ahead += [record for batch in batches for record in batch.records]
                if not self._ahead:
                    raise UnverifiableError(
                        f"the log of partition {self._partition} ends at {refold.offset}, before offset {end}"
                    )
            taken = self._ahead[: end - refold.offset]
            await refold.add(taken)
            del self._ahead[: len(taken)]


def _is_folded(keys: PartitionKeys, key: str) -> bool:
    """Whether a key of the partition is a fold of its log."""
    kind = key[len(keys.prefix) + 1 :].partition(":")[0]
    return kind not in _OTHERS


def _values(group: Iterable[str], values: Sequence[Any]) -> dict[str, Value]:
    """Replies of READ, which a script gives as flat lists, in the shapes of the model. Absent keys are left out."""
    found: dict[str, Value] = {}
    for key, (kind, value) in zip(group, values, strict=True):
        match kind:
            case b"string":
                found[key] = value
            case b"set":
                found[key] = set(value)
            case b"hash":
                found[key] = _paired(value)
            case b"zset":
                found[key] = {member: float(score) for member, score in _paired(value).items()}
            case b"stream":
                found[key] = [(entry, _paired(fields)) for entry, fields in value]
            case b"none":
                pass
            case _:
                found[key] = cast("bytes", kind)  # nothing that APPLY writes: it differs from whatever is expected
    return found


def _paired(flat: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _members(value: Value | None) -> set[bytes]:
    return set(cast("Iterable[bytes]", value or ()))


def _differences(key: str, expected: Value | None, found: Value | None) -> Iterator[Difference]:
    if isinstance(expected, list) and isinstance(found, list):
        expected, found = lines_of(expected), lines_of(found)
    if expected == found:
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name) and not _kept_less(name, expected.get(name), found.get(name)):
                yield Difference(key, name.decode(), expected.get(name), found.get(name))
        return
    yield Difference(key, "", expected, found)


def lines_of(stream: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[HistoryLine]:
    """A history. Which of its lines lie in one entry depends on how the log was cut into batches."""
    return [line for entry, fields in stream for line in history_lines(entry, fields)]


_LATER_KEPT = ("worker_package", "host", "log_tail")


def _kept_less(name: bytes, expected: Any, found: Any) -> bool:
    """Whether an older release folded these attempts, which kept less of them than this one does."""
    if not name.startswith(b"a:") or expected is None or found is None:
        return False
    stored = unpack_attempts(found)
    whole = unpack_attempts(expected)
    return len(stored) == len(whole) and all(map(_is_part_of, stored, whole))


def _is_part_of(stored: AttemptRecord, whole: AttemptRecord) -> bool:
    missing = {one: getattr(stored, one) for one in _LATER_KEPT if not getattr(stored, one)}
    error = whole.error
    if error is not None and stored.error is not None and not stored.error.causes:
        error = msgspec.structs.replace(error, causes=())
    return stored == msgspec.structs.replace(whole, error=error, **missing)
