"""Messages between executions and concurrency keys: the log of another partition is where most of them go.

What is said, when, and until when it is repeated is the machine's (`machine.concurrency`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from wf_core import ids
from wf_core.wire import Acquire, Event, Holds, KeyAnswer, KeyRecord, Release
from wf_orchestrator import loading
from wf_orchestrator.context import TRANSIENT, Context
from wf_orchestrator.machine import admission
from wf_orchestrator.machine.concurrency import Key, unpack
from wf_orchestrator.machine.effects import Outcome, Send
from wf_orchestrator.partition import Partition

KEY_RECORDS = (Acquire, Holds, Release)


async def keys_of(context: Context, partition: Partition, events: Iterable[Event]) -> dict[str, Key]:
    """The concurrency keys that `events` name, as Redis holds them."""
    names = list({event.key: None for event in events if isinstance(event, KEY_RECORDS)})
    if not names:
        return {}
    found = await context.queries.concurrency(partition.keys, names)
    return {name: unpack(found.get(name)) for name in names}


async def send(context: Context, outcomes: Sequence[Outcome]) -> None:
    """Says what the machine wants said once. What gets lost is asked for again: a server that is away is no failure."""
    records = [effect.record for outcome in outcomes for effect in outcome.effects if isinstance(effect, Send)]
    try:
        await _append(context, records)
    except TRANSIENT as error:
        context.health.failed(error)


async def acquire(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Executions ask for their keys."""
    wanted = {ids.split_token(token)[0] for token in tokens}
    async with partition.lock:  # nobody folds meanwhile: what is read from Redis is whole
        if partition.closed:
            return []
        executions = await loading.read(context, partition, wanted)
        requests = [request for x in executions.values() if (request := admission.request(x)) is not None]
    await _append(context, requests)
    return []


async def release(context: Context, _partition: Partition, tokens: list[str]) -> list[Event]:
    """Executions give back their keys."""
    records = [
        Release(execution=execution, ts=0, source="", key=key, era=era)
        for execution, key, era in map(ids.split_token, tokens)
    ]
    await _append(context, records)
    return []


async def grant(context: Context, _partition: Partition, tokens: list[str]) -> list[Event]:
    """Keys tell those whom they were granted to."""
    return await _answer(context, tokens, "granted")


async def evict(context: Context, _partition: Partition, tokens: list[str]) -> list[Event]:
    """Keys tell those whose place another one needs."""
    return await _answer(context, tokens, "evicted")


async def _answer(context: Context, tokens: list[str], answer: str) -> list[Event]:
    records = [
        KeyAnswer(execution=execution, ts=0, source="", key=key, era=era, answer=answer)
        for execution, key, era in map(ids.split_token, tokens)
    ]
    await _append(context, records)
    return []


async def _append(context: Context, records: Iterable[KeyRecord | KeyAnswer]) -> None:
    """Appends each to the log that it belongs to: an execution's, or its key's."""
    places: defaultdict[int, list[Event]] = defaultdict(list)
    now = context.clock.now_ms()
    for record in records:
        if isinstance(record, KeyAnswer):
            place = ids.partition_of(record.execution)
        else:
            place = ids.partition_of_key(record.key, context.partitions)
        places[place].append(msgspec.structs.replace(record, ts=now, source=context.id))
    for place, events in places.items():
        await context.append(place, events)
