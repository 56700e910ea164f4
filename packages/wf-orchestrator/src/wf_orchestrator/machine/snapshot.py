"""The state to Redis and back. The shell only carries bytes.

    to_ops(keys, outcomes, generation) -> list[Op]      for APPLY: the outcomes of one batch, in log order, coalesced

`restore` is the inverse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wf_core.states import ExecutionStatus, NodeStatus
from wf_core.store.codec import MOST_LINES, PackedLine, pack_history, pack_node, pack_timer
from wf_orchestrator.machine import fields
from wf_orchestrator.machine.concurrency import pack
from wf_orchestrator.machine.effects import (
    Accepted,
    Begun,
    ClearTimer,
    Deleted,
    Dispatch,
    Effect,
    Ended,
    KeepDocument,
    KeepKey,
    Outcome,
    SetTimer,
)
from wf_orchestrator.machine.state import Cell, Execution

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from wf_core.store.keys import PartitionKeys
    from wf_core.store.ops import Op
    from wf_orchestrator.machine.concurrency import Key

_GENERATION = 2**44
PLACES = 2**48
"""Places in an outbox that belong to one priority."""
_HIGHEST_PRIORITY = 9
_NODE_BYTES = len(pack_node(NodeStatus.PENDING, 0, 0, 0))
_FEW = 16
_LONG = " " * 65
"""With a value so long a hash is a table at once; a list of many fields Redis would search from the first one on."""
_LIVE = (NodeStatus.QUEUED, NodeStatus.RETRYING, NodeStatus.WAITING)


@dataclass(slots=True)
class _Changes:
    """What a batch changes about one execution."""

    execution: Execution
    before: ExecutionStatus | None = None
    after: ExecutionStatus | None = None
    fields: dict[str, bytes | None] = field(default_factory=dict)
    cells: dict[int, Cell] = field(default_factory=dict)
    results: dict[str, bytes | None] = field(default_factory=dict)
    scopes: dict[str, bytes | None] = field(default_factory=dict)
    history: list[PackedLine] = field(default_factory=list)
    recounted: bool = False


@dataclass(slots=True)
class _Batch:
    """What a batch changes in all."""

    executions: dict[str, _Changes] = field(default_factory=dict)
    dispatched: dict[str, Dispatch] = field(default_factory=dict)
    begun: dict[str, Begun] = field(default_factory=dict)
    queues: dict[str, None] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    """Token → queue, of attempts that were in flight before this batch."""
    timers: dict[str, int | None] = field(default_factory=dict)
    accepted: dict[str, None] = field(default_factory=dict)
    documents: dict[str, dict[str, bytes]] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    """Concurrency keys."""
    deleted: list[tuple[Deleted, ExecutionStatus]] = field(default_factory=list)
    """With the status that Redis knows from before this batch."""


def to_ops(keys: PartitionKeys, outcomes: Iterable[Outcome], generation: int = 0) -> list[Op]:
    """The operations that write `outcomes`. `generation`, the lease's, makes ids of the history grow across logs."""
    batch = _Batch()
    for outcome in outcomes:
        _gather(batch, outcome, generation)
        for effect in outcome.effects:
            _gather_effect(batch, effect)
    ops = list(_deletion_ops(keys, batch.deleted))
    for changes in batch.executions.values():
        ops += _execution_ops(keys, changes)
    ops += _flight_ops(keys, batch)
    ops += _timer_ops(keys, batch.timers)
    if batch.accepted:
        ops.append(("HDEL", keys.accepted, *batch.accepted))
    ops += [("HSET", keys.document(name), *_flat(parts.items())) for name, parts in batch.documents.items()]
    ops += _hash_ops(keys.concurrency, {name: pack(key) or None for name, key in batch.keys.items()})
    return ops


def _gather(batch: _Batch, outcome: Outcome, generation: int) -> None:
    x = outcome.execution
    written = outcome.moved or outcome.changed_fields or outcome.history or outcome.results or outcome.scopes
    if x is None or not (written or outcome.recounted):
        return
    changes = batch.executions.get(x.id)
    if changes is None:
        changes = batch.executions[x.id] = _Changes(x)
    if outcome.moved:
        if changes.after is None:
            changes.before = outcome.moved[0]
        changes.after = outcome.moved[1]
    changes.fields.update(outcome.changed_fields)
    changes.cells.update(outcome.changed_nodes)
    changes.results.update(outcome.results)
    changes.scopes.update(outcome.scopes)
    changes.recounted |= outcome.recounted
    position = generation * _GENERATION + outcome.offset
    changes.history += [(position, n, entry) for n, entry in enumerate(outcome.history, 1)]


def _gather_effect(batch: _Batch, effect: Effect) -> None:
    match effect:
        case Dispatch() | Begun() | Ended():
            _gather_flight(batch, effect)
        case SetTimer():
            batch.timers[pack_timer(effect.kind, effect.token)] = effect.due_ms
        case ClearTimer():
            batch.timers[pack_timer(effect.kind, effect.token)] = None
        case Accepted():
            batch.accepted[effect.field] = None
        case KeepDocument():
            parts = batch.documents.setdefault(effect.hash, {})
            parts[str(effect.part)] = effect.data
            parts["parts"] = b"%d" % effect.parts
        case KeepKey():
            batch.keys[effect.name] = effect.key
        case Deleted():
            changes = batch.executions.pop(effect.execution, None)
            batch.deleted.append((effect, (changes and changes.before) or effect.status))


def _gather_flight(batch: _Batch, effect: Dispatch | Begun | Ended) -> None:
    match effect:
        case Dispatch():
            batch.dispatched[effect.token] = effect
            batch.queues[effect.queue] = None
        case Begun():
            batch.begun[effect.token] = effect
        case Ended():
            came = batch.dispatched.pop(effect.token, None) or batch.begun.pop(effect.token, None)
            if came is None:
                batch.ended[effect.token] = effect.queue


def _deletion_ops(keys: PartitionKeys, deleted: Sequence[tuple[Deleted, ExecutionStatus]]) -> Iterator[Op]:
    """Everything that `_execution_ops` ever wrote about them. An id may be created anew later in the same batch."""
    for gone, stored_status in deleted:
        for key_of in (keys.execution, keys.nodes, keys.results, keys.scopes, keys.history):
            yield ("DEL", key_of(gone.execution))
        labels = (f"l:{label}={value}" for label, value in sorted(gone.labels.items()))
        for words in ("all", "ended", f"n:{gone.name}", f"s:{stored_status}", *labels):
            yield ("ZREM", keys.index(words), gone.execution)
    if deleted:
        yield ("SET", keys.expired, str(deleted[-1][0].expired))


def _execution_ops(keys: PartitionKeys, changes: _Changes) -> Iterator[Op]:
    x = changes.execution
    if changes.recounted:
        changes.fields["counts"] = fields.counts(x)
    yield from _hash_ops(keys.execution(x.id), changes.fields)
    for start, data in _runs(changes.cells):
        yield ("SETRANGE", keys.nodes(x.id), str(start * _NODE_BYTES), data)
    yield from _hash_ops(keys.results(x.id), changes.results)
    yield from _hash_ops(keys.scopes(x.id), changes.scopes)
    yield from _index_ops(keys, changes)
    for start in range(0, len(changes.history), MOST_LINES):
        lines = changes.history[start : start + MOST_LINES]
        position, number, _ = lines[-1]
        yield ("XADD", keys.history(x.id), f"{position}-{number}", "lines", pack_history(lines))


def _hash_ops(key: str, changed: Mapping[str, bytes | None]) -> Iterator[Op]:
    """Fields that are written, and those (None) that go."""
    if written := [(name, value) for name, value in changed.items() if value is not None]:
        yield ("HSET", key, *_flat(written))
    if gone := [name for name, value in changed.items() if value is None]:
        yield ("HDEL", key, *gone)


def _index_ops(keys: PartitionKeys, changes: _Changes) -> Iterator[Op]:
    x, before, after = changes.execution, changes.before, changes.after
    if after is None:
        return
    if after.is_terminal:
        yield ("ZADD", keys.index("ended"), str(x.ended_at), x.id)
    elif before is not None and before.is_terminal:
        yield ("ZREM", keys.index("ended"), x.id)
    if before is after:
        return
    created = str(x.created_at)
    if before is None:
        yield ("ZADD", keys.index("all"), created, x.id)
        yield ("ZADD", keys.index(f"n:{x.name}"), created, x.id)
        for label, value in sorted(x.labels.items()):
            yield ("ZADD", keys.index(f"l:{label}={value}"), created, x.id)
    else:
        yield ("ZREM", keys.index(f"s:{before}"), x.id)
    yield ("ZADD", keys.index(f"s:{after}"), created, x.id)


def _flight_ops(keys: PartitionKeys, batch: _Batch) -> Iterator[Op]:
    if batch.ended:
        for key in (keys.in_flight, keys.sent, keys.messages, keys.claims):
            yield ("HDEL", key, *batch.ended)
        for queue in dict.fromkeys(batch.ended.values()):
            yield ("ZREM", keys.outbox(queue), *(token for token, its in batch.ended.items() if its == queue))
    if batch.queues:
        yield ("SADD", keys.queues, *batch.queues)
    if batch.begun:  # claimed as CLAIM does, by the very record that brings them into flight
        begun = batch.begun.values()
        yield ("HSET", keys.in_flight, *_flat((b.token, str(b.ts)) for b in begun))
        yield ("HSET", keys.claims, *_flat((b.token, f"{b.worker}|{b.ts}") for b in begun))
    entries = list(batch.dispatched.values())
    if not entries:
        return
    many = [("", _LONG)] if len(entries) > _FEW else []
    yield ("HSET", keys.in_flight, *_flat([*many, *((e.token, str(e.message.queued_at)) for e in entries)]))
    if many:
        yield ("HDEL", keys.in_flight, "")
    yield ("HSET", keys.messages, *_flat((e.token, e.packed) for e in entries))
    for queue in dict.fromkeys(e.queue for e in entries):
        yield ("ZADD", keys.outbox(queue), *_flat((outbox_score(e), e.token) for e in entries if e.queue == queue))


def outbox_score(entry: Dispatch) -> str:
    """Where an attempt stands in its outbox: higher priority first, then the order of dispatch."""
    return str((_HIGHEST_PRIORITY - entry.priority) * PLACES + entry.seq)


def _timer_ops(keys: PartitionKeys, timers: Mapping[str, int | None]) -> Iterator[Op]:
    if cleared := [member for member, due in timers.items() if due is None]:
        yield ("ZREM", keys.timers, *cleared)
    if due := [(str(due), member) for member, due in timers.items() if due is not None]:
        yield ("ZADD", keys.timers, *_flat(due))


def _flat(pairs: Iterable[tuple[str, str | bytes]]) -> Iterator[str | bytes]:
    for first, second in pairs:
        yield first
        yield second


def _runs(cells: Mapping[int, Cell]) -> Iterator[tuple[int, bytes]]:
    """Changed cells as `(first index, bytes)`, neighbours together."""
    start, last, data = -1, -2, bytearray()
    for index in sorted(cells):
        if index != last + 1:
            if data:
                yield start, bytes(data)
            start, data = index, bytearray()
        data += pack_node(*cells[index])
        last = index
    if data:
        yield start, bytes(data)
