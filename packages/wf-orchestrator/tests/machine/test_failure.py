"""What a failure does to the rest: halt, cancel, continue, clean-up, timeouts and internal errors."""

from __future__ import annotations

import pytest

from wf_orchestrator.machine import cascade
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import ClearTimer, Ended, SetTimer
from wf_orchestrator.machine.state import PartitionState

NODES = {
    "bad": {"task": "t"},
    "after_bad": {"task": "t", "depends_on": ["bad"]},
    "later": {"task": "t", "depends_on": ["after_bad"]},
    "other": {"task": "t"},
    "after_other": {"task": "t", "depends_on": ["other"]},
    "last": {"task": "t", "depends_on": ["after_other"]},
    "both": {"task": "t", "depends_on": ["after_bad", "other"]},
}


def test_halt(world):
    """After a failure nothing new starts and what runs finishes.

    What could not run because of the failure is UPSTREAM_FAILED, the rest CANCELLED.
    """
    w = world({"nodes": NODES}).start()
    w.fail_for_good("bad", message="boom")
    assert w.ended == "RUNNING"
    assert w.execution.error is not None
    assert (w.execution.error.node, w.execution.error.attempt) == ("bad", 1)
    assert w.status("other") == "QUEUED"
    w.done("other")
    assert w.statuses == {
        "bad": "FAILED", "after_bad": "UPSTREAM_FAILED", "later": "UPSTREAM_FAILED", "other": "COMPLETED",
        "after_other": "CANCELLED", "last": "CANCELLED", "both": "UPSTREAM_FAILED",
    }  # fmt: skip
    assert w.ended == "FAILED"
    assert (w.execution.error.type, w.execution.error.message) == ("Oops", "boom")


def test_halt_withdraws_what_no_worker_has(world):
    """A halt asks to withdraw what is in flight; an attempt withdrawn is CANCELLED and no platform failure."""
    w = world({"nodes": NODES}).start()
    outcome = w.fail_for_good("bad")
    token = f"{w.execution.id}/other/1"
    assert SetTimer("withdraw", token, w.now) in outcome.effects
    outcome = w.lose("other", "withdrawn")
    assert {Ended(token, "default", cancel=True), ClearTimer("withdraw", token)} <= set(outcome.effects)
    assert w.statuses["other"] == "CANCELLED"
    assert w.attempts("other")[0]["status"] == "CANCELLED"
    assert w.cell("other").lost == 0
    assert w.ended == "FAILED"


def test_halt_starts_no_next_attempt(world):
    """While halting, a node whose attempt is lost is CANCELLED; one that fails is FAILED without a verdict."""
    nodes = {name: {"task": "t"} for name in ("bad", "lost", "gone", "fails", "waits", "due")}
    w = world({"nodes": nodes}).start()
    w.fail("waits")
    w.fail("due")
    w.verdict("due", 100)
    outcome = w.fail_for_good("bad")
    cleared = [effect for effect in outcome.effects if isinstance(effect, ClearTimer)]
    assert ClearTimer("decide", f"{w.execution.id}/waits/1") in cleared
    assert ClearTimer("retry", f"{w.execution.id}/due/1") in cleared
    w.lose("lost")
    w.send(w.result("gone", status="CANCELLED"))
    w.fail("fails")
    assert w.statuses == {
        "bad": "FAILED", "lost": "CANCELLED", "gone": "CANCELLED", "fails": "FAILED", "waits": "CANCELLED",
        "due": "CANCELLED",
    }  # fmt: skip
    assert (w.ended, w.attempts("fails")[0]["decision"]) == ("FAILED", "stop")


@pytest.mark.parametrize("join", ["all_done", "always", "all_failed", "any_failed"])
def test_clean_up_runs_after_a_halt(world, join):
    """Nodes that join by all_done, always, all_failed or any_failed still run, and so do their successors."""
    nodes = {
        "bad": {"task": "t"},
        "never": {"task": "t", "depends_on": ["bad"]},
        "clean": {"task": "t", "depends_on": ["bad", "never"], "join": join, "retry": {"max_retries": 1}},
        "report": {"task": "t", "depends_on": ["clean"]},
        "mail": {"task": "t", "depends_on": ["report"]},
        "not_both": {"task": "t", "depends_on": ["clean", "never"]},
    }
    w = world({"nodes": nodes}).start()
    w.fail_for_good("bad")
    assert (w.status("never"), w.status("clean"), w.ended) == ("UPSTREAM_FAILED", "QUEUED", "RUNNING")
    assert not any(timer.startswith("withdraw") for timer in w.timers())
    w.lose("clean")
    w.fail("clean")
    w.verdict("clean", 5)
    w.due("clean")
    w.done("clean")
    assert w.statuses["report"] == "QUEUED"
    w.done("report", "mail")
    assert (w.status("mail"), w.status("not_both"), w.ended) == ("COMPLETED", "UPSTREAM_FAILED", "FAILED")


def test_clean_up_that_was_under_way_goes_on(world):
    """A clean-up node that is in flight or waits for a retry when the execution halts is not withdrawn."""
    nodes = {
        "a": {"task": "t"},
        "bad": {"task": "t"},
        "clean": {"task": "t", "depends_on": ["a"], "join": "always"},
        "again": {"task": "t", "depends_on": ["a"], "join": "always"},
        "next": {"task": "t", "depends_on": ["clean"]},
    }
    w = world({"nodes": nodes}).start()
    w.done("a")
    w.fail("again")
    w.fail_for_good("bad")
    assert (w.status("clean"), w.status("again")) == ("QUEUED", "RETRYING")
    w.verdict("again", None)
    w.done("clean", "next")
    assert w.ended == "FAILED"


def test_a_skipped_clean_up_lets_the_execution_end(world):
    """An any_failed node over nodes that did not fail is skipped while the execution halts."""
    nodes = {
        "bad": {"task": "t"},
        "good": {"task": "t"},
        "clean": {"task": "t", "depends_on": ["good"], "join": "any_failed"},
    }
    w = world({"nodes": nodes}).start()
    w.fail_for_good("bad")
    w.done("good")
    assert (w.status("clean"), w.ended) == ("SKIPPED", "FAILED")


def test_cancel_on_failure(world):
    """`on_failure: cancel` also cancels what runs, and clean-up still runs."""
    nodes = {**NODES, "clean": {"task": "t", "depends_on": ["other"], "join": "always"}}
    w = world({"nodes": nodes, "on_failure": "cancel"}).start()
    outcome = w.fail_for_good("bad")
    assert Ended(f"{w.execution.id}/other/1", "default", cancel=True) in outcome.effects
    assert w.statuses == {
        "bad": "FAILED", "after_bad": "UPSTREAM_FAILED", "later": "UPSTREAM_FAILED", "other": "CANCELLED",
        "after_other": "CANCELLED", "last": "CANCELLED", "both": "UPSTREAM_FAILED", "clean": "QUEUED",
    }  # fmt: skip
    w.send(w.result("other", 1, output=b"1"))
    assert w.status("other") == "CANCELLED"
    w.done("clean")
    assert w.ended == "FAILED"


def test_continue_on_failure(world):
    """`on_failure: continue` runs everything whose join still holds; then the execution is FAILED."""
    w = world({"nodes": NODES, "on_failure": "continue"}).start()
    w.fail_for_good("bad")
    w.done("other", "after_other")
    w.fail_for_good("last", type="Second")
    assert w.ended == "FAILED"
    assert w.statuses["both"] == "UPSTREAM_FAILED"
    assert w.execution.error is not None
    assert w.execution.error.type == "Oops"


def test_on_error_continue_does_not_fail_the_execution(world):
    """A node that fails under `on_error: continue` leaves the execution alone; its error is there to read."""
    nodes = {
        "bad": {"task": "t", "on_error": "continue"},
        "next": {"task": "t", "params": {"why": "${{ nodes.bad.error.type }}", "out": "${{ nodes.bad.output }}"}},
    }
    w = world({"nodes": nodes}).start()
    w.fail_for_good("bad")
    assert w.params("next") == {"why": "Oops", "out": None}
    w.done("next")
    assert (w.ended, w.execution.error) == ("COMPLETED", None)


def test_a_root_that_fails_at_once_halts_its_siblings(world):
    """Nodes that became ready in the very step in which the execution failed never start."""
    nodes = {
        "first": {"task": "t"},
        "bad": {"task": "t", "when": "input.missing"},
        "last": {"task": "t"},
        "clean": {"task": "t", "join": "always"},
    }
    w = world({"nodes": nodes}).start()
    assert w.statuses == {"first": "CANCELLED", "bad": "FAILED", "last": "CANCELLED", "clean": "QUEUED"}
    assert w.dispatched == [f"{w.execution.id}/clean/1"]


def test_document_timeout(world):
    """After its timeout an execution cancels everything, clean-up too, and is FAILED with TimeoutError."""
    nodes = {**NODES, "clean": {"task": "t", "depends_on": ["other"], "join": "always"}}
    w = world({"nodes": nodes, "timeout": "5s"}).start()
    assert w.timers() == {f"deadline|{w.execution.id}//0": w.now + 5000}
    outcome = w.deadline()
    assert Ended(f"{w.execution.id}/other/1", "default", cancel=True) in outcome.effects
    assert set(w.statuses.values()) == {"CANCELLED"}
    assert w.execution.error is not None
    assert (w.ended, w.execution.error.type) == ("FAILED", "TimeoutError")
    w.deadline()
    assert w.timers() == {}


def test_a_timeout_after_a_failure_keeps_the_first_error(world):
    """The error of an execution is its first failure, also when its time is over later."""
    w = world({"nodes": NODES, "timeout": "5s"}).start()
    w.fail_for_good("bad")
    w.deadline()
    assert w.execution.error is not None
    assert (w.ended, w.execution.error.type) == ("FAILED", "Oops")


def test_a_deadline_that_nobody_set_is_ignored(world):
    """A deadline record for a document without a timeout changes nothing."""
    w = world({"nodes": NODES}).start()
    assert not w.deadline().changed_nodes
    assert w.ended == "RUNNING"


def test_an_internal_error_ends_the_execution(world, monkeypatch):
    """An exception in decide is the outcome FAILED (InternalError): everything in flight is ended, nothing raises."""
    w = world({"nodes": NODES}).start()
    event = w.result("other", output=b"1")

    def broken(_step):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(cascade, "settle", broken)
    outcome = decide(w.partition, w.x, event, len(w.log))
    x = outcome.execution
    assert "ZeroDivisionError" in outcome.crash
    assert (str(x.status), x.error.type, x.error.message) == ("FAILED", "InternalError", "ZeroDivisionError: oh")
    ended = {effect.token.split("/")[1] for effect in outcome.effects if isinstance(effect, Ended)}
    assert ended == {"bad", "other"}
    assert x.root.left == 0


def test_a_missing_document_is_an_internal_error(world):
    """An execution whose document is not in the log is FAILED at once, and says which one is missing."""
    w = world({"nodes": NODES})
    event = w.create().log[0]
    outcome = decide(PartitionState(), None, event, 0, None)
    assert outcome.execution is not None
    assert outcome.execution.error is not None
    assert w.plan.hash in outcome.execution.error.message
    assert str(outcome.execution.status) == "FAILED"
    assert outcome.moved == (None, outcome.execution.status)
