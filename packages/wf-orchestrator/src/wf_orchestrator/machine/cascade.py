"""What follows from a node's end, run to a fixed point over explicit work lists: nothing here recurses.

`settle` tells downstream nodes, asks their joins and guards, starts what may start, and ends the execution when no node
is left. Its cost is that of the edges and nodes that change.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from wf_core import ids
from wf_core.states import AttemptClass, AttemptStatus, ExecutionStatus, NodeStatus
from wf_core.store.codec import AttemptRecord
from wf_core.wire import Failure
from wf_orchestrator.machine import evaluate
from wf_orchestrator.machine.effects import ClearTimer
from wf_orchestrator.machine.joins import Answer, judge
from wf_orchestrator.machine.step import summary
from wf_orchestrator.machine.transitions import ExecutionEvent, NodeEvent

if TYPE_CHECKING:
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

_HALTED = "nothing new starts after the failure of the execution"


def start(step: Step) -> None:
    """Considers every node without upstream."""
    for index, upstream in enumerate(step.x.plan_of().graph.upstream):
        if not upstream:
            consider(step, index)


def settle(step: Step) -> None:
    """Runs the consequences of this step to their fixed point."""
    x = step.x
    downstream = x.plan_of().graph.downstream
    while True:
        while step.ended:
            index = step.ended.popleft()
            x.count_end(index)
            for follower in downstream[index]:
                consider(step, follower)
        if not (x.waiting and x.has_slot()):
            break
        begin(step, heapq.heappop(x.waiting)[1])
    for index in step.fresh:
        if x.cells[index].status in (NodeStatus.PENDING, NodeStatus.RETRYING):
            step.move(index, NodeEvent.HOLD)
    if x.left == 0:
        finish(step)


def consider(step: Step, index: int) -> None:
    """Asks the join of a node that has not started."""
    x = step.x
    if x.cells[index].status is not NodeStatus.PENDING or index in step.fresh:
        return
    rule = x.rule_of(index)
    answer = judge(rule, x.tally_of(index))
    if answer is Answer.WAIT:
        return
    if not x.is_wanted(index):
        _stop(step, index, answer)
    elif answer is Answer.BLOCKED:
        step.move(index, NodeEvent.BLOCK)
        step.tell("node.upstream_failed", index)
    elif answer is Answer.SKIP:
        _skip(step, index)
    else:
        _ask_expressions(step, index)


def _ask_expressions(step: Step, index: int) -> None:
    """The join expression, then the guard."""
    x, node = step.x, step.x.node(index)
    try:
        joined = isinstance(node.join, str) or evaluate.holds(x, node.join)
        wanted = joined and (node.when is None or evaluate.holds(x, node.when))
    except evaluate.EVALUATION_ERRORS as error:
        reject(step, index, evaluate.failure_of(error))
        return
    if wanted:
        step.ready(index)
    else:
        _skip(step, index)


def _skip(step: Step, index: int) -> None:
    step.move(index, NodeEvent.SKIP)
    step.tell("node.skipped", index)


def _stop(step: Step, index: int, answer: Answer) -> None:
    """Ends a node that the failure of the execution keeps from starting.

    UPSTREAM_FAILED is what could not run because of a failure before it; what merely is not wanted any more, or comes
    after such a node, is CANCELLED.
    """
    if answer is Answer.SKIP:
        _skip(step, index)
    elif answer is Answer.BLOCKED and _failed_before(step.x, index):
        step.move(index, NodeEvent.BLOCK)
        step.tell("node.upstream_failed", index)
    else:
        step.cancel(index, _HALTED)


def _failed_before(x: Execution, index: int) -> bool:
    for upstream in x.plan_of().graph.upstream[index]:
        status = x.cells[upstream].status
        if status is NodeStatus.UPSTREAM_FAILED:
            return True
        if status is NodeStatus.FAILED and x.node(upstream).on_error != "continue":
            return True
    return False


def begin(step: Step, index: int) -> None:
    """Dispatches the next attempt of a ready node; parameters are evaluated for the first one only."""
    params = step.x.inputs.get(index)
    if params is None:
        try:
            params = evaluate.params(step.x, index)
        except evaluate.EVALUATION_ERRORS as error:
            reject(step, index, evaluate.failure_of(error))
            return
    step.dispatch(index, params)


def reject(step: Step, index: int, error: Failure) -> None:
    """Fails a node before any worker saw it: its first attempt is recorded without one."""
    record = AttemptRecord(
        attempt=1,
        status=AttemptStatus.FAILED,
        class_=AttemptClass.USER,
        queued_at=step.now,
        ended_at=step.now,
        error=error,
        decision="stop",
        reason="the document fails here; another attempt would fail the same way",
    )
    step.record(index, record)
    give_up(step, index, error, attempt=1)


def give_up(  # noqa: PLR0913 - what is said of the failure
    step: Step, index: int, error: Failure, *, attempt: int | None = None, lost: int | None = None, worker: str = ""
) -> None:
    """Fails a node for good, and with it the execution unless the document says otherwise."""
    x, node = step.x, step.x.node(index)
    step.move(index, NodeEvent.GIVE_UP, attempt=attempt, lost=lost)
    told = Failure(type=error.type, message=error.message, node=node.id, attempt=x.cells[index].attempt)
    if x.is_kept(index):
        x.errors[index] = told
    step.tell("node.failed", index, {**summary(error), "worker": worker})
    if node.on_error == "continue" or x.error is not None:
        return
    x.error = told
    step.touch("error")
    step.tell("execution.failing", index, summary(error))
    on_failure = x.plan_of().on_failure
    if on_failure != "continue":
        _halt(step, on_failure)


def _halt(step: Step, how: str) -> None:
    """From now on only clean-up starts. What is in flight is withdrawn if no worker has it, or cancelled."""
    x = step.x
    x.wanted = _wanted(x)
    x.halting = how
    step.touch("halting", "wanted")
    for index, cell in enumerate(x.cells):
        if cell.status.is_terminal or x.is_wanted(index):
            continue
        if cell.status is NodeStatus.QUEUED and how == "halt":
            step.set_timer("withdraw", index, step.now)
        elif cell.status is not NodeStatus.PENDING or index in step.fresh:
            step.cancel(index, _HALTED)
    x.waiting = [entry for entry in x.waiting if x.is_wanted(entry[1])]
    heapq.heapify(x.waiting)


def _wanted(x: Execution) -> bytes:
    """The clean-up nodes that have not ended, and all that comes after them and has not started."""
    graph = x.plan_of().graph
    work = [i for i, cell in enumerate(x.cells) if not cell.status.is_terminal and x.rule_of(i).cleans_up]
    bits = bytearray(len(x.cells) + 7 >> 3)
    for index in work:
        bits[index >> 3] |= 1 << (index & 7)
    while work:
        for follower in graph.downstream[work.pop()]:
            if bits[follower >> 3] >> (follower & 7) & 1 or x.cells[follower].status is not NodeStatus.PENDING:
                continue
            bits[follower >> 3] |= 1 << (follower & 7)
            work.append(follower)
    return bytes(bits)


def finish(step: Step) -> None:
    """Every node has ended: so does the execution."""
    x = step.x
    event = ExecutionEvent.FAIL
    if x.error is None:
        try:
            x.output = evaluate.output(x)
            event = ExecutionEvent.COMPLETE
            step.touch("output")
        except evaluate.EVALUATION_ERRORS as error:
            x.error = Failure(type=type(error).__name__, message=str(error))
            step.touch("error")
    end(step, event)


def end_all(step: Step, reason: str) -> None:
    """Ends every node at once; the history lists those that had started."""
    for index, cell in enumerate(step.x.cells):
        if not cell.status.is_terminal:
            step.cancel(index, reason, tell=cell.status is not NodeStatus.PENDING)
    step.ended.clear()


def end(step: Step, event: ExecutionEvent) -> None:
    """Ends the execution, whose nodes have all ended."""
    x = step.x
    if x.status is ExecutionStatus.RUNNING and (x.plan is None or x.plan.timeout_ms is not None):
        step.effect(ClearTimer("deadline", ids.token(x.id, "", 0)))
    step.turn(event)
    x.ended_at = step.now
    step.touch("ended_at")
    step.tell("execution.ended", None, summary(x.error) if x.error else None)
    x.forget()
