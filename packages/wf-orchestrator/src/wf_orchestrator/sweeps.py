"""Sweeps look for what was lost and append events about it; they never write the state of an execution.

Before a `lost` record is appended, CONDEMN judges again and takes the claim away, atomically: after that no heartbeat
and no claim of this attempt counts, before it none is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog

from wf_core.broker import topics
from wf_core.broker.protocol import RecordTooLargeError, TopicPartition
from wf_core.failpoints import fail_point
from wf_core.store.commands import unpack_command
from wf_orchestrator import checkpoint, dead_letters
from wf_orchestrator.context import Context
from wf_orchestrator.partition import Partition
from wf_orchestrator.positions import Where
from wf_orchestrator.queries import Claims
from wf_orchestrator.watch import CONDEMNED, Waiting

log = structlog.get_logger(__name__)

APPEND_PAUSE = 2.0
"""Seconds before a `lost` record that had no effect yet is appended again."""
_NOWHERE = ""
"""Where the message of an attempt is that has none."""
MOST = 500
"""Tokens that one step of a sweep settles in a partition."""
ACCEPTED_SECONDS = 5.0
ACCEPTED_TRIES = 20
PRUNE_SECONDS = 600.0
"""Silence after which a worker that holds nothing is taken off the heartbeats."""


class Sighting(NamedTuple):
    """The claims of partitions (by number), and when they were asked for and seen, on the monotonic clock."""

    claims: dict[int, Claims]
    asked: float
    answered: float


async def look(context: Context, partitions: Sequence[Partition]) -> Sighting:
    """The claims of all live partitions, in one round trip."""
    live = [p for p in partitions if p.live and not p.closed]
    asked = context.monotonic()
    found = await context.queries.claims([p.keys for p in live])
    return Sighting({p.number: c for p, c in zip(live, found, strict=True)}, asked, context.monotonic())


async def dead(context: Context, partition: Partition, sighting: Sighting) -> None:
    """Attempts whose worker is silent. Step of a tenth of a death time, with what `look` saw."""
    claims, asked, answered = sighting.claims.get(partition.number), sighting.asked, sighting.answered
    if partition.closed or claims is None:
        return
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
    fail_point("orchestrator.condemned")
    now = context.monotonic()
    events = []
    for token, worker, silent_ms in lost:
        events.append(context.lost(token, reason, worker, silent_ms))
        partition.watch.appended[token] = now
    log.warning("attempts lost", partition=partition.number, reason=reason, tokens=[token for token, _, _ in lost[:10]])
    context.counters.inc("lost_total", len(lost), reason=reason)
    await context.append(partition.number, [*events])


async def orphans(context: Context, partition: Partition, *, look_at_ends: bool = False) -> None:
    """Messages that were passed without a claim, or are not in the log (any more), and attempts that never had one.

    Step of every 2 s. An attempt that its worker began by itself has a claim from the start, and loses it when that
    worker does not know of it: it had given up before the record that began it was folded.

    `look_at_ends` also asks the log for the ends of task partitions, which costs a request each. As long as something
    is suspected they are asked for anyway: what lies past an end must be seen there for a whole death time.
    """
    if partition.closed or not partition.live:
        return
    now, orphan = context.monotonic(), context.settings.orphan_seconds
    old = {token: sent.where for token, sent in partition.sent.items() if now - sent.since > orphan}
    watch = partition.watch
    passed = await _passed(context, old, look_at_ends=look_at_ends or bool(watch.unclaimed))
    passed |= dict.fromkeys(sorted(await _begun(context, partition)), _NOWHERE)
    claimed = await context.queries.claimed(partition.keys, list(passed))
    watch.unclaimed = {t: watch.unclaimed.get(t, now) for t in passed if t not in claimed}
    lost: list[tuple[str, str, int]] = []
    for token, since in list(watch.unclaimed.items())[:MOST]:
        if now - since < context.settings.death_seconds or not watch.may_append(token, now, APPEND_PAUSE):
            continue  # a worker that Redis forgot asserts its claim within a death time
        where = passed[token]
        if await context.scripts.condemn(partition.keys, partition.nonce, token, None, None, where=where):
            lost.append((token, "", round((now - since) * 1000)))
    await _append_lost(context, partition, "orphan", lost)


async def _begun(context: Context, partition: Partition) -> set[str]:
    """The attempts in flight that their workers began by themselves."""
    if not partition.begun_known:
        async with partition.lock:  # between two batches: what ends while it is being read would come back
            partition.begun |= await context.queries.begun(partition.keys)
            partition.begun_known = True
    return partition.begun


async def _passed(context: Context, old: dict[str, Where], *, look_at_ends: bool) -> dict[str, str]:
    """Those whose message no worker will read, and where it is: its offset was committed, or the log lacks it."""
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

    return {token: str(where) for token, where in old.items() if is_passed(where)}


async def accepted(context: Context, partition: Partition) -> None:
    """Commands that were answered but are not folded: their records are appended again. Step of every 2 s.

    Not before the partition has folded what was in the log when the command grew old, and the last copy: one that lags
    behind would be given more to do, and a command that only waits for its turn must not end in the dead letters.
    """
    if partition.closed or not partition.live:
        return
    names, now, notes = await context.queries.waiting(partition.keys), context.monotonic(), partition.watch.accepted
    partition.watch.accepted = notes = {name: notes.get(name) or Waiting(now) for name in names}
    old = [name for name, note in notes.items() if now - note.since >= ACCEPTED_SECONDS]
    if any(notes[name].passed is None for name in old):
        end = await context.log.end(context.events(partition.number))
        notes.update({name: notes[name]._replace(passed=end) for name in old if notes[name].passed is None})
    due = [name for name in old if partition.offset >= (notes[name].passed or 0)][:MOST]
    for name, command in (await context.queries.commands(partition.keys, due)).items():
        try:
            records = unpack_command(command).record
        except msgspec.MsgspecError as error:
            await _give_up(context, partition, name, [command], f"the command {name} cannot be read: {error}")
        else:
            await _append_again(context, partition, name, records)


async def _append_again(context: Context, partition: Partition, name: str, records: Sequence[bytes]) -> None:
    note = partition.watch.accepted[name]
    if note.tries >= ACCEPTED_TRIES:
        reason = f"the command {name} was appended {ACCEPTED_TRIES} times, passed each time and never folded"
        await _give_up(context, partition, name, records, reason)
        return
    try:
        offsets = await context.log.append(context.events(partition.number), records)
    except RecordTooLargeError as error:
        await _give_up(context, partition, name, records, f"the log refuses the command {name}: {error}")
        return
    partition.watch.accepted[name] = Waiting(context.monotonic(), offsets[-1] + 1, note.tries + 1)
    context.counters.inc("accepted_again_total")


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
