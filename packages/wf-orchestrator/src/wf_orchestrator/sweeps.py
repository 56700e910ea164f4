"""Sweeps look for what was lost and append events about it; they never write the state of an execution.

Before a `lost` record is appended, CONDEMN judges again and takes the claim away, atomically: after that no heartbeat
and no claim of this attempt counts, before it none is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from wf_core.broker import topics
from wf_core.broker.protocol import RecordTooLargeError, TopicPartition
from wf_core.store.commands import unpack_command
from wf_orchestrator import checkpoint, dead_letters
from wf_orchestrator.context import Context
from wf_orchestrator.partition import Partition
from wf_orchestrator.positions import Where
from wf_orchestrator.queries import Claims
from wf_orchestrator.watch import CONDEMNED

log = structlog.get_logger(__name__)

APPEND_PAUSE = 2.0
"""Seconds before a `lost` record that had no effect yet is appended again."""
MOST = 500
"""Tokens that one step of a sweep settles in a partition."""
ACCEPTED_SECONDS = 5.0
ACCEPTED_TRIES = 20
PRUNE_SECONDS = 600.0
"""Silence after which a worker that holds nothing is taken off the heartbeats."""


async def dead(context: Context, partitions: Sequence[Partition]) -> None:
    """Attempts whose worker is silent. Step of a fifth of a death time; costs one round trip and the claims."""
    live = [p for p in partitions if p.live and not p.closed]
    asked = context.monotonic()
    found = await context.queries.claims([p.keys for p in live])
    answered = context.monotonic()
    for partition, claims in zip(live, found, strict=True):
        if not partition.closed:
            await _dead_in(context, partition, claims, asked, answered)


async def _dead_in(context: Context, partition: Partition, claims: Claims, asked: float, answered: float) -> None:
    watch, death = partition.watch, context.settings.death_seconds
    holders = set(claims.holders.values()) - {CONDEMNED}
    watch.observe(claims.beats, holders, asked, answered, gap=death / 2)
    silent = {h for h in holders if watch.silent_for(h, asked) > death}
    in_question = {t for t, h in claims.holders.items() if h == CONDEMNED or h in silent}
    watch.forget(in_question, answered, APPEND_PAUSE)
    lost: list[tuple[str, str, int]] = []
    for token in sorted(in_question)[:MOST]:
        holder = claims.holders[token]
        if not watch.may_append(token, answered, APPEND_PAUSE):
            continue
        counter = claims.beats.get(holder, "")
        if holder == CONDEMNED:
            lost.append((token, "", 0))
        elif await context.scripts.condemn(partition.keys, partition.nonce, token, holder, counter):
            lost.append((token, holder, round(watch.silent_for(holder, asked) * 1000)))
    await _append_lost(context, partition, "dead", lost)


async def _append_lost(
    context: Context, partition: Partition, reason: str, lost: Sequence[tuple[str, str, int]]
) -> None:
    if not lost:
        return
    now = context.monotonic()
    events = []
    for token, worker, silent_ms in lost:
        events.append(context.lost(token, reason, worker, silent_ms))
        partition.watch.appended[token] = now
    log.warning("attempts lost", partition=partition.number, reason=reason, tokens=[token for token, _, _ in lost[:10]])
    context.counters.inc("lost_total", len(lost), reason=reason)
    await context.append(partition.number, [*events])


async def orphans(context: Context, partition: Partition, *, look_at_ends: bool = False) -> None:
    """Messages that were passed without a claim, or are not in the log (any more). Step of every 2 s.

    `look_at_ends` also asks the log for the ends of task partitions, which costs a request each. As long as something
    is suspected they are asked for anyway: what lies past an end must be seen there for a whole death time.
    """
    if partition.closed or not partition.live:
        return
    now, orphan = context.monotonic(), context.settings.orphan_seconds
    old = {token: sent.where for token, sent in partition.sent.items() if now - sent.since > orphan}
    watch = partition.watch
    passed = await _passed(context, old, look_at_ends=look_at_ends or bool(watch.unclaimed))
    claimed = await context.queries.claimed(partition.keys, list(passed))
    watch.unclaimed = {t: watch.unclaimed.get(t, now) for t in passed if t not in claimed}
    lost: list[tuple[str, str, int]] = []
    for token, since in list(watch.unclaimed.items())[:MOST]:
        if now - since < context.settings.death_seconds or not watch.may_append(token, now, APPEND_PAUSE):
            continue  # a worker that Redis forgot asserts its claim within a death time
        where = str(passed[token])
        if await context.scripts.condemn(partition.keys, partition.nonce, token, None, None, where=where):
            lost.append((token, "", round((now - since) * 1000)))
    await _append_lost(context, partition, "orphan", lost)


async def _passed(context: Context, old: dict[str, Where], *, look_at_ends: bool) -> dict[str, Where]:
    """Those whose message no worker will read: its offset was committed, or the log does not hold it."""
    prefix = len(topics.tasks(context.namespace, ""))
    sources = {where.source for where in old.values()}
    places = {source: (source.topic[prefix:], source.partition) for source in sources}
    committed = await context.queries.task_offsets([places[source] for source in sources])
    ends: dict[TopicPartition, int] = {}
    if look_at_ends:
        ends = {source: await context.log.end(source) for source in sources}

    def is_passed(where: Where) -> bool:
        offset, incarnation = committed[places[where.source]]
        return (
            where.incarnation != context.incarnation
            or (offset > where.offset and incarnation in ("", where.incarnation))
            or where.offset >= ends.get(where.source, where.offset + 1)
        )

    return {token: where for token, where in old.items() if is_passed(where)}


async def accepted(context: Context, partition: Partition) -> None:
    """Commands that were answered but are not folded: their records are appended again. Step of every 2 s."""
    if partition.closed or not partition.live:
        return
    waiting = await context.queries.accepted(partition.keys)
    now, notes = context.monotonic(), partition.watch.accepted
    partition.watch.accepted = notes = {f: notes.get(f, (0, now)) for f in waiting}
    for name, (tries, since) in list(notes.items()):
        if now - since < ACCEPTED_SECONDS:
            continue
        command = unpack_command(waiting[name])
        if tries >= ACCEPTED_TRIES:
            reason = f"the command {name} was appended {ACCEPTED_TRIES} times and never folded"
            await _give_up(context, partition, name, command.record, reason)
            continue
        notes[name] = (tries + 1, now)
        context.counters.inc("accepted_again_total")
        try:
            await context.log.append(context.events(partition.number), command.record)
        except RecordTooLargeError as error:
            await _give_up(context, partition, name, command.record, f"the log refuses the command {name}: {error}")


async def _give_up(context: Context, partition: Partition, name: str, records: Sequence[bytes], reason: str) -> None:
    for record in records:
        await dead_letters.bury(context, partition.number, None, record, reason)
    async with partition.lock:
        if not partition.closed:
            await checkpoint.write(context, partition, [("HDEL", partition.keys.accepted, name)])


async def prune(context: Context, partition: Partition) -> None:
    """Takes workers off the heartbeats that were silent for 10 minutes and hold nothing. A rare step."""
    if partition.closed or not partition.live:
        return
    now = context.monotonic()
    holders = set((await context.queries.claims([partition.keys]))[0].holders.values())
    gone = [w for w in partition.watch.beats if w not in holders and partition.watch.silent_for(w, now) > PRUNE_SECONDS]
    if gone:
        async with partition.lock:
            if not partition.closed:
                await checkpoint.write(context, partition, [("HDEL", partition.keys.heartbeats, *gone)])
