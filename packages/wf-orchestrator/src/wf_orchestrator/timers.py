"""Timers: what is due becomes a record. In memory is a window of the zset; a timer stays there until it is folded."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from wf_core import ids
from wf_core.errors import PluginError
from wf_core.policies import Retry, Stop
from wf_core.wire import Decision, Event, Lost, Timer
from wf_orchestrator import loading
from wf_orchestrator.context import Context
from wf_orchestrator.machine.state import VerdictRequest
from wf_orchestrator.policies.verdict import verdict

if TYPE_CHECKING:
    from wf_orchestrator.partition import Partition

WINDOW_MS = 60_000
"""How far ahead timers are kept in memory; the zset is read again twice as often."""
WINDOW = 10_000
MOST = 200
"""Timers of a partition that fire in one step."""
AGAIN_MS = 2_000
"""A timer that fired and is still there fires again: its record may be lost."""


class Timers:
    """The window: members `kind|token` with their due time in Unix ms."""

    def __init__(self) -> None:
        self.horizon = 0
        """Timers that fall due until then are here, unless the window is full."""
        self.partial = False
        """More timers than fit are due before the horizon: read again once these have fired."""
        self._due: dict[str, int] = {}
        self._next: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def set(self, member: str, due_ms: int) -> None:
        """A timer, unless it lies beyond the window or is known."""
        if self._due.get(member) == due_ms:
            return
        if due_ms > self.horizon:
            self.clear(member)
            return
        if len(self._due) >= 2 * WINDOW:
            self.partial = True
            return
        self._due[member] = due_ms
        self._schedule(member, due_ms)

    def clear(self, member: str) -> None:
        """The timer is not wanted any more."""
        self._due.pop(member, None)
        self._next.pop(member, None)

    def due(self, now_ms: int, most: int) -> list[str]:
        """Members that are due, oldest first; each is due again 2 s later unless it is cleared."""
        found: list[str] = []
        while self._heap and self._heap[0][0] <= now_ms and len(found) < most:
            when, member = heapq.heappop(self._heap)
            if self._next.get(member) == when:
                found.append(member)
                self._schedule(member, now_ms + AGAIN_MS)
        return found

    def waits(self, now_ms: int) -> bool:
        """Whether something is due."""
        return bool(self._heap) and self._heap[0][0] <= now_ms

    def replace(self, found: list[tuple[str, int]], horizon: int) -> None:
        """What the zset holds until `horizon`: unknown timers are added, those that left it are dropped."""
        self.horizon = horizon
        self.partial = len(found) >= WINDOW
        if not self.partial:
            stored = {member for member, _ in found}
            for member in self._due.keys() - stored:
                self.clear(member)
        for member, due_ms in found:
            self.set(member, due_ms)

    def _schedule(self, member: str, when: int) -> None:
        self._next[member] = when
        heapq.heappush(self._heap, (when, member))


def member(kind: str, token: str) -> str:
    """How a timer is written in the zset."""
    return f"{kind}|{token}"


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
    """Appends the records of timers that are due, at most 200; the number of records. Step of every 50 ms."""
    if partition.closed or not partition.live:
        return 0
    due = partition.timers.due(context.clock.now_ms(), MOST)
    if not due:
        return 0
    tokens: dict[str, list[str]] = {}
    for kind, _, token in (one.partition("|") for one in due):
        tokens.setdefault(kind, []).append(token)
    events: list[Event] = [
        _timer(context, kind, token) for kind in ("retry", "deadline") for token in tokens.get(kind, [])
    ]
    events += await _decisions(context, partition, tokens.get("decide", []))
    events += await _withdrawals(context, partition, tokens.get("withdraw", []))
    if events:
        await context.append(partition.number, events)
        context.counters.inc("timers_fired_total", len(events))
    return len(events)


def _timer(context: Context, kind: str, token: str) -> Timer:
    execution, node, attempt = ids.split_token(token)
    return Timer(
        execution=execution, ts=context.clock.now_ms(), source=context.id, timer=kind, node=node, attempt=attempt
    )


async def _decisions(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Asks the retry policies. A stale timer, whose attempt waits for no verdict, gives no record."""
    if not tokens:
        return []
    wanted = [ids.split_token(token) for token in tokens]
    async with partition.lock:  # nobody folds meanwhile: what is read from Redis is whole
        if partition.closed:
            return []
        executions = await loading.read(context, partition, {execution for execution, _, _ in wanted})
        requests = [
            request
            for execution, node, attempt in wanted
            if execution in executions and (request := executions[execution].verdict_request(node, attempt))
        ]
    return [_decision(context, request) for request in requests]


def _decision(context: Context, request: VerdictRequest) -> Decision:
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


def _ask(context: Context, request: VerdictRequest) -> Retry | Stop:
    try:
        policy = context.policies.retry(request.settings.policy)
    except PluginError as error:
        return Stop(str(error))
    return verdict(policy, **request._asdict())


async def _withdrawals(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Takes back attempts that no worker has claimed; a claimed one keeps its timer and goes on."""
    if not tokens:
        return []
    withdrawn = await context.scripts.withdraw(partition.keys, partition.nonce, tokens)
    events: list[Event] = []
    for token in withdrawn:
        execution, node, attempt = ids.split_token(token)
        events.append(
            Lost(
                execution=execution,
                ts=context.clock.now_ms(),
                source=context.id,
                node=node,
                attempt=attempt,
                reason="withdrawn",
            )
        )
    return events
