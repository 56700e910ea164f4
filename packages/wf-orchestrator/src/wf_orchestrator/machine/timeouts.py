"""Times that are over, other than that of an attempt on a worker (the worker keeps it) and of the execution.

`timeout`   (timer of the attempt)         an attempt that no worker runs: bodies, a child
`queue`     (timer of the attempt)         no worker took it in time: the shell withdraws it and says so by `lost`
`total`     (timer of the first attempt)   all attempts of a node together
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wf_core.sentences import lasting
from wf_core.states import AttemptClass, AttemptStatus, NodeStatus
from wf_core.store.codec import AttemptRecord
from wf_core.wire import Failure
from wf_orchestrator.machine import cascade, failure

if TYPE_CHECKING:
    from wf_core.wire import Timer
    from wf_orchestrator.machine.step import Step

UNCLAIMED = "queue_timeout"
"""Reason of the `lost` record of an attempt that no worker took in time."""
_TOTAL = "the time of all attempts together (total_timeout) is over"


def attempt_over(step: Step, index: int) -> None:
    """The time of an attempt is over that no worker runs: what is inside it ends, and its policy may have it again."""
    x, timeout_ms = step.x, step.x.node(index).timeout_ms
    if x.is_held(index) or timeout_ms is None:
        return
    message = f"attempt {x.cells[index].attempt} of {x.path(index)!r} did not end within {lasting(timeout_ms)}"
    error = Failure(type="TimeoutError", message=message)
    failure.fail_open(step, index, error, AttemptClass.TIMEOUT, drop=True)


def unclaimed(step: Step, index: int) -> None:
    """No worker took an attempt in time, and now none can: a failure like any other."""
    x, node, cell = step.x, step.x.node(index), step.x.cells[index]
    within = lasting(node.queue_timeout_ms or 0)
    message = f"no worker took attempt {cell.attempt} from the queue {node.queue!r} within {within}"
    error = Failure(type="QueueTimeoutError", message=message, classes=("QueueTimeoutError", "TimeoutError"))
    step.leave(index)
    record = AttemptRecord(
        attempt=cell.attempt,
        status=AttemptStatus.TIMED_OUT,
        class_=AttemptClass.TIMEOUT,
        queued_at=cell.time_ms,
        ended_at=step.now,
    )
    failure.fail_attempt(step, index, record, error, "" if x.is_wanted(index) else failure.HALTED)


def total_over(step: Step, event: Timer) -> None:
    """All attempts of a node took too long together: it fails for good, whatever it is doing."""
    x = step.x
    index = x.index_of(event.node) if x.is_live else None
    if index is None or x.cells[index].status.is_terminal or x.first_of_era(index) != event.attempt:
        return
    total_ms, status = x.node(index).total_timeout_ms, x.cells[index].status
    if total_ms is None or status is NodeStatus.PENDING:
        return
    message = f"the attempts of {x.path(index)!r} did not end within {lasting(total_ms)} together (total_timeout)"
    error = Failure(type="TimeoutError", message=message, fatal=True)
    if status is NodeStatus.WAITING and not x.is_held(index):
        failure.fail_open(step, index, error, AttemptClass.TIMEOUT, drop=True)
    else:
        attempt = _stop_attempt(step, index, error)
        failure.give_up(step, index, error, attempt=attempt)
    cascade.settle(step)


def _stop_attempt(step: Step, index: int, error: Failure) -> int:
    """Ends what a node is doing that holds no bodies; its last attempt, which was begun or would have been the next."""
    cell = step.x.cells[index]
    running = cell.status is NodeStatus.QUEUED
    if running:
        step.leave(index, cancel=True)
    elif cell.status is NodeStatus.RETRYING:
        step.drop_retry(index, _TOTAL)
    else:
        step.stale = True
    attempt = cell.attempt if running else cell.attempt + 1
    record = AttemptRecord(
        attempt=attempt,
        status=AttemptStatus.TIMED_OUT,
        class_=AttemptClass.TIMEOUT,
        queued_at=cell.time_ms if running else step.now,
        ended_at=step.now,
        error=error,
        decision="stop",
        reason=_TOTAL,
    )
    step.record(index, record)
    return attempt
