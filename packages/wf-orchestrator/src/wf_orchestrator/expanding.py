"""The nodes that a `dynamic` node gave: the timer `expand` has them checked; what comes of it is a record."""

from __future__ import annotations

import asyncio
import functools

from wf_core import ids
from wf_core.wire import Event
from wf_orchestrator import expansion_records, loading
from wf_orchestrator.context import Context
from wf_orchestrator.partition import Partition

_IN_THREAD = 16 * 1024
"""More bytes of nodes are checked beside the event loop, so that leases are renewed meanwhile."""


async def expand(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Checks the nodes of attempts that wait for it. A paused execution is left alone until it goes on."""
    events: list[Event] = []
    async with partition.lock:  # nobody folds meanwhile: what is read from Redis is whole
        if partition.closed:
            return []
        executions = await loading.read(context, partition, {ids.split_token(token)[0] for token in tokens})
        for token in tokens:
            x = executions.get(ids.split_token(token)[0])
            if x is not None and (index := expansion_records.waiting(x, token)) is not None:
                now = context.clock.now_ms()
                check = functools.partial(expansion_records.expanded, x, index, source=context.id, now=now)
                is_large = len(x.inputs[index]) > _IN_THREAD
                events.append(await asyncio.to_thread(check) if is_large else check())
    return events
