"""One batch of a partition: decode, load, fold, write with APPLY, and only then act on what was decided."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from wf_core import wire
from wf_core.broker.protocol import Batch
from wf_core.failpoints import fail_point
from wf_core.plan import Plan
from wf_core.plugins.hookspecs import Change
from wf_core.store.client import redis_errors
from wf_core.store.codec import pack_timer
from wf_core.wire import Document, Event, Retried
from wf_orchestrator import caching, checkpoint, concurrency, dead_letters, loading
from wf_orchestrator.context import Context, OutrunError, PartitionLostError
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import Begun, ClearTimer, Dispatch, Effect, Ended, Outcome, SetTimer, StopTails
from wf_orchestrator.machine.snapshot import outbox_score, to_ops
from wf_orchestrator.machine.state import Execution, PartitionState
from wf_orchestrator.ownership import go_live
from wf_orchestrator.partition import Partition
from wf_orchestrator.queries import OutboxEntry
from wf_orchestrator.ready import Order, Ranked
from wf_orchestrator.scheduling import arrange, order_of

log = structlog.get_logger(__name__)

MOST_EVENTS = 500
MOST_BYTES = 4 * 2**20
"""Of records that are folded into one APPLY."""
_RETRIED = b"\xa7retried"
"""In the bytes of every such record; in others it does no harm."""
FOLD_SECONDS = 120.0
"""Longest time for one APPLY's records. The largest document takes seconds: whoever needs more hangs, and the lease
that is renewed meanwhile must not last for ever."""


class FoldTimeoutError(Exception):
    """Folding hung: a mistake of ours, or a server that neither answers nor fails."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An event with its offset, and, for a `created`, its plan."""

    offset: int
    event: Event
    plan: Plan | None = None


async def process(context: Context, partition: Partition, batch: Batch) -> None:
    """Folds a batch and everything that follows from it.

    A batch that does not begin where the partition stands was read under an older assignment and is left alone.
    Raises PartitionLostError when the partition must be leased again, NewerRecordError when a newer orchestrator must
    have it, FoldTimeoutError, and what the servers raise when they are away: the partition's memory must then be
    dropped as well.
    """
    async with partition.lock:
        if partition.closed or batch.offset != partition.offset:
            return
        for offset, records in chunks(batch):
            try:
                async with asyncio.timeout(FOLD_SECONDS) as limit:
                    await _step(context, partition, offset, records)
            except TimeoutError as error:
                if not limit.expired():  # of a server: try again later
                    raise
                raise FoldTimeoutError(f"{len(records)} records from offset {offset} on") from error
        await go_live(context, partition)


def chunks(batch: Batch) -> Iterator[tuple[int, Sequence[bytes]]]:
    """The batch in pieces that one APPLY takes: `(offset of the first record, records)`.

    A `retried` record begins a piece: its execution is loaded whole, as it was written by what comes before.
    """
    start, size = 0, 0
    for i, record in enumerate(batch.records):
        full = i - start >= MOST_EVENTS or size + len(record) > MOST_BYTES
        if i > start and (full or _RETRIED in record):
            yield batch.offset + start, batch.records[start:i]
            start, size = i, 0
        size += len(record)
    if start < len(batch.records):
        yield batch.offset + start, batch.records[start:]


async def _step(context: Context, partition: Partition, offset: int, records: Sequence[bytes]) -> None:
    events = await _decode(context, partition, offset, records)
    named = {d.event.execution: None for d in events if not isinstance(d.event, (Document, *concurrency.KEY_RECORDS))}
    whole = {d.event.execution for d in events[:1] if isinstance(d.event, Retried)}
    executions = await loading.take(context, partition, named.keys(), whole)
    partition.state.keys = await concurrency.keys_of(context, partition, (d.event for d in events))
    begun = context.monotonic()
    outcomes = fold(partition.state, executions, events)
    arrange(context.policies, executions, outcomes)
    ops = to_ops(partition.keys, outcomes, partition.generation)
    took = context.monotonic() - begun
    fail_point("orchestrator.folded")
    try:
        await checkpoint.apply(context, partition, offset + len(records), ops, checkpoint.digest(records[-1]))
    except PartitionLostError as error:
        if took < context.settings.lease_seconds:
            raise
        what = f"{len(records)} records from offset {offset} on"
        raise OutrunError(f"folding {what} took {took:.1f} s: {error}") from error
    fail_point("orchestrator.applied")
    context.counters.inc("events_total", len(events))
    for execution in executions.values():
        if not execution.status.is_terminal and not partition.closed:
            context.executions.put(partition.number, execution)
    await deliver(context, partition, outcomes)


async def _decode(context: Context, partition: Partition, offset: int, records: Sequence[bytes]) -> list[Decoded]:
    offsets: list[int] = []
    events: list[Event] = []
    for at, record in enumerate(records, offset):
        try:
            events.append(wire.decode_event(record))
            offsets.append(at)
        except msgspec.MsgspecError as error:
            await dead_letters.bury(context, partition.number, at, record, f"not a record of this log: {error}")
    plans = await loading.plans_of(context, partition, events)
    return [Decoded(*one) for one in zip(offsets, events, plans, strict=True)]


def fold(state: PartitionState, executions: dict[str, Execution], events: Sequence[Decoded]) -> list[Outcome]:
    """What the events change, in order; `state` and `executions` are moved on in place. No I/O."""
    outcomes: list[Outcome] = []
    for one in events:
        known = executions.get(one.event.execution)
        outcome = decide(state, known, one.event, one.offset, one.plan)
        if outcome.execution is None:  # it was deleted, or there is none
            executions.pop(one.event.execution, None)
        elif known is None:
            executions[outcome.execution.id] = outcome.execution
        outcomes.append(outcome)
    return outcomes


async def deliver(context: Context, partition: Partition, outcomes: Sequence[Outcome]) -> None:
    """Acts on what was decided, once it is written: the outbox, timers, workers to be told, observers."""
    news = _News()
    for outcome in outcomes:
        if outcome.crash:
            context.counters.inc("crashes_total")
            log.error("an event crashed the machine; its execution failed", offset=outcome.offset, crash=outcome.crash)
        order = order_of(context.policies, outcome.execution) if outcome.execution else None
        for effect in outcome.effects:
            _remember(partition, news, effect, order)
    partition.outbox.add(news.waiting.values(), news.ranked)
    if news.ended:
        context.credits.ended(partition, news.ended)
    if news.waiting:
        context.credits.arrived(partition)
    context.alarm.set(news.due_ms)
    _publish(context, outcomes)
    if partition.live:  # else it happened before: what got lost is asked for again
        await concurrency.send(context, outcomes)
        await caching.store(context, outcomes)
    if told := [word for o in outcomes for e in o.effects if (word := _word_for_workers(e))]:
        await _tell_workers(context, told)


@dataclass(slots=True)
class _News:
    """What a batch means for the outbox and the timers."""

    waiting: dict[str, OutboxEntry] = field(default_factory=dict)
    ranked: dict[str, Ranked] = field(default_factory=dict)
    """Of those that wait what their policy sees, if their execution has one."""
    ended: Counter[str] = field(default_factory=Counter)
    """How many attempts ended whose message was sent, by queue."""
    due_ms: float = math.inf
    """When the first timer that was set falls due, Unix ms."""


def _remember(partition: Partition, news: _News, effect: Effect, order: Order | None) -> None:
    match effect:
        case Dispatch():
            news.waiting[effect.token] = _entry(effect)
            if order is not None:
                news.ranked[effect.token] = Ranked(effect.ready, order)
        case Begun():
            partition.begun.add(effect.token)
        case Ended():
            news.waiting.pop(effect.token, None)
            partition.begun.discard(effect.token)
            leaves = partition.outbox.discard(effect.token)
            if partition.sent.pop(effect.token, None) is not None or leaves:
                news.ended[effect.queue] += 1
        case SetTimer():
            partition.timers.set(pack_timer(effect.kind, effect.token), effect.due_ms)
            news.due_ms = min(news.due_ms, effect.due_ms)
        case ClearTimer():
            partition.timers.clear(pack_timer(effect.kind, effect.token))
        case _:
            pass


def _entry(effect: Dispatch) -> OutboxEntry:
    score, queued_at = float(outbox_score(effect)), effect.message.queued_at
    return OutboxEntry(score, effect.token, effect.queue, effect.packed, queued_at)


def _word_for_workers(effect: Effect) -> str:
    """What workers shall hear of it: a token that is not wanted, or an execution of which they begin nothing more."""
    match effect:
        case Ended(cancel=True):
            return effect.token
        case StopTails():
            return effect.execution
    return ""


async def _tell_workers(context: Context, words: list[str]) -> None:
    try:
        await context.queries.publish_cancelled(words)
    except redis_errors as error:  # only a shortcut: the next heartbeat, or the next fold, tells it as well
        context.health.failed(error)


def _publish(context: Context, outcomes: Sequence[Outcome]) -> None:
    if not context.observers.active:
        return
    changes: defaultdict[str, list[Change]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.execution is None:
            continue
        for entry in outcome.history:
            hook = "wf_node_changed" if entry.node else "wf_execution_changed"
            changes[hook].append(
                Change(
                    execution_id=outcome.execution.id,
                    workflow=outcome.execution.name,
                    node=entry.node,
                    attempt=entry.attempt,
                    status=entry.status,
                    ts=entry.ts,
                    data={"kind": entry.kind, **(msgspec.json.decode(entry.data) if entry.data else {})},
                )
            )
    for hook, found in changes.items():
        context.observers.publish(hook, found)
