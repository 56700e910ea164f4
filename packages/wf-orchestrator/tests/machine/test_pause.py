"""`pause` and `resume`: what runs finishes, nothing starts."""

from __future__ import annotations

import pytest

from wf_core import wire

CHAIN = {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}, "c": {"task": "t"}}}


def test_what_runs_finishes_and_nothing_starts(world):
    """Results are folded while an execution is paused; what they make ready is started by `resume`."""
    w = world(CHAIN).start()
    w.pause("lunch")
    assert w.ended == "PAUSED"
    w.done("a")
    assert w.statuses == {"a": "COMPLETED", "b": "PENDING", "c": "QUEUED"}
    w.resume()
    assert (w.ended, w.status("b")) == ("RUNNING", "QUEUED")
    w.done("b", "c")
    assert w.ended == "COMPLETED"
    assert [entry["kind"] for entry in w.history() if entry["kind"].startswith("execution.")] == [
        "execution.created",
        "execution.triggered",
        "execution.paused",
        "execution.resumed",
        "execution.ended",
    ]


def test_commands_are_obeyed_once_and_only_where_they_mean_something(world):
    """A copy of a pause changes nothing after the resume; what is paused is not paused, what runs not resumed."""
    w = world(CHAIN).start()
    assert not w.resume(command="early").moved
    w.pause()
    assert not w.pause(command="again").moved
    w.resume()
    assert not w.pause(command="p").moved
    assert w.ended == "RUNNING"


def test_due_retries_are_held(world):
    """A verdict and a retry timer are folded during a pause; the attempt itself waits for the resume."""
    w = world({"nodes": {"a": {"task": "t"}}}).start()
    w.pause()
    w.fail("a")
    w.verdict("a", 100)
    w.due("a")
    assert (w.status("a"), w.attempt("a"), w.execution.is_held(0)) == ("WAITING", 1, True)
    w.resume()
    assert (w.status("a"), w.attempt("a")) == ("QUEUED", 2)


def test_a_loss_is_held(world):
    """A lost attempt is not repeated before the resume."""
    w = world({"nodes": {"a": {"task": "t"}}}).start()
    w.pause()
    w.lose("a")
    assert (w.status("a"), w.attempt("a"), w.cell("a").lost) == ("WAITING", 1, 1)
    w.resume()
    assert (w.status("a"), w.attempt("a"), w.cell("a").lost) == ("QUEUED", 2, 1)


def test_the_end_of_what_runs_may_be_the_end_of_all(world):
    """A paused execution whose last node completes is COMPLETED; the timeout of the execution goes on counting."""
    w = world({"nodes": {"a": {"task": "t"}}}).start()
    w.pause()
    w.done("a", output=1)
    assert (w.ended, w.output) == ("COMPLETED", 1)
    w = world({"timeout": "1m", "nodes": {"a": {"task": "t"}}}).start()
    w.pause()
    w.deadline()
    assert (w.ended, w.status("a")) == ("FAILED", "CANCELLED")


def test_a_paused_execution_can_be_cancelled(world):
    """A cancel ends a paused execution."""
    w = world(CHAIN).start()
    w.pause()
    w.cancel()
    assert w.ended == "CANCELLED"


def test_finally_waits_for_the_resume(world):
    """`finally` is not begun during a pause."""
    w = world({"nodes": {"a": {"task": "t"}}, "finally": {"z": {"task": "t"}}}).start()
    w.pause()
    w.done("a")
    assert (w.ended, w.status("z")) == ("PAUSED", "PENDING")
    w.resume()
    w.done("z")
    assert w.ended == "COMPLETED"


def test_compensation_waits_for_the_resume(world):
    """What is to be undone is not begun during a pause."""
    nodes = {"a": {"task": "t", "compensate": {"task": "u"}}, "b": {"task": "t", "depends_on": ["a"]}}
    w = world({"nodes": nodes}).start()
    w.done("a")
    w.pause()
    w.fail_for_good("b")
    assert "a~compensate" not in w.statuses
    w.resume()
    w.done("a~compensate")
    assert w.ended == "FAILED"


def test_bodies_are_opened_after_the_pause(world):
    """A map opens no item, and a loop no pass, while the execution is paused."""
    nodes = {
        "m": {"kind": "map", "items": [1, 2], "task": "t", "max_parallel": 1},
        "l": {"kind": "loop", "until": "iteration == 1", "max_iterations": 3, "nodes": {"x": {"task": "t"}}},
    }
    w = world({"nodes": nodes}).start()
    w.pause()
    w.done("m[0]", "l#0/x")
    assert set(w.statuses) == {"m", "l", "m[0]", "l#0/x"}
    w.resume()
    w.done("m[1]", "l#1/x")
    assert w.ended == "COMPLETED"


def test_what_takes_no_slot_is_not_kept_by_slots(world):
    """After a pause a switch starts at once although `max_parallel` leaves no slot: only tasks wait for one."""
    nodes = {
        "a": {"task": "t"},
        "b": {"task": "t"},
        "s": {"kind": "switch", "depends_on": ["a"], "cases": [{"when": "true", "to": ["d"]}], "default": ["d"]},
        "d": {"task": "t"},
    }
    w = world({"max_parallel": 1, "nodes": nodes}).start()
    w.pause()
    w.done("a")
    w.resume()
    assert w.statuses == {"a": "COMPLETED", "b": "QUEUED", "s": "COMPLETED", "d": "WAITING"}


@pytest.mark.parametrize("what", ["pause", "retry", "crash"])
def test_a_release_with_the_first_rules_only_leaves_it_alone(world, what):
    """What that release knows nothing of takes an execution out of its hands: it would lose results."""
    w = world({"nodes": {"a": {"task": "t"}}})
    w.send(w.record(wire.Created, id="c", document=w.plan.hash, name="test", labels={"team": "a"}, rules=1))
    w.trigger()
    if what == "pause":
        w.pause()
    elif what == "crash":
        w.lose("a", "crash")
    else:
        w.lose("a")
        w.fail_for_good("a")
        assert w.execution.rules == 1
        w.retry()
    assert w.execution.rules == 2
