"""Workers in virtual time: they begin what is dispatched while slots are free, and bring results, or do not."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from wf_core.wire import FrozenSettings, Lost, Result
from wf_orchestrator.machine.effects import Dispatch, Ended
from wf_orchestrator.testing.attempts import Ending, run_attempt, stalled
from wf_orchestrator.testing.faults import DEATH_MS, Fault
from wf_orchestrator.testing.stubs import Tasks
from wf_orchestrator.testing.world import World

WORKER = "w1"


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
        self._waiting: list[tuple[int, int, str]] = []
        self._queued: dict[str, Dispatch] = {}
        self._running: set[str] = set()
        self._late = 0
        world.dispatch = self.take
        world.ended = self.drop
        world.is_waiting = self._queued.__contains__

    def take(self, dispatch: Dispatch) -> None:
        """An attempt came out of the outbox."""
        self.dispatched.append((dispatch.message.execution, dispatch.message.node))
        self._queued[dispatch.token] = dispatch
        heapq.heappush(self._waiting, (-dispatch.priority, dispatch.seq, dispatch.token))
        self._plan_claim()

    def drop(self, ended: Ended) -> None:
        """An attempt left the in-flight set: nobody works on it any more."""
        self._queued.pop(ended.token, None)
        self._running.discard(ended.token)
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
        while self._waiting and self._has_slot():
            token = heapq.heappop(self._waiting)[2]
            dispatch = self._queued.pop(token, None)
            if dispatch is not None:
                self._running.add(token)
                self._begin(dispatch)

    def _begin(self, dispatch: Dispatch) -> None:
        message, token = dispatch.message, dispatch.token
        source = self._tasks.find(message.task, message.node)
        strikes = {fault.kind: fault for fault in self._faults if fault.strikes(message.node, message.attempt)}
        if "lose" in strikes:
            self._lose(token, strikes["lose"])
            return
        if "stall" in strikes:
            self._end(token, stalled(source, message), 1)
            return
        ending = run_attempt(source, message, self._limit)
        if "late" in strikes:
            self._lose(token, Fault("lose", "", (), "dead"))
            self._come_late(token, ending, DEATH_MS + strikes["late"].after_ms)
        else:
            self._end(token, ending, 1 + (strikes["duplicate"].times if "duplicate" in strikes else 0))

    def _lose(self, token: str, fault: Fault) -> None:
        silent_ms = DEATH_MS if fault.reason == "dead" else 0
        worker = "" if fault.reason == "orphan" else WORKER
        due_ms = self._world.now_ms + fault.after_ms + silent_ms

        def lost() -> None:
            record = self._world.about(Lost, token, reason=fault.reason, worker=worker, silent_ms=silent_ms)
            self._world.append(record)

        self._world.agenda.set(f"attempt {token}", due_ms, lost)

    def _end(self, token: str, ending: Ending, times: int) -> None:
        if ending.takes_ms is None:
            return
        started = self._world.now_ms

        def end() -> None:
            self._world.append(*[self._result(token, ending, started)] * times)

        self._world.agenda.set(f"attempt {token}", started + ending.takes_ms, end)

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
