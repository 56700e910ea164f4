"""Failures, in the order of the remedies: retry, `catch`, `on_error`, and then the body that the node is in.

A body that failed stops by the document's `on_failure`, and once its nodes have ended its container hears of it
(`scopes.finish`): a map may tolerate it, anything else fails in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wf_core.states import AttemptClass, AttemptStatus, NodeStatus
from wf_core.store.codec import AttemptRecord
from wf_core.wire import Failure
from wf_orchestrator.machine import choices, compensation, scopes
from wf_orchestrator.machine.effects import StopTails
from wf_orchestrator.machine.scope import ROOT
from wf_orchestrator.machine.step import summary
from wf_orchestrator.machine.transitions import NodeEvent

if TYPE_CHECKING:
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

HALTED = "nothing new starts after the failure of the execution"
_FATAL = "the document fails here; another attempt would fail the same way"


def reject(step: Step, index: int, error: Failure) -> None:
    """Fails a node that was not begun: an attempt is recorded that no worker saw."""
    attempt = step.x.cells[index].attempt + 1
    record = AttemptRecord(
        attempt=attempt,
        status=AttemptStatus.FAILED,
        class_=AttemptClass.USER,
        queued_at=step.now,
        ended_at=step.now,
        error=error,
        decision="stop",
        reason=_FATAL,
    )
    step.record(index, record)
    give_up(step, index, error, attempt=attempt)


def complete(step: Step, index: int, output: bytes, *, reason: str = "") -> None:
    """The open attempt of a node that no worker runs gave `output` (JSON)."""
    cell = step.x.cells[index]
    record = AttemptRecord(
        attempt=cell.attempt,
        status=AttemptStatus.COMPLETED,
        queued_at=cell.time_ms,
        started_at=cell.time_ms,
        ended_at=step.now,
        reason=reason,
    )
    step.drop_timeouts(index)
    finish_completed(step, index, record, output)
    step.tell("node.completed", index, {"started_at": cell.time_ms, "ended_at": step.now})


def finish_completed(step: Step, index: int, record: AttemptRecord, output: bytes) -> None:
    """Ends a node with its output; the caller tells the history."""
    x = step.x
    step.record(index, record)
    step.keep("o:" + x.path(index), output)
    if x.is_kept(index):
        x.outputs[index] = output
    step.move(index, NodeEvent.COMPLETE)
    node = x.node(index)
    if node.kind != "task":
        scopes.end_inside(step, index, "its container has ended")
        scopes.drop_attempts(x, index)
    if node.compensate is not None:
        compensation.remember(step, index)


def skip_open(step: Step, index: int, reason: str) -> None:
    """The open attempt of a node ends as skipped: a wait or an approval whose time is over, where that is said."""
    cell = step.x.cells[index]
    record = AttemptRecord(
        attempt=cell.attempt, status=AttemptStatus.CANCELLED, queued_at=cell.time_ms, ended_at=step.now, reason=reason
    )
    step.drop_timeouts(index)
    step.record(index, record)
    step.move(index, NodeEvent.SKIP)
    scopes.end_inside(step, index, reason)
    step.tell("node.skipped", index, {"reason": reason})


def fail_open(
    step: Step, index: int, error: Failure, class_: AttemptClass = AttemptClass.USER, *, drop: bool = False
) -> None:
    """The open attempt of a node that no worker runs failed; its policy is asked when the node itself says `retry`.

    `drop`: something of it may still go on (its time is over, say), and is ended.
    """
    x, node, cell = step.x, step.x.node(index), step.x.cells[index]
    if drop:
        step.kind(index).drop(step, index, error.message)
    step.drop_timeouts(index)
    scopes.end_inside(step, index, "its container has failed")
    x.inputs.pop(index, None)
    x.values.pop(("i", index), None)
    timed_out = class_ is AttemptClass.TIMEOUT
    asks = node.own_retry and x.is_wanted(index) and not error.fatal
    stop = "" if asks else _FATAL if error.fatal else "the node has no `retry` of its own"
    record = AttemptRecord(
        attempt=cell.attempt,
        status=AttemptStatus.TIMED_OUT if timed_out else AttemptStatus.FAILED,
        class_=class_,
        queued_at=cell.time_ms,
        started_at=cell.time_ms,
        ended_at=step.now,
    )
    fail_attempt(step, index, record, error, stop)


def fail_attempt(step: Step, index: int, record: AttemptRecord, error: Failure, stop: str) -> None:
    """Keeps an attempt that failed of `error`, and asks the retry policy what follows.

    `stop` says why it is not asked, and the node fails for good; "" when it is.
    """
    record = msgspec.structs.replace(record, error=error, decision="stop" if stop else "", reason=stop)
    step.record(index, record)
    if stop:
        give_up(step, index, error, worker=record.worker)
        return
    step.move(index, NodeEvent.ASK)
    step.set_timer("decide", index, step.now)
    said = {"worker": record.worker, "attempt_status": str(record.status)}
    step.tell("node.retrying", index, {**summary(error), **said})


def give_up(  # noqa: PLR0913 - what is said of the failure
    step: Step, index: int, error: Failure, *, attempt: int | None = None, lost: int | None = None, worker: str = ""
) -> None:
    """Fails a node for good, and with it the body that it is in unless the document says otherwise."""
    x, node = step.x, step.x.node(index)
    step.move(index, NodeEvent.GIVE_UP, attempt=attempt, lost=lost)
    scopes.drop_attempts(x, index)
    told = told_of(x, index, error)
    if x.is_kept(index):
        x.errors[index] = told
    step.tell("node.failed", index, {**summary(error), "worker": worker})
    catch = choices.catch_of(x, index, error)
    if catch is not None:
        x.caught[index] = catch.to
        step.tell("node.caught", index, {"to": x.path(x.owner[index].base + catch.to)})
    elif node.on_error != "continue":
        fail_scope(step, x.owner[index], told)


def told_of(x: Execution, index: int, error: Failure) -> Failure:
    """A node's failure as others see it: where it began, without the traceback, with the classes for a `catch`."""
    return Failure(
        type=error.type,
        message=error.message,
        node=error.node or x.path(index),
        attempt=x.cells[index].attempt if error.node is None else error.attempt,
        classes=error.classes if x.node(index).catch else (),
    )


def fail_scope(step: Step, scope: Scope, error: Failure) -> None:
    """A failure counts for a body: its first one, and what it does to the other nodes."""
    x = step.x
    if scope.error is not None:
        return
    scope.error = Failure(type=error.type, message=error.message, node=error.node, attempt=error.attempt)
    step.touch_scope(scope)
    if scope.key == ROOT and x.error is None:
        x.error = scope.error
        step.touch("error")
        step.tell("execution.failing", None, summary(error))
    on_failure = x.plan_of().on_failure
    if on_failure != "continue":
        halt(step, scope, on_failure)


def halt(step: Step, scope: Scope, how: str) -> None:
    """From now on only clean-up starts in a body, and in those inside it.

    What is in flight is withdrawn if no worker has it, or cancelled, as `how` says.
    """
    x = step.x
    if how == "halt":
        step.effect(StopTails(x.id))
    work = [scope]
    while work:
        one = work.pop()
        if one.halting or not one.is_open:
            continue
        one.wanted = _wanted(x, one)
        one.halting = how
        step.touch_scope(one)
        for index in range(one.base, one.end):
            if not x.cells[index].status.is_terminal and not one.is_wanted(index):
                work += _halt_node(step, index, how)


def _halt_node(step: Step, index: int, how: str) -> list[Scope]:
    """Stops a node that is not wanted any more; the bodies inside it that go on until what runs has ended."""
    x = step.x
    status = x.cells[index].status
    if status is NodeStatus.QUEUED and how == "halt":
        step.set_timer("withdraw", index, step.now)
    elif how == "halt" and status is NodeStatus.WAITING and not x.is_held(index):
        under_halt = step.kind(index).under_halt
        open_scopes = [inner for inner in x.inside.get(index, {}).values() if inner.is_open]
        if under_halt == "cancel" or (under_halt == "inside" and not open_scopes):
            scopes.cancel(step, index, HALTED)
        return open_scopes
    elif status is not NodeStatus.PENDING or index in step.fresh:
        scopes.cancel(step, index, HALTED)
    return []


def _wanted(x: Execution, scope: Scope) -> bytes:
    """The clean-up nodes that have not ended, and all that comes after them and has not started."""
    graph, base = scope.body.graph, scope.base
    work = [
        index - base
        for index in range(base, scope.end)
        if not x.cells[index].status.is_terminal and x.rule_of(index).cleans_up
    ]
    bits = bytearray(len(scope.body.nodes) + 7 >> 3)
    for local in work:
        bits[local >> 3] |= 1 << (local & 7)
    while work:
        for follower in graph.downstream[work.pop()]:
            if bits[follower >> 3] >> (follower & 7) & 1 or x.cells[base + follower].status is not NodeStatus.PENDING:
                continue
            bits[follower >> 3] |= 1 << (follower & 7)
            work.append(follower)
    return bytes(bits)
