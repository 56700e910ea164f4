"""Gathers what `why` must know about an execution, in a bounded number of round trips, and has it said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from wf_core import ids
from wf_core.broker import topics
from wf_core.states import ExecutionStatus, NodeStatus
from wf_core.store.codec import HistoryLine, history_lines, pack_timer
from wf_core.store.keys import PartitionKeys
from wf_core.store.reads import snapshot as snapshots
from wf_core.store.reads.layout import Place
from wf_core.store.reads.nodes import read_records
from wf_core.store.reads.snapshot import Snapshot
from wf_core.store.reads.why.known import Happened, Hold, Known, QueueState
from wf_core.store.reads.why.reasons import Why, explain
from wf_core.store.reads.why.survey import MOVING, Survey
from wf_core.store.reads.workers import read_capacities

MOST_EVENTS = 1000
"""Newest lines of the history that are looked at."""
_FIELDS = ("a", "i", "ch")
_TIMERS = ("retry", "wait", "approval", "pass", "timeout")
_WAITS_FOR_KEY = frozenset({"asked", "waiting"})
_data = msgspec.json.Decoder(dict[str, Any])


class Surroundings(NamedTuple):
    """The installation around an execution. `dead_after_ms`: silence after which a worker counts as dead."""

    namespace: str
    partitions: int
    now_ms: int
    dead_after_ms: int


async def read_why(redis: Redis, around: Surroundings, execution_id: str, node: str | None = None) -> Why | None:
    """Why an execution, or the node at a path, is where it is; None when there is no such execution.

    Raises UnknownNodeError. Compiles the document: it takes as long as that.
    """
    snapshot = await snapshots.take(redis, around.namespace, execution_id)
    if snapshot is None:
        return None
    layout = await snapshots.layout_of(redis, around.namespace, snapshot)
    asked = None if node is None else layout.place(node)
    survey = Survey(snapshot, layout, await _plan(redis, around, snapshot))
    nodes = survey.walk([asked] if asked else await _start(redis, around, survey))
    return explain(await _known(redis, around, survey, nodes), nodes, asked)


async def _plan(redis: Redis, around: Surroundings, snapshot: Snapshot) -> Any:
    from wf_core.plan import load_plan

    canonical = await snapshots.canonical_of(redis, around.namespace, snapshot)
    return None if canonical is None else await asyncio.to_thread(load_plan, canonical, snapshot.execution.document)


async def _start(redis: Redis, around: Surroundings, survey: Survey) -> list[Place]:
    """The nodes that explain an execution: those that have begun and not ended, or those that failed.

    The one where it failed comes first, with what explains it. Beside them stand the compensations that have not ended,
    or that failed: what they were to undo is not undone.
    """
    execution, layout = survey.snapshot.execution, survey.layout
    if not execution.status.is_terminal:
        return [*survey.live(), *survey.undoing(MOVING)]
    undone = survey.undoing({NodeStatus.FAILED})
    if execution.status is ExecutionStatus.COMPLETED:
        return undone
    began = execution.error.node if execution.error else None
    place = layout.find(began) if began and execution.status is ExecutionStatus.FAILED else None
    first = [] if place is None else survey.walk([layout.top(place.order[0])])
    return [*first, *undone, *await _uncaught(redis, around, survey)]


async def _uncaught(redis: Redis, around: Surroundings, survey: Survey) -> list[Place]:
    """The nodes of the top level that failed, without those that were caught: these failures count as none."""
    failed = survey.failed()
    catching = [place for place in failed if survey.catches(place)]
    records = await read_records(redis, around.namespace, survey.snapshot.execution_id, catching)
    caught = {path for path, record in records.items() if survey.has_caught(path, record.attempts)}
    return [place for place in failed if place.path not in caught]


async def _known(redis: Redis, around: Surroundings, survey: Survey, nodes: Sequence[Place]) -> Known:
    snapshot = survey.snapshot
    keys = PartitionKeys.of(around.namespace, ids.partition_of(snapshot.execution_id))
    fields = [f"{kind}:{place.path}" for place in nodes for kind in _FIELDS]
    timers = [
        pack_timer(kind, ids.token(snapshot.execution_id, place.path, snapshot.cell(place)[1]))
        for place in nodes
        for kind in _TIMERS
    ]
    async with redis.pipeline(transaction=False) as pipe:
        pipe.xrevrange(keys.history(snapshot.execution_id), count=MOST_EVENTS)
        pipe.hget(keys.execution(snapshot.execution_id), "hold")
        if nodes:
            pipe.hmget(keys.results(snapshot.execution_id), fields)
            pipe.zmscore(keys.timers, timers)
        events, hold, *rest = await pipe.execute()
    values, dues = rest or ([], [])
    found = {name: value for name, value in zip(fields, values, strict=True) if value is not None}
    queued = {place.table.queues[place.local] for place in nodes if survey.status(place) is NodeStatus.QUEUED}
    return Known(
        survey=survey,
        now_ms=around.now_ms,
        fields=found,
        timers={name: int(due) for name, due in zip(timers, dues, strict=True) if due is not None},
        events=[_happened(line) for line in islice(_newest_first(events), MOST_EVENTS)],
        queues=await _queues(redis, around, queued) if queued else {},
        children=await _children(redis, around, [value for name, value in found.items() if name.startswith("ch:")]),
        hold=await _hold(redis, around, hold),
    )


def _newest_first(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> Iterator[HistoryLine]:
    for entry, fields in entries:
        yield from reversed(history_lines(entry, fields))


def _happened(line: HistoryLine) -> Happened:
    return Happened(line.ts, line.kind, line.node, _data.decode(line.data) if line.data else {})


async def _children(redis: Redis, around: Surroundings, found: Sequence[bytes]) -> dict[str, str]:
    """Status of the children that exist."""
    children = [
        child for child in (msgspec.json.decode(data, type=str) for data in found) if ids.is_execution_id(child)
    ]
    async with redis.pipeline(transaction=False) as pipe:
        for child in children:
            pipe.hget(PartitionKeys.of(around.namespace, ids.partition_of(child)).execution(child), "status")
        statuses = await pipe.execute()
    return {child: status.decode() for child, status in zip(children, statuses, strict=True) if status}


async def _hold(redis: Redis, around: Surroundings, data: bytes | None) -> Hold | None:
    """The concurrency key that is waited for: `[key, era, state, holder]` of the execution, and who holds it now."""
    if data is None:
        return None
    key, _, state, *holder = msgspec.msgpack.decode(data)
    if state not in _WAITS_FOR_KEY:
        return None
    keys = PartitionKeys.of(around.namespace, ids.partition_of_key(key, around.partitions))
    record = await cast("Any", redis.hget(keys.concurrency, key))
    holders = [claim[0] for claim in msgspec.msgpack.decode(record)[0]] if record else [name for name in holder if name]
    return Hold(key, holders)


async def _queues(redis: Redis, around: Surroundings, names: set[str]) -> dict[str, QueueState]:
    depths = await _depths(redis, around, names)
    alive = [
        worker
        for worker in await read_capacities(redis, around.namespace)
        if around.now_ms - worker.last_seen_ms < around.dead_after_ms
    ]
    return {
        name: QueueState(
            depths[name], [(worker.worker, worker.free, worker.tasks) for worker in alive if name in worker.queues]
        )
        for name in names
    }


async def _depths(redis: Redis, around: Surroundings, names: set[str]) -> dict[str, int]:
    """Attempts that no worker has claimed yet, by queue: still to be sent, or in the log. Reads all that are in flight.

    People ask rarely, and nothing else needs the number.
    """
    topics_of = {topics.tasks(around.namespace, name): name for name in names}
    depths = dict.fromkeys(names, 0)
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(around.partitions):
            keys = PartitionKeys.of(around.namespace, number)
            pipe.hgetall(keys.sent)
            pipe.hkeys(keys.claims)
            for name in names:
                pipe.zcard(keys.outbox(name))
        replies = iter(await pipe.execute())
    for _ in range(around.partitions):
        sent, claimed = next(replies), frozenset(next(replies))
        for name in names:
            depths[name] += next(replies)
        for token, where in sent.items():
            queue = topics_of.get(_topic(where))
            if queue is not None and token not in claimed:
                depths[queue] += 1
    return depths


def _topic(where: bytes) -> str:
    """The topic of `topic-partition:offset:incarnation`."""
    return where.decode().rsplit(":", 2)[0].rpartition("-")[0]
