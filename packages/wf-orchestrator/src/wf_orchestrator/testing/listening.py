"""What a test planned in answer to something that happens: restarts, answers to approvals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wf_core import payload
from wf_core.states import NodeStatus
from wf_core.wire import Answered, Event
from wf_orchestrator.machine.effects import Outcome
from wf_orchestrator.testing.faults import Restart
from wf_orchestrator.testing.world import Listener, World


def restart_at(world: World, fault: Restart) -> Listener:
    """Restarts the orchestrator where the fault says so."""

    def listen(_outcome: Outcome, event: Event) -> None:
        if fault.strikes(len(world.log), getattr(event, "node", "")):
            world.restart()

    return listen


class Approvals:
    """Answers each approval once, as soon as it is asked for."""

    def __init__(self, world: World, execution_id: str, answers: Mapping[str, Any]) -> None:
        self._world = world
        self._execution_id = execution_id
        self._answers = dict(answers)

    def __call__(self, outcome: Outcome, _event: Event) -> None:
        """Looks whether a record has opened an approval."""
        x = outcome.execution
        if x is None or x.id != self._execution_id:
            return
        for index in outcome.changed_nodes:
            path = x.path(index)
            if x.cells[index].status is NodeStatus.WAITING and path in self._answers and not x.is_held(index):
                self._answer(path, x.cells[index].attempt)

    def _answer(self, path: str, attempt: int) -> None:
        answer = payload.encode(self._answers.pop(path), what="the answer")
        world = self._world

        def send() -> None:
            command = f"approval-{path}-{attempt}"
            values = {"id": command, "node": path, "attempt": attempt, "answer": answer, "by": "test"}
            world.append(world.record(Answered, self._execution_id, **values))

        world.agenda.set(f"answer {path}", world.now_ms, send)
