"""`pause` and `resume`, for children too: what runs finishes, nothing starts, results and timers are folded.

Timers keep counting, the execution's own timeout too; a retry that is due is held. To resume asks again whatever was
not asked meanwhile.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from wf_orchestrator.machine import cascade, ending
from wf_orchestrator.machine.effects import StopTails
from wf_orchestrator.machine.kinds import workflow
from wf_orchestrator.machine.scope import FINAL, OUTSIDE

if TYPE_CHECKING:
    from wf_core.wire import Paused
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.step import Step


def paused(step: Step, event: Paused) -> None:
    """The execution has become PAUSED."""
    step.leave_first_rules()
    step.tell("execution.paused", None, {"reason": event.reason} if event.reason else None)
    step.effect(StopTails(step.x.id))
    workflow.signal_down(step, "pause")


def resumed(step: Step) -> None:
    """The execution has become RUNNING again."""
    step.tell("execution.resumed")
    workflow.signal_down(step, "resume")
    go_on(step)


def admitted(step: Step) -> None:
    """The execution may start. After a `retry` containers are open already: their times count from now on."""
    for index in sorted(step.x.inside):
        step.start_timeout(index)
        step.start_total(index)
    go_on(step)


def go_on(step: Step) -> None:
    """Asks everything that may start: after a pause, and when an execution is admitted.

    Looks at every node that is not held.
    """
    x = step.x
    if x.is_paused or (x.hold is not None and x.hold.is_waiting):
        return
    for scope in sorted(x.scopes.values(), key=lambda one: one.base):  # the same order after a load
        if scope.is_open and _is_due(step, scope):
            cascade.ask(step, scope)
    _start_what_takes_no_slot(step)
    ending.go_on(step)
    cascade.settle(step)


def _is_due(step: Step, scope: Scope) -> bool:
    """Whether a body's turn has come: that of `finally` comes last, that of a held item when its map has a place."""
    x = step.x
    if scope.key == FINAL:
        return x.stage == FINAL
    while scope.parent != OUTSIDE:
        if scope.held or (x.cells[scope.parent].status.is_terminal and scope.key != x.stage):
            return False
        scope = x.owner[scope.parent]
    return True


def _start_what_takes_no_slot(step: Step) -> None:
    """Only tasks wait for a slot; anything else was held because of the pause alone."""
    x = step.x
    held = dict.fromkeys(index for _, index in sorted(x.waiting) if x.node(index).kind != "task")
    if held:
        step.starting.extend(held)
        x.waiting = [entry for entry in x.waiting if entry[1] not in held]
        heapq.heapify(x.waiting)
