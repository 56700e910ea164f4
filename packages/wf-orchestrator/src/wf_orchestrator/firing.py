"""What is due becomes a record. A timer stays in Redis until the record that it led to is folded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from wf_core import ids
from wf_core.errors import PluginError
from wf_core.failpoints import fail_point
from wf_core.policies import Retry, Stop
from wf_core.store.codec import pack_timer, unpack_timer
from wf_core.wire import Decision, Event, Timer
from wf_orchestrator import caching, children, concurrency, expanding, loading
from wf_orchestrator.context import Context
from wf_orchestrator.machine import verdicts
from wf_orchestrator.machine.timeouts import UNCLAIMED
from wf_orchestrator.partition import Partition
from wf_orchestrator.policies.verdict import verdict
from wf_orchestrator.timers import WINDOW, WINDOW_MS

MOST = 200
"""Timers of a partition that fire in one step."""


async def load(context: Context, partition: Partition) -> None:
    """Reads the window from Redis: at the lease and every half window. The partition's lock must be held."""
    horizon = context.clock.now_ms() + WINDOW_MS
    partition.timers.replace(await context.queries.timers(partition.keys, horizon, WINDOW), horizon)


async def refresh(context: Context, partition: Partition) -> None:
    """Reads the window again when half of it is used up, or when it was full and has fired."""
    timers = partition.timers
    late = timers.horizon - context.clock.now_ms() < WINDOW_MS // 2
    if late or (timers.partial and len(timers) < WINDOW // 2):
        async with partition.lock:
            if not partition.closed:
                await load(context, partition)


async def fire(context: Context, partition: Partition) -> int:
    """Appends the records of timers that are due, at most 200 within 50 ms; their number. Step of every 50 ms.

    And of whenever a timer is set that is due at once.
    """
    if partition.closed or not partition.live:
        return 0
    due = partition.timers.due(context.clock.now_ms(), MOST)
    if not due:
        return 0
    tokens: dict[str, list[str]] = {}
    for kind, token in map(unpack_timer, due):
        tokens.setdefault(kind, []).append(token)
    events: list[Event] = []
    for kind, of_kind in tokens.items():
        if handler := HANDLERS.get(kind):
            events += await handler(context, partition, of_kind)
        else:
            events += [_timer(context, kind, token) for token in of_kind]
    if events:
        await context.append(partition.number, events)
        fail_point("orchestrator.timer_appended")
        context.counters.inc("timers_fired_total", len(events))
    return len(events)


def _timer(context: Context, kind: str, token: str) -> Timer:
    execution, node, attempt = ids.split_token(token)
    return Timer(
        execution=execution, ts=context.clock.now_ms(), source=context.id, timer=kind, node=node, attempt=attempt
    )


async def _decisions(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Asks the retry policies. A stale timer, whose attempt waits for no verdict, gives no record."""
    wanted = [ids.split_token(token) for token in tokens]
    async with partition.lock:  # nobody folds meanwhile: what is read from Redis is whole
        if partition.closed:
            return []
        executions = await loading.read(context, partition, {execution for execution, _, _ in wanted})
        requests = [
            request
            for execution, node, attempt in wanted
            if execution in executions and (request := verdicts.request(executions[execution], node, attempt))
        ]
    return [_decision(context, request) for request in requests]


def _decision(context: Context, request: verdicts.VerdictRequest) -> Decision:
    answer = _ask(context, request)
    context.counters.inc("decisions_total", decision="retry" if isinstance(answer, Retry) else "stop")
    return Decision(
        execution=request.execution_id,
        ts=context.clock.now_ms(),
        source=context.id,
        node=request.node,
        attempt=request.attempt,
        delay_ms=answer.delay_ms if isinstance(answer, Retry) else None,
        reason=answer.reason,
        policy=request.settings.policy,
    )


def _ask(context: Context, request: verdicts.VerdictRequest) -> Retry | Stop:
    try:
        policy = context.policies.retry(request.settings.policy)
    except PluginError as error:
        return Stop(str(error))
    return verdict(policy, **request._asdict())


async def _withdrawals(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Takes back attempts that no worker has claimed; a claimed one keeps its timer and goes on."""
    withdrawn = await context.scripts.withdraw(partition.keys, partition.nonce, tokens)
    _put_off(context, partition, "withdraw", {*tokens}.difference(withdrawn))
    return [context.lost(token, "withdrawn") for token in withdrawn]


async def _unclaimed(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Takes back attempts that no worker took in time. What a worker has, or lost, keeps its timer and goes on."""
    taken = await context.queries.claimed(partition.keys, tokens)
    waiting = [token for token in tokens if token not in taken]
    withdrawn = await context.scripts.withdraw(partition.keys, partition.nonce, waiting) if waiting else []
    _put_off(context, partition, "queue", {*tokens}.difference(withdrawn))
    now = context.monotonic()
    partition.watch.appended.update((token, now) for token in withdrawn)  # the sweep need not find them lost
    return [context.lost(token, UNCLAIMED) for token in withdrawn]


def _put_off(context: Context, partition: Partition, kind: str, tokens: Iterable[str]) -> None:
    """A worker has them, and their ends clear the timers: there is no hurry to ask again."""
    now_ms = context.clock.now_ms()
    for token in tokens:
        partition.timers.put_off(pack_timer(kind, token), now_ms)


Handler = Callable[[Context, Partition, list[str]], Awaitable[list[Event]]]
HANDLERS: Mapping[str, Handler] = {
    "decide": _decisions,
    "withdraw": _withdrawals,
    "queue": _unclaimed,
    "cache": caching.look_up,
    "acquire": concurrency.acquire,
    "release": concurrency.release,
    "grant": concurrency.grant,
    "evict": concurrency.evict,
    "spawn": children.spawn,
    "close": children.close,
    "down": children.pass_down,
    "child": children.tell_parents,
    "expand": expanding.expand,
}
"""What the tokens of a kind of timer come to; those of any other kind become a `Timer` that the machine folds."""
