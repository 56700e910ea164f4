"""What follows from a node's end, run to a fixed point over explicit work lists: nothing here recurses.

`settle` tells downstream nodes, asks their joins and guards, starts what may start, closes the bodies whose nodes have
all ended, and ends the execution when no node is left. Its cost is that of the edges and nodes that change.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from wf_core.states import NodeStatus, ScopeState
from wf_core.wire import Failure
from wf_orchestrator.machine import choices, ending, evaluate, failure, scopes
from wf_orchestrator.machine.joins import Answer, judge
from wf_orchestrator.machine.scope import FINAL, ROOT
from wf_orchestrator.machine.transitions import NodeEvent

if TYPE_CHECKING:
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Fate, Step

_MAY_START = (NodeStatus.PENDING, NodeStatus.WAITING, NodeStatus.RETRYING)


def start(step: Step, scope: Scope) -> None:
    """Considers every node of an opened scope that has no upstream."""
    for local, upstream in enumerate(scope.body.graph.upstream):
        if not upstream:
            consider(step, scope.base + local)


def settle(step: Step) -> None:
    """Runs the consequences of this step to their fixed point."""
    x = step.x
    while not x.status.is_terminal and _do_one(step):
        pass
    if x.status.is_terminal:
        return
    for index in step.fresh:
        if x.cells[index].status in (NodeStatus.PENDING, NodeStatus.RETRYING) and index not in step.begun:
            step.move(index, NodeEvent.HOLD)
    if step.stale:
        scopes.refresh_waiting(x)


def _do_one(step: Step) -> bool:
    """Does what comes first on the work lists; False when there is nothing to do."""
    x = step.x
    if step.ended:
        _tell_followers(step, step.ended.popleft())
    elif step.waking:
        ask(step, step.waking.popleft())
    elif step.opening:
        start(step, step.opening.popleft())
    elif step.finished:
        finish(step, step.finished.popleft())
    elif step.starting:
        _begin(step, step.starting.popleft())
    elif x.waiting and x.has_slot():
        _begin(step, heapq.heappop(x.waiting)[1])
    else:
        return False
    return True


def ask(step: Step, scope: Scope) -> None:
    """Considers every node of an open scope that has not started, and lets its containers open what they may."""
    x = step.x
    if not scope.is_open:
        return
    for index in range(scope.base, scope.end):
        status = x.cells[index].status
        if status is NodeStatus.PENDING:
            consider(step, index)
        elif status is NodeStatus.WAITING and not x.is_held(index):
            step.kind(index).advance(step, index)
    if not scope.left:
        step.finished.append(scope)


def _tell_followers(step: Step, index: int) -> None:
    scope = step.x.owner[index]
    if not scope.is_open:
        return
    choices.count_end(step.x, index)
    for follower in scope.body.graph.downstream[index - scope.base]:
        consider(step, scope.base + follower)


def _begin(step: Step, index: int) -> None:
    """Starts a node that is ready, unless it was ended after it became so."""
    x = step.x
    waits = index < x.size and x.cells[index].status in _MAY_START and x.owner[index].is_open
    if waits and ((index in step.fresh and index not in step.begun) or x.is_held(index)):
        step.begun.add(index)
        step.kind(index).begin(step, index)


def finish(step: Step, scope: Scope) -> None:
    """All nodes of a scope have ended: so does it, and its container is told."""
    x = step.x
    if not scope.is_open or scope.left:
        return
    if scope.key == ROOT:
        ending.nodes_ended(step)
        return
    if scope.key == FINAL:
        ending.finally_ended(step, scope)
        return
    state, output = _verdict(step, scope)
    step.close_scope(scope, state)
    if output is not None and not scope.body.single:
        step.keep("o:" + scope.key, output)
    if ending.is_compensation(x, scope):
        scopes.forget_values(x, scope)
        ending.compensated(step, scope)
        return
    scope.output = output
    if x.cells[scope.parent].status is NodeStatus.WAITING:
        step.kind(scope.parent).body_ended(step, scope.parent, scope)
    scopes.forget_values(x, scope)


def _verdict(step: Step, scope: Scope) -> tuple[ScopeState, bytes | None]:
    x = step.x
    fate = step.fates.get(scope.key)
    if fate is not None:
        return _take_fate(x, scope, fate)
    if scope.error is not None:
        return ScopeState.FAILED, None
    cells = [x.cells[scope.base + leaf].status for leaf in scope.body.leaves]
    if scope.halting and NodeStatus.CANCELLED in {cell.status for cell in x.cells[scope.base : scope.end]}:
        return ScopeState.CANCELLED, None
    if scope.body.output is None and all(status is NodeStatus.SKIPPED for status in cells):
        return ScopeState.SKIPPED, b"null"
    try:
        return ScopeState.COMPLETED, evaluate.output(x, scope)
    except evaluate.EVALUATION_ERRORS as error:
        scope.error = Failure(type=type(error).__name__, message=str(error), node=x.path(scope.parent))
        return ScopeState.FAILED, None


def _take_fate(x: Execution, scope: Scope, fate: Fate) -> tuple[ScopeState, bytes | None]:
    """A body that its own `end` node cancelled has failed, as its container sees it."""
    scope.error = fate.error
    if fate.state is ScopeState.CANCELLED and fate.error is None:
        message = f"{scope.key} ended itself as CANCELLED"
        scope.error = Failure(type="CancelledError", message=message, node=x.path(scope.parent))
    return (ScopeState.COMPLETED if scope.error is None else ScopeState.FAILED), fate.output


def consider(step: Step, index: int) -> None:
    """Asks the join of a node that has not started. While the execution is paused nothing is asked."""
    x = step.x
    if x.cells[index].status is not NodeStatus.PENDING or index in step.fresh or x.is_paused:
        return
    tally = x.tally_of(index)
    answer = judge(x.rule_of(index), tally)
    if answer is Answer.WAIT or (tally.is_open and choices.is_open(x, index)):
        return
    if not tally.is_open and choices.is_unchosen(x, index):
        answer = Answer.SKIP
    if not x.is_wanted(index):
        _stop(step, index, answer)
    elif answer is Answer.BLOCKED:
        step.move(index, NodeEvent.BLOCK)
        step.tell("node.upstream_failed", index)
    elif answer is Answer.SKIP:
        step.skip(index)
    else:
        _ask_expressions(step, index)


def _ask_expressions(step: Step, index: int) -> None:
    """The join expression, then the guard."""
    x, node = step.x, step.x.node(index)
    try:
        joined = isinstance(node.join, str) or evaluate.holds(x, index, node.join)
        wanted = joined and (node.when is None or evaluate.holds(x, index, node.when))
    except evaluate.EVALUATION_ERRORS as error:
        failure.reject(step, index, evaluate.failure_of(error))
        return
    if wanted:
        step.ready(index)
    else:
        step.skip(index)


def _stop(step: Step, index: int, answer: Answer) -> None:
    """Ends a node that the failure of its body keeps from starting.

    UPSTREAM_FAILED is what could not run because of a failure before it; what merely is not wanted any more, or comes
    after such a node, is CANCELLED.
    """
    if answer is Answer.SKIP:
        step.skip(index)
    elif answer is Answer.BLOCKED and _failed_before(step.x, index):
        step.move(index, NodeEvent.BLOCK)
        step.tell("node.upstream_failed", index)
    else:
        step.cancel(index, failure.HALTED)


def _failed_before(x: Execution, index: int) -> bool:
    scope = x.owner[index]
    for local in scope.body.graph.upstream[index - scope.base]:
        upstream = scope.base + local
        status = x.cells[upstream].status
        if status is NodeStatus.UPSTREAM_FAILED:
            return True
        if status is NodeStatus.FAILED and scope.node(upstream).on_error != "continue" and upstream not in x.caught:
            return True
    return False
