"""What a watcher knows: folded from executions, nodes and events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from wf_core.cli.commands.look import _attempt_lines
from wf_core.cli.follow import event_line, failure_lines
from wf_core.cli.view import RunView, new_view, progress_text
from wf_core.client import Attempt, Event, Execution, Failure, NodeItem, NodeSummary

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(kind: str, status: str, node: str = "a", attempt: int = 1, **data) -> Event:
    """An event about a node."""
    return Event(seq="1-0", ts=NOW, kind=kind, node=node, attempt=attempt, status=status, data=data or None)


@pytest.fixture
def view() -> RunView:
    """Two nodes, the second after the first."""
    graph = SimpleNamespace(names=("a", "b"), levels=(0, 1), upstream=((), (0,)))
    execution = Execution(execution_id="0" * 28, name="n", status="RUNNING", started_at=NOW)
    return new_view(execution, {"a": "t", "b": "u"}, graph)


def test_events_move_nodes(view):
    """Events about nodes say where they stand and when they ended; what nobody knows is ignored."""
    view.apply(event("node.queued", "QUEUED"))
    started = round((NOW - timedelta(seconds=2)).timestamp() * 1000)
    view.apply(event("node.completed", "COMPLETED", started_at=started))
    view.apply(event("node.queued", "QUEUED", node="nowhere"))
    view.apply(event("node.invented", "INVENTED", node="b"))
    assert view.counts() == {"COMPLETED": 1, "PENDING": 1}
    assert view.nodes[0].ended - view.nodes[0].started == timedelta(seconds=2)


def test_running_is_taken_from_the_server(view):
    """What runs now is what the server says; what no longer runs waits until an event says more."""
    view.update_running([NodeItem(node="a", status="RUNNING", worker="w1", attempts=1)])
    assert (view.nodes[0].status, view.nodes[0].worker) == ("RUNNING", "w1")
    view.update_running([])
    assert view.nodes[0].status == "QUEUED"


def test_summaries(view):
    """The nodes that come with an execution are taken over."""
    view.update_summaries({"b": NodeSummary(status="SKIPPED"), "later": NodeSummary(status="PENDING")})
    assert view.nodes[1].status == "SKIPPED"


def test_compensations_stand_with_their_nodes(view):
    """They are heard of from the server's lists and from events, until a retry begins their nodes again."""
    view.update_summaries({"a": NodeSummary(status="COMPLETED"), "a~compensate": NodeSummary(status="FAILED")})
    assert (view.nodes[0].undo.name, view.nodes[0].undo.status) == ("a~compensate", "FAILED")
    view.update_summaries({"a": NodeSummary(status="QUEUED")})
    assert view.nodes[0].undo is None
    view.update_nodes([NodeItem(node="b~compensate", status="RUNNING", worker="w1", attempts=1)])
    view.apply(event("node.completed", "COMPLETED", node="b~compensate"))
    assert (view.nodes[1].undo.status, view.nodes[1].undo.worker) == ("COMPLETED", "w1")
    view.apply(event("node.queued", "QUEUED", node="b", attempt=2))
    assert view.nodes[1].undo is None


def test_lost_worker_is_a_line():
    """A lost worker is told with the reason and the platform's budget."""
    lost = event("node.lost", "QUEUED", worker="w1", reason="dead", silent_ms=3200, lost=1, limit=10)
    assert event_line(lost, {}) == "a: worker w1 lost (silent 3.2 s) → platform retry 1/10"
    ended = event("node.lost", "QUEUED", worker="w1", reason="dead", silent_ms=0, lost=2, limit=10)
    assert event_line(ended, {}) == "a: worker w1 lost (the process that ran it ended) → platform retry 2/10"
    how = "its process was ended by signal 9 (SIGKILL)"
    crash = event("node.lost", "QUEUED", worker="w1", reason="crash", detail=how, silent_ms=0, lost=2, limit=10)
    assert event_line(crash, {}) == f"a: worker w1 lost ({how}) → platform retry 2/10"
    orphan = event("node.lost", "QUEUED", worker="", reason="orphan", silent_ms=0, lost=1, limit=10)
    assert event_line(orphan, {}) == "a: attempt 1 lost (nobody claimed it) → platform retry 1/10"


def test_last_loss_is_a_line():
    """A loss beyond the platform's budget is not announced as another retry."""
    lost = event("node.lost", "QUEUED", attempt=11, worker="w1", reason="dead", silent_ms=3200, lost=11, limit=10)
    assert event_line(lost, {}) == "a: worker w1 lost (silent 3.2 s) → gives up (all 10 platform retries are used)"


def test_retry_is_a_line():
    """A failed attempt and the decision about it make one line."""
    errors: dict[str, str] = {}
    failed = event("node.retrying", "RETRYING", type="IOError", message="disk\nmore", worker="w")
    assert event_line(failed, errors) is None
    decided = event("node.decided", "RETRYING", decision="retry", delay_ms=2000, reason="retry 1 of 3")
    assert event_line(decided, errors) == "a: attempt 1 failed, IOError: disk → tries again in 2.0s (retry 1 of 3)"
    assert errors == {}


def test_no_more_retries_is_a_line():
    """Giving up is told with its reason."""
    decided = event("node.decided", "RETRYING", decision="stop", delay_ms=None, reason="fatal")
    assert event_line(decided, {"a": "E"}) == "a: attempt 1 failed, E → gives up (fatal)"


def test_failure_of_a_node(view):
    """A failed execution names the node, its attempts, the error and where to look."""
    view.nodes[0].attempts = 4
    failed = Execution(
        execution_id="0" * 28,
        name="n",
        status="FAILED",
        started_at=NOW,
        ended_at=NOW + timedelta(seconds=90),
        error=Failure(type="TimeoutError", message="30 s", node="a", attempt=4),
    )
    assert failure_lines(failed, view, lambda node: f"look at {node}") == [
        "n FAILED after 1m30s",
        "  a failed after 4 attempts: TimeoutError: 30 s",
        "  look at a",
    ]


def test_failure_of_the_whole(view):
    """An execution that failed as a whole has no node to name."""
    failed = Execution(
        execution_id="0" * 28, name="n", status="FAILED", error=Failure(type="TimeoutError", message="too long")
    )
    assert failure_lines(failed, view, str) == ["n FAILED", "  TimeoutError: too long"]


def test_failure_inside_a_container(view):
    """A failure that began inside a container names the inner node and where to look at it."""
    error = Failure(type="E", message="m", node="a[3]/one", attempt=2)
    failed = Execution(execution_id="0" * 28, name="n", status="FAILED", error=error)
    assert failure_lines(failed, view, lambda node: f"look at {node}") == [
        "n FAILED",
        "  a[3]/one failed after 2 attempts: E: m",
        "  look at a[3]/one",
    ]


@pytest.mark.parametrize(
    ("kind", "progress", "text"),
    [
        ("map", {"total": 100, "ended": 40, "failed": 0}, "40/100"),
        ("map", {"total": None, "ended": 0, "failed": 2}, "0/?  2 failed"),
        ("loop", {"total": 5, "pass": 0}, "pass 1 of at most 5"),
        ("loop", {"total": 5, "pass": None}, ""),
        ("task", "half", "half"),
        ("task", {"rows": 7}, '{"rows": 7}'),
        ("task", "x" * 61, "x" * 57 + "..."),
        ("task", None, ""),
    ],
)
def test_progress_as_text(kind, progress, text):
    """How far a container is, or what a task reported, on few characters."""
    assert progress_text(kind, progress) == text


def test_failure_inside_a_container_in_its_own_words(view):
    """What the inner node said is told, and not what its map says of it."""
    error = Failure(type="E", message="1 of 3 items failed; a[3]: m", node="a[3]/one", attempt=2)
    failed = Execution(execution_id="0" * 28, name="n", status="FAILED", error=error)
    assert failure_lines(failed, view, str, Failure(type="E", message="m"))[1] == (
        "  a[3]/one failed after 2 attempts: E: m"
    )


def test_an_attempt_from_the_cache():
    """`wf node` says so, though nothing was decided."""
    found = Attempt(attempt=1, status="COMPLETED", started_at=NOW, ended_at=NOW, reason="from the cache")
    assert _attempt_lines(found)[1:] == ["  -> from the cache"]
    given_up = Attempt(attempt=1, status="FAILED", decision="stop", reason="all 3 retries are used")
    assert _attempt_lines(given_up)[1:] == ["  -> stop: all 3 retries are used"]
