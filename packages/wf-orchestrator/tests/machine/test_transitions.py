"""The tables say what can happen, and nothing else can."""

from __future__ import annotations

import pytest

from wf_core import wire
from wf_core.states import ExecutionStatus, NodeStatus
from wf_orchestrator.machine.transitions import (
    EXECUTION,
    LISTENING,
    NODE,
    ExecutionEvent,
    NodeEvent,
    TransitionError,
    next_execution,
    next_node,
)

E, N = NodeEvent, NodeStatus
NODE_ROWS = {
    (N.PENDING, E.HOLD): N.WAITING,
    (N.PENDING, E.DISPATCH): N.QUEUED,
    (N.PENDING, E.BEGIN): N.QUEUED,
    (N.PENDING, E.SKIP): N.SKIPPED,
    (N.PENDING, E.BLOCK): N.UPSTREAM_FAILED,
    (N.PENDING, E.GIVE_UP): N.FAILED,
    (N.PENDING, E.CANCEL): N.CANCELLED,
    (N.PENDING, E.OPEN): N.WAITING,
    (N.WAITING, E.OPEN): N.WAITING,
    (N.WAITING, E.COMPLETE): N.COMPLETED,
    (N.WAITING, E.ASK): N.RETRYING,
    (N.WAITING, E.SKIP): N.SKIPPED,
    (N.RETRYING, E.OPEN): N.WAITING,
    (N.WAITING, E.DISPATCH): N.QUEUED,
    (N.WAITING, E.GIVE_UP): N.FAILED,
    (N.WAITING, E.CANCEL): N.CANCELLED,
    (N.QUEUED, E.HOLD): N.WAITING,
    (N.QUEUED, E.DISPATCH): N.QUEUED,
    (N.QUEUED, E.COMPLETE): N.COMPLETED,
    (N.QUEUED, E.ASK): N.RETRYING,
    (N.QUEUED, E.GIVE_UP): N.FAILED,
    (N.QUEUED, E.CANCEL): N.CANCELLED,
    (N.RETRYING, E.HOLD): N.WAITING,
    (N.RETRYING, E.DISPATCH): N.QUEUED,
    (N.RETRYING, E.GIVE_UP): N.FAILED,
    (N.RETRYING, E.CANCEL): N.CANCELLED,
}
X, S = ExecutionEvent, ExecutionStatus
EXECUTION_ROWS = {
    (S.PENDING, X.TRIGGER): S.RUNNING,
    (S.PENDING, X.CANCEL): S.CANCELLED,
    (S.PENDING, X.CRASH): S.FAILED,
    (S.RUNNING, X.COMPLETE): S.COMPLETED,
    (S.RUNNING, X.FAIL): S.FAILED,
    (S.RUNNING, X.CANCEL): S.CANCELLED,
    (S.RUNNING, X.CRASH): S.FAILED,
    (S.RUNNING, X.PAUSE): S.PAUSED,
    (S.PAUSED, X.RESUME): S.RUNNING,
    (S.PAUSED, X.COMPLETE): S.COMPLETED,
    (S.PAUSED, X.FAIL): S.FAILED,
    (S.PAUSED, X.CANCEL): S.CANCELLED,
    (S.PAUSED, X.CRASH): S.FAILED,
    (S.COMPLETED, X.RETRY): S.RUNNING,
    (S.FAILED, X.RETRY): S.RUNNING,
    (S.CANCELLED, X.RETRY): S.RUNNING,
}


@pytest.mark.parametrize("event", list(NodeEvent))
@pytest.mark.parametrize("status", list(NodeStatus))
def test_node_table(status, event):
    """Every pair of node status and event is either a known row or impossible."""
    expected = NODE_ROWS.get((status, event))
    if expected is None:
        with pytest.raises(TransitionError):
            next_node(status, event)
    else:
        assert next_node(status, event) is expected


@pytest.mark.parametrize("event", list(ExecutionEvent))
@pytest.mark.parametrize("status", list(ExecutionStatus))
def test_execution_table(status, event):
    """Every pair of execution status and event is either a known row or impossible."""
    expected = EXECUTION_ROWS.get((status, event))
    if expected is None:
        with pytest.raises(TransitionError):
            next_execution(status, event)
    else:
        assert next_execution(status, event) is expected


def test_tables_are_whole():
    """Each status has a row; one that has ended has an empty one, save that a `retry` starts an execution again."""
    assert set(NODE) == set(NodeStatus)
    assert set(EXECUTION) == set(ExecutionStatus)
    assert all(not NODE[status] for status in NodeStatus if status.is_terminal)
    assert all(set(EXECUTION[status]) == {X.RETRY} for status in ExecutionStatus if status.is_terminal)


REACH = {
    "PENDING": lambda w: w.done("first"),
    "WAITING": lambda w: w.done("first", "second"),
    "QUEUED": lambda w: w.done("first", "second", "holder"),
    "RETRYING": lambda w: (w.done("first", "second", "holder"), w.fail("node")),
    "COMPLETED": lambda w: w.done("first", "second", "holder", "node"),
    "FAILED": lambda w: (w.done("first", "second", "holder"), w.fail_for_good("node")),
    "SKIPPED": lambda w: w.done("first", "second", output="skip"),
    "UPSTREAM_FAILED": lambda w: (w.done("first"), w.fail_for_good("second")),
    "CANCELLED": lambda w: (w.done("first"), w.cancel()),
}
"""How `node` gets into each status that is ever stored."""


def records(w, attempt):
    yield w.result("node", attempt, output=b"1")
    yield w.result("node", attempt, status="FAILED", error=wire.Failure(type="T", message="m"))
    yield w.result("node", attempt, status="TIMED_OUT", error=wire.Failure(type="T", message="m"))
    yield w.result("node", attempt, status="CANCELLED")
    yield w.record(wire.Lost, node="node", attempt=attempt, reason="dead")
    yield w.record(wire.Decision, node="node", attempt=attempt, delay_ms=None, reason="", policy="p")
    yield w.record(wire.Unsendable, node="node", attempt=attempt, error=wire.Failure(type="T", message="m"))
    yield w.record(wire.Timer, timer="retry", node="node", attempt=attempt)
    yield w.record(wire.Timer, timer="nonsense", node="node", attempt=attempt)
    yield w.record(wire.Expanded, node="node", attempt=attempt, document=b"{}")
    yield w.record(wire.Cached, node="node", attempt=attempt, output=b"1")
    yield w.record(wire.Expired)


def is_ignored(outcome):
    changes = (outcome.changed_nodes, outcome.changed_fields, outcome.results, outcome.effects, outcome.history)
    return not any(changes) and outcome.moved is None


def reached(world, status):
    nodes = {
        "first": {"task": "t"},
        "second": {"task": "t", "depends_on": ["first"]},
        "holder": {"task": "t", "depends_on": ["first", "second"], "priority": 9, "join": "all_done"},
        "node": {"task": "t", "depends_on": ["second"], "when": "nodes.second.output != 'skip'"},
        "other": {"task": "t", "depends_on": ["holder"], "join": "all_done"},
    }
    w = world({"nodes": nodes, "max_parallel": 1, "on_failure": "continue"}).start()
    REACH[status](w)
    assert w.status("node") == status
    return w


@pytest.mark.parametrize("kind", range(12))
@pytest.mark.parametrize("status", list(REACH))
def test_records_that_a_status_does_not_hear_change_nothing(world, status, kind):
    """Every record about a node whose status does not listen to it is ignored, also for the current attempt.

    A WAITING node that is held listens to nothing: what it would hear is about an attempt that is open.
    """
    w = reached(world, status)
    event = list(records(w, w.attempt("node")))[kind]
    if status != NodeStatus.WAITING and LISTENING.get(event.__struct_config__.tag) == status:
        assert w.send(event).changed_nodes
        return
    outcome = w.send(event)
    assert is_ignored(outcome)


@pytest.mark.parametrize("kind", range(12))
@pytest.mark.parametrize("attempt", [0, 2, 7])
def test_records_about_another_attempt_change_nothing(world, attempt, kind):
    """An event for an attempt that is not the node's current one is stale, whatever the status."""
    for status in REACH:
        w = reached(world, status)
        if w.attempt("node") == attempt:
            continue
        outcome = w.send(list(records(w, attempt))[kind])
        assert is_ignored(outcome)
