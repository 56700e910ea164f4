"""`switch`: the first case that holds names the nodes that go on; the others that it names are skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_core import payload
from wf_orchestrator.machine import evaluate, failure
from wf_orchestrator.machine.kinds.nothing import no_bodies, nothing_to_drop, nothing_to_open
from wf_orchestrator.machine.step import Kind

if TYPE_CHECKING:
    from wf_orchestrator.machine.step import Step

DEFAULT = -1
"""The output of a switch that took its default."""


def begin(step: Step, index: int) -> None:
    """Asks the cases in order; the output is the index of the one taken."""
    spec: Any = step.x.node(index).spec
    try:
        taken = next((n for n, case in enumerate(spec.cases) if evaluate.holds(step.x, index, case.when)), DEFAULT)
    except evaluate.EVALUATION_ERRORS as error:
        failure.reject(step, index, evaluate.failure_of(error))
        return
    step.open_node(index)
    failure.complete(step, index, payload.encode(taken))


KIND = Kind(begin, no_bodies, nothing_to_open, nothing_to_drop, "cancel")
