"""Times that are over, and the budgets of what was lost."""

from __future__ import annotations

import pytest

from wf_core import wire
from wf_orchestrator.machine import verdicts


def one(**fields):
    return {"nodes": {"a": {"task": "t", **fields}}}


def test_an_attempt_that_no_worker_takes(world):
    """An attempt unclaimed for `queue_timeout` is TIMED_OUT and asks the policy, on the user's budget."""
    w = world(one(queue_timeout="5s", queue="gpu", retry={"max_retries": 1})).start()
    token = f"{w.execution.id}/a/1"
    assert w.timers() == {f"queue|{token}": w.now + 5_000}
    w.lose("a", "queue_timeout")
    (attempt,) = w.attempts("a")
    assert (attempt["status"], attempt["class"], attempt["error"]["type"]) == (
        "TIMED_OUT",
        "timeout",
        "QueueTimeoutError",
    )
    assert attempt["error"]["message"] == "no worker took attempt 1 from the queue 'gpu' within 5 s"
    assert verdicts.request(w.execution, "a", 1).failures == 1
    w.verdict("a", 0)
    w.due("a")
    w.done("a")
    assert (w.ended, w.timers()) == ("COMPLETED", {})


def test_all_attempts_together(world):
    """`total_timeout` counts from the first attempt; when it is over the running attempt is cancelled for good."""
    w = world(one(total_timeout="1m")).start()
    begun = w.now
    w.fail("a")
    w.verdict("a", 1000)
    w.due("a")
    assert w.timers() == {f"total|{w.execution.id}/a/1": begun + 60_000}
    outcome = w.timer("total", "a", 1)
    assert [effect.cancel for effect in outcome.effects if type(effect).__name__ == "Ended"] == [True]
    assert (w.ended, w.execution.error.type) == ("FAILED", "TimeoutError")
    assert "total_timeout" in w.execution.error.message
    assert [a["status"] for a in w.attempts("a")] == ["FAILED", "TIMED_OUT"]


@pytest.mark.parametrize("delay", [None, 1000])
def test_all_attempts_together_during_a_retry(world, delay):
    """The time may be over while the node waits: for the verdict, or for its next attempt."""
    w = world(one(total_timeout="1m")).start()
    w.fail("a")
    if delay:
        w.verdict("a", delay)
    w.timer("total", "a", 1)
    assert (w.ended, w.timers()) == ("FAILED", {})


def test_all_attempts_together_of_a_held_one(world):
    """The time may be over while the next attempt is held; the node is held no more."""
    w = world({"max_parallel": 1, "nodes": {**one(total_timeout="1m")["nodes"], "b": {"task": "t"}}}).start()
    w.fail("a")
    w.verdict("a", 0)
    w.due("a")
    assert w.status("a") == "WAITING"
    w.timer("total", "a", 1)
    assert (w.status("a"), w.execution.waiting) == ("FAILED", [])


def test_the_total_starts_afresh_with_a_retry_of_the_execution(world):
    """A late timer of the first run says nothing about the second."""
    w = world(one(total_timeout="1m")).start()
    w.fail_for_good("a")
    w.retry()
    assert not w.timer("total", "a", 1).changed_nodes
    assert set(w.timers()) == {f"total|{w.execution.id}/a/2"}
    w.timer("total", "a", 2)
    assert w.ended == "FAILED"


def test_the_time_of_a_container(world):
    """`timeout` of a map ends what is inside it; `retry` of its own may try it again."""
    node = {"kind": "map", "items": [1, 2], "nodes": {"x": {"task": "t"}}, "timeout": "1m", "retry": {"max_retries": 1}}
    w = world({"nodes": {"m": node}}).start()
    assert w.timers() == {f"timeout|{w.execution.id}/m/1": w.now + 60_000}
    w.timer("timeout", "m")
    assert (w.status("m"), w.status("m[0]/x"), verdicts.request(w.execution, "m", 1).error.type) == (
        "RETRYING",
        "CANCELLED",
        "TimeoutError",
    )
    w.verdict("m", 0)
    w.due("m")
    assert set(w.timers()) == {f"timeout|{w.execution.id}/m/2"}
    w.timer("timeout", "m", 1)
    w.done("m[0]/x", "m[1]/x")
    assert (w.ended, w.timers()) == ("COMPLETED", {})


def test_the_total_of_a_container(world):
    """`total_timeout` holds for containers too."""
    node = {"kind": "loop", "while": "true", "max_iterations": 9, "nodes": {"x": {"task": "t"}}, "total_timeout": "1m"}
    w = world({"nodes": {"l": node}}).start()
    w.done("l#0/x")
    w.timer("total", "l", 1)
    assert (w.ended, w.status("l#1/x")) == ("FAILED", "CANCELLED")


def test_crashes_have_a_budget_of_their_own(world):
    """Attempts whose process ended use neither the platform's budget nor the user's."""
    w = world(one(), settings=wire.FrozenSettings(max_crash_retries=1, max_platform_retries=1)).start()
    w.lose("a", "dead")
    w.lose("a", "crash")
    w.fail("a")
    assert verdicts.request(w.execution, "a", 3).failures == 1
    w.verdict("a", 0)
    w.due("a")
    w.lose("a", "crash")
    assert (w.ended, w.execution.error.type) == ("FAILED", "CrashError")
    assert [(a.get("class"), a.get("reason")) for a in w.attempts("a")] == [
        ("platform", "platform retry 1 of 1"),
        ("crash", "crash retry 1 of 1"),
        ("user", "so"),
        ("crash", "all 1 crash retries are used"),
    ]
    assert w.cell("a").lost == 3
