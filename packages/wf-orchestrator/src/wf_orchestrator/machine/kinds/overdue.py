"""What follows when the time of a wait or an approval is over: `on_timeout`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wf_core.states import AttemptClass
from wf_core.wire import Failure
from wf_orchestrator.machine import evaluate, failure

if TYPE_CHECKING:
    from wf_core.plan import OnTimeout
    from wf_orchestrator.machine.step import Step


def end(step: Step, index: int, on_timeout: OnTimeout, message: str) -> None:
    """Ends an open attempt that waited in vain; `message` says for what, and how long."""
    path = step.x.path(index)
    if on_timeout == "skip":
        failure.skip_open(step, index, message)
    elif on_timeout == "fail":
        error = Failure(type="TimeoutError", message=f"{path!r} waited in vain: {message}", classes=("TimeoutError",))
        failure.fail_open(step, index, error, AttemptClass.TIMEOUT)
    else:
        try:
            output = evaluate.encoded(step.x, index, on_timeout, f"the output of {path!r} when its time is over")
        except evaluate.EVALUATION_ERRORS as error:
            failure.fail_open(step, index, evaluate.failure_of(error))
            return
        failure.complete(step, index, output, reason=message)
