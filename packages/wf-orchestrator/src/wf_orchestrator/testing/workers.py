"""Workers in virtual time: they begin what is dispatched while slots are free, and bring results, or do not.

As real ones they go on by themselves with what follows a node, unless somebody who waits comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from wf_core import ids
from wf_core.continuing import next_of
from wf_core.states import AttemptStatus
from wf_core.wire import BEGINS, Begin, FrozenSettings, Lost, Result, TaskMessage
from wf_orchestrator.machine.effects import Begun, Dispatch, Ended, StopTails
from wf_orchestrator.machine.snapshot import outbox_score
from wf_orchestrator.ready import Ranked, ReadyQueue
from wf_orchestrator.scheduling import order_of
from wf_orchestrator.testing.attempts import Ending, run_attempt, stalled
from wf_orchestrator.testing.faults import DEATH_MS, Fault
from wf_orchestrator.testing.stubs import Tasks
from wf_orchestrator.testing.world import World

WORKER = "w1"
YIELD_MS = 100
"""A tail that has run for so long leaves its slot to anyone who waits."""


class Workers:
    """All workers together, with `slots` attempts at once (None: any number)."""

    def __init__(
        self, world: World, tasks: Tasks, faults: Sequence[Fault], slots: int | None, settings: FrozenSettings
    ) -> None:
        self.dispatched: list[tuple[str, str]] = []
        """Execution and path of each attempt, in the order in which they were sent."""
        self._world = world
        self._tasks = tasks
        self._faults = faults
        self._slots = slots
        self._limit = settings.max_payload_bytes
        self._waiting = ReadyQueue()
        self._queued: dict[str, Dispatch] = {}
        self._running: set[str] = set()
        self._next: dict[str, TaskMessage] = {}
        """What a worker goes on with once the log has taken the result before it, by token."""
        self._since: dict[str, int] = {}
        """When the tail of a running attempt began, by token."""
        self._stopped: dict[str, int] = {}
        """Executions of which nothing is begun after what had started by then."""
        self._late = 0
        world.dispatch = self.take
        world.begun = self.go_on
        world.ended = self.drop
        world.stop_tails = self.stop_tails
        world.is_waiting = self._queued.__contains__

    def take(self, dispatch: Dispatch) -> None:
        """An attempt came out of the outbox."""
        self.dispatched.append((dispatch.message.execution, dispatch.message.node))
        self._queued[dispatch.token] = dispatch
        order = order_of(self._world.policies, self._world.executions[dispatch.message.execution])
        ranked = None if order is None else Ranked(dispatch.ready, order)
        self._waiting.put(dispatch.token, float(outbox_score(dispatch)), ranked)
        self._plan_claim()

    def go_on(self, begun: Begun) -> None:
        """The worker of the node before has begun an attempt by itself."""
        message = self._next.pop(begun.token)
        self.dispatched.append((message.execution, message.node))
        self._running.add(begun.token)
        self._begin(message, begun.token)

    def stop_tails(self, stop: StopTails) -> None:
        """An execution is paused or halts: workers begin nothing more of it by themselves."""
        self._stopped[stop.execution] = self._world.now_ms

    def drop(self, ended: Ended) -> None:
        """An attempt left the in-flight set: nobody works on it any more."""
        self._queued.pop(ended.token, None)
        self._waiting.drop(ended.token)
        self._running.discard(ended.token)
        self._since.pop(ended.token, None)
        self._world.agenda.clear(f"attempt {ended.token}")
        self._plan_claim()

    def is_running(self, token: str) -> bool:
        """Whether a worker has begun an attempt."""
        return token in self._running

    def _plan_claim(self) -> None:
        """Workers look for work behind everything else that happens now."""
        if self._queued and self._has_slot():
            self._world.agenda.set("claim", self._world.now_ms, self._claim)

    def _has_slot(self) -> bool:
        return self._slots is None or len(self._running) < self._slots

    def _claim(self) -> None:
        due_ms = self._world.agenda.next_due_ms()
        if due_ms is not None and due_ms <= self._world.now_ms:
            self._plan_claim()
            return
        while self._has_slot() and (taken := self._waiting.take()) is not None:
            token, _ = taken
            self._running.add(token)
            self._since[token] = self._world.now_ms
            self._begin(self._queued.pop(token).message, token)

    def _begin(self, message: TaskMessage, token: str) -> None:
        source = self._tasks.find(message.task, message.node)
        strikes = {fault.kind: fault for fault in self._faults if fault.strikes(message.node, message.attempt)}
        if "lose" in strikes:
            self._lose(token, strikes["lose"])
            return
        if "stall" in strikes:
            self._end(message, token, stalled(source, message), 1)
            return
        ending = run_attempt(source, message, self._limit)
        if "late" in strikes:
            self._lose(token, Fault("lose", "", (), "dead"))
            self._come_late(token, ending, DEATH_MS + strikes["late"].after_ms)
        else:
            self._end(message, token, ending, 1 + (strikes["duplicate"].times if "duplicate" in strikes else 0))

    def _lose(self, token: str, fault: Fault) -> None:
        silent_ms = DEATH_MS if fault.reason == "dead" else 0
        worker = "" if fault.reason == "orphan" else WORKER
        due_ms = self._world.now_ms + fault.after_ms + silent_ms

        def lost() -> None:
            record = self._world.about(Lost, token, reason=fault.reason, worker=worker, silent_ms=silent_ms)
            self._world.append(record)

        self._world.agenda.set(f"attempt {token}", due_ms, lost)

    def _end(self, message: TaskMessage, token: str, ending: Ending, times: int) -> None:
        if ending.takes_ms is None:
            return
        started = self._world.now_ms

        def end() -> None:
            result = self._result(token, ending, started)
            if (begin := self._begin_next(message, token, ending, started)) is not None:
                result = msgspec.structs.replace(result, begin=begin, v=BEGINS)
            self._world.append(*[result] * times)

        self._world.agenda.set(f"attempt {token}", started + ending.takes_ms, end)

    def _begin_next(self, message: TaskMessage, token: str, ending: Ending, started: int) -> Begin | None:
        """How the result names what its worker goes on with; None when the fold says what comes next."""
        stopped = started <= self._stopped.get(message.execution, -1)
        if stopped or ending.status is not AttemptStatus.COMPLETED or self._must_yield(message, token):
            return None
        if (found := next_of(message, ending.output or b"null")) is None:
            return None
        following, begin = found
        name = ids.token(following.execution, following.node, following.attempt)
        self._next[name] = following
        self._since[name] = self._since[token]
        return begin

    def _must_yield(self, message: TaskMessage, token: str) -> bool:
        """Whether somebody waits who comes first: with a higher priority, or when this tail has run for a while."""
        since_ms = self._world.now_ms - self._since[token]
        return bool(self._waiting) and (self._waiting.priority > message.priority or since_ms >= YIELD_MS)

    def _come_late(self, token: str, ending: Ending, after_ms: int) -> None:
        self._late += 1
        started = self._world.now_ms
        due_ms = started + max(ending.takes_ms or 0, after_ms)
        self._world.agenda.set(
            f"late {self._late}", due_ms, lambda: self._world.append(self._result(token, ending, started))
        )

    def _result(self, token: str, ending: Ending, started_at: int) -> Any:
        return self._world.about(
            Result,
            token,
            worker=WORKER,
            started_at=started_at,
            ended_at=self._world.now_ms,
            status=str(ending.status),
            output=ending.output,
            error=ending.error,
        )
