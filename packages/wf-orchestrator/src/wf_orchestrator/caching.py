"""The cache of outputs: looked up when a node with `cache` begins, filled when it completes.

It is a convenience, never a truth: what cannot be read is a miss, what cannot be written is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence

from wf_core import ids
from wf_core.store.client import redis_errors
from wf_core.store.keys import InstallationKeys
from wf_core.wire import Cached, Event
from wf_orchestrator import loading
from wf_orchestrator.context import Context
from wf_orchestrator.machine.caching import name_of
from wf_orchestrator.machine.effects import CacheStore, Outcome
from wf_orchestrator.partition import Partition


async def look_up(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """What the cache holds for nodes that wait for it. A stale timer gives no record."""
    wanted = [ids.split_token(token) for token in tokens]
    async with partition.lock:  # nobody folds meanwhile: what is read from Redis is whole
        if partition.closed:
            return []
        executions = await loading.read(context, partition, {execution for execution, _, _ in wanted})
        names = {
            (execution, node, attempt): name
            for execution, node, attempt in wanted
            if execution in executions and (name := name_of(executions[execution], node, attempt))
        }
    outputs = await _read(context, list(dict.fromkeys(names.values())))
    now = context.clock.now_ms()
    return [
        Cached(execution=execution, ts=now, source=context.id, node=node, attempt=attempt, output=outputs.get(name))
        for (execution, node, attempt), name in names.items()
    ]


async def _read(context: Context, names: Sequence[str]) -> dict[str, bytes]:
    keys = InstallationKeys(context.namespace)
    found: dict[str, bytes] = {}
    for name in names:  # one by one: in a cluster they lie in many slots
        try:
            output = await context.queries.cached(keys.cached(name))
        except redis_errors as error:
            context.health.failed(error)
            break
        context.counters.inc("cache_lookups_total", answer="miss" if output is None else "hit")
        if output is not None:
            found[name] = output
    return found


async def store(context: Context, outcomes: Sequence[Outcome]) -> None:
    """Keeps the outputs of nodes that completed."""
    keys = InstallationKeys(context.namespace)
    for outcome in outcomes:
        for effect in outcome.effects:
            if isinstance(effect, CacheStore):
                try:
                    await context.queries.keep_cached(keys.cached(effect.name), effect.output, effect.ttl_ms)
                except redis_errors as error:
                    context.health.failed(error)
                    return
