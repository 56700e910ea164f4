"""`cache`: before its first attempt goes out, a task is looked up among the outputs of earlier ones.

The lookup is the attempt's beginning: the node is WAITING, and holds a slot of `max_parallel`. The shell answers the
timer `cache` with what it found (`wf_orchestrator.caching`); a hit completes the attempt, a miss dispatches it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from wf_core import ids, payload
from wf_core.states import NodeStatus
from wf_orchestrator.machine import cascade, evaluate, failure
from wf_orchestrator.machine.effects import CacheStore

if TYPE_CHECKING:
    from wf_core.wire import Cached
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

LONGEST_MS = 30 * 86_400_000
"""How long an output is kept whose document names no `ttl`."""


def is_looked_up(x: Execution, index: int) -> bool:
    """Whether a task that is ready is looked up first: before its first attempt only, and not what was undone.

    The cache may still hold the output that was undone.
    """
    if x.node(index).cache is None or x.attempts_of_era(index):
        return False
    return x.path(index) + ids.COMPENSATION not in x.scopes


def begin(step: Step, index: int, params: bytes) -> None:
    """Begins an attempt with the lookup. Raises one of EVALUATION_ERRORS when the key cannot be told."""
    x = step.x
    _name(x, index)
    step.open_node(index)
    x.lookups.add(index)
    x.inputs[index] = params
    step.keep("i:" + x.path(index), params)
    step.set_timer("cache", index, step.now)


def name_of(x: Execution, path: str, attempt: int) -> str:
    """What a `cache` timer asks the cache for; "" when the timer is stale."""
    index = _looked_up(x, path, attempt)
    if index is None:
        return ""
    try:
        return _name(x, index)
    except evaluate.EVALUATION_ERRORS:
        return ""


def _looked_up(x: Execution, path: str, attempt: int) -> int | None:
    """The node whose attempt waits for the cache; None when it does so no more."""
    index = x.index_of(path) if x.is_live else None
    waits = index is not None and index in x.lookups and x.cells[index].attempt == attempt
    return index if waits else None


def answered(step: Step, event: Cached) -> None:
    """What the cache holds. A miss during a pause is forgotten: the lookup is repeated when the execution goes on."""
    x = step.x
    index = _looked_up(x, event.node, event.attempt)
    if index is None:
        return
    step.clear_timer("cache", index)
    if event.output is not None:
        step.tell("node.cached", index)
        failure.complete(step, index, event.output, reason="from the cache")
    elif not x.is_paused:
        step.dispatch(index, x.inputs[index], again=False)
    cascade.settle(step)


def advance(step: Step, index: int) -> None:
    """After a pause the lookup is repeated."""
    if index in step.x.lookups:
        step.set_timer("cache", index, step.now)


def drop(step: Step, index: int, _reason: str) -> None:
    """The lookup is not wanted any more."""
    step.clear_timer("cache", index)


def store(step: Step, index: int, output: bytes) -> None:
    """The output of an attempt that completed is kept for later."""
    cache = step.x.node(index).cache
    if cache is None or step.x.cells[index].status is not NodeStatus.QUEUED:
        return
    try:
        name = _name(step.x, index)
    except evaluate.EVALUATION_ERRORS:  # something that the key names has changed since
        return
    step.effect(CacheStore(name, output, min(cache.ttl_ms or LONGEST_MS, LONGEST_MS)))


def _name(x: Execution, index: int) -> str:
    node = x.node(index)
    if node.cache is None:
        raise LookupError(f"{x.path(index)!r} has no cache")
    value = evaluate.render(x, index, node.cache.key)
    key = (
        value if isinstance(value, str) else payload.encode(value, what=f"the cache key of {x.path(index)!r}").decode()
    )
    return hashlib.sha256(f"{node.task}\0{key}".encode()).hexdigest()
