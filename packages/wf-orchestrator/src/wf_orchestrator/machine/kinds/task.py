"""`task`: an attempt on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wf_orchestrator.machine import caching, evaluate, failure
from wf_orchestrator.machine.kinds.nothing import no_bodies
from wf_orchestrator.machine.step import Kind

if TYPE_CHECKING:
    from wf_orchestrator.machine.step import Step


def begin(step: Step, index: int) -> None:
    """Dispatches the next attempt; parameters are evaluated for the first one only."""
    params = step.x.inputs.get(index)
    if params is None:
        try:
            params = evaluate.params(step.x, index)
        except evaluate.EVALUATION_ERRORS as error:
            failure.reject(step, index, evaluate.failure_of(error))
            return
    if not caching.is_looked_up(step.x, index):
        step.dispatch(index, params)
        return
    try:
        caching.begin(step, index, params)
    except evaluate.EVALUATION_ERRORS as error:
        failure.reject(step, index, evaluate.failure_of(error))


KIND = Kind(begin, no_bodies, caching.advance, caching.drop, "cancel")
