"""Attempts: failures, verdicts, timers, and losses to the platform."""

from __future__ import annotations

import pytest

from wf_core import wire
from wf_core.store.codec import MOST_ATTEMPTS
from wf_core.wire import FrozenSettings
from wf_orchestrator.machine import verdicts
from wf_orchestrator.machine.effects import ClearTimer, Dispatch, Ended, SetTimer

ONE = {"nodes": {"a": {"task": "t", "params": {"n": "${{ input.n }}"}, "retry": {"max_retries": 7}}}}


def test_a_failed_attempt_asks_for_a_verdict(world):
    """A failed attempt leaves the node RETRYING with a `decide` timer that is due now, and says what to judge."""
    w = world(ONE).start({"n": 1})
    first = w.now
    outcome = w.fail("a", message="boom")
    token = f"{w.execution.id}/a/1"
    assert outcome.effects == [Ended(token, "default"), SetTimer("decide", token, w.now)]
    request = verdicts.request(w.execution, "a", 1)
    assert request is not None
    assert (request.failures, request.error.message, request.elapsed_ms) == (1, "boom", w.now - first)
    assert (request.settings.max_retries, request.settings.policy) == (7, "exponential")
    assert verdicts.request(w.execution, "a", 2) is None
    assert verdicts.request(w.execution, "nobody", 1) is None


def test_a_retry(world):
    """A verdict of a delay sets the retry timer; when it is due the next attempt goes out with the same parameters."""
    w = world(ONE).start({"n": 1})
    w.fail("a")
    outcome = w.verdict("a", 2000)
    token = f"{w.execution.id}/a/1"
    assert outcome.effects == [ClearTimer("decide", token), SetTimer("retry", token, w.now + 2000)]
    assert verdicts.request(w.execution, "a", 1) is None
    outcome = w.due("a")
    assert outcome.results == {}
    dispatches = [effect for effect in outcome.effects if isinstance(effect, Dispatch)]
    assert [(d.token, d.message.params) for d in dispatches] == [(f"{w.execution.id}/a/2", b'{"n":1}')]
    w.done("a", output=3)
    assert (w.ended, w.output, w.attempt("a")) == ("COMPLETED", 3, 2)
    assert [(a["status"], a.get("decision"), a.get("reason")) for a in w.attempts("a")] == [
        ("FAILED", "retry", "so"),
        ("COMPLETED", None, None),
    ]


def test_a_verdict_to_stop_fails_the_node(world):
    """A verdict to stop fails the node for good, with the attempt's error and the reason kept."""
    w = world(ONE).start({"n": 1})
    w.fail("a", status="TIMED_OUT", type="TimeoutError")
    w.verdict("a", None)
    assert w.ended == "FAILED"
    assert w.execution.error is not None
    assert (w.execution.error.type, w.execution.error.attempt) == ("TimeoutError", 1)
    (attempt,) = w.attempts("a")
    assert (attempt["status"], attempt["class"], attempt["decision"]) == ("TIMED_OUT", "timeout", "stop")


def test_only_the_first_verdict_counts(world):
    """A second verdict on one attempt changes nothing, whatever it says; nor does a retry timer before the verdict."""
    w = world(ONE).start({"n": 1})
    w.fail("a")
    assert not w.due("a").changed_nodes
    w.verdict("a", 10)
    assert not w.verdict("a", None).effects
    assert w.status("a") == "RETRYING"
    w.due("a")
    assert w.send(w.record(wire.Timer, timer="retry", node="a", attempt=1)).effects == []
    assert w.attempt("a") == 2


def test_a_loss_is_tried_again_at_once(world):
    """A lost attempt is followed by the next at once, on the platform's budget and not on the user's."""
    w = world(ONE).start({"n": 1})
    outcome = w.lose("a")
    assert outcome.effects[0] == Ended(f"{w.execution.id}/a/1", "default", cancel=True)
    assert w.status("a") == "QUEUED"
    assert (w.cell("a").attempt, w.cell("a").lost) == (2, 1)
    (again,) = (effect for effect in outcome.effects if isinstance(effect, Dispatch))
    assert again.message.lost == 1
    w.fail("a")
    request = verdicts.request(w.execution, "a", 2)
    assert request is not None
    assert request.failures == 1
    lost = w.attempts("a")[0]
    assert (lost["status"], lost["class"], lost["reason"]) == ("LOST", "platform", "platform retry 1 of 10")
    assert "silent for 3200 ms" in lost["error"]["message"]


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_the_platform_has_a_budget(world, budget):
    """Beyond `max_platform_retries` losses the node fails with PlatformError."""
    w = world(ONE, settings=FrozenSettings(max_platform_retries=budget)).start({"n": 1})
    for _ in range(budget):
        w.lose("a", "orphan")
        assert w.status("a") == "QUEUED"
    w.lose("a")
    assert w.ended == "FAILED"
    assert w.execution.error is not None
    assert (w.execution.error.type, w.cell("a").attempt) == ("PlatformError", budget + 1)


def test_an_attempt_cancelled_by_its_worker_is_a_loss(world):
    """A worker that reports CANCELLED for an attempt that is still wanted has lost it."""
    w = world(ONE).start({"n": 1})
    w.send(w.result("a", status="CANCELLED"))
    assert (w.status("a"), w.cell("a").lost, w.attempts("a")[0]["status"]) == ("QUEUED", 1, "LOST")


def test_withdrawn_although_wanted(world):
    """An attempt that was withdrawn although it is wanted is a loss like any other."""
    w = world(ONE).start({"n": 1})
    w.lose("a", "withdrawn")
    assert (w.status("a"), w.cell("a").attempt) == ("QUEUED", 2)


def test_an_unsendable_message_fails_the_node(world):
    """A task message that the log refuses for good fails the node, without a retry."""
    w = world(ONE).start({"n": 1})
    w.send(w.record(wire.Unsendable, node="a", attempt=1, error=wire.Failure(type="RecordTooLarge", message="too big")))
    assert (w.ended, w.attempts("a")[0]["class"]) == ("FAILED", "platform")
    assert w.execution.error is not None
    assert w.execution.error.type == "RecordTooLarge"


def test_a_result_without_an_error(world):
    """A worker that reports a failure and nothing more gives an error that says so."""
    w = world(ONE).start({"n": 1})
    w.send(w.result("a", status="EXPLODED"))
    assert w.attempts("a")[0]["error"]["message"] == "the worker said EXPLODED and no more"
    assert w.status("a") == "RETRYING"


@pytest.mark.parametrize("loss", [True, False])
def test_attempt_numbers_end(world, loss):
    """An attempt's number cannot exceed what its cell holds: then the node fails instead of starting over."""
    w = world(ONE).start({"n": 1})
    index = w.plan.index_of["a"]
    w.execution.cells[index] = w.execution.cells[index]._replace(attempt=MOST_ATTEMPTS)
    w.check = False
    if loss:
        w.lose("a")
    else:
        w.fail("a")
        w.verdict("a", 0)
    assert (w.ended, w.attempt("a")) == ("FAILED", MOST_ATTEMPTS)


def test_what_the_history_says_of_a_retry(world):
    """The history tells failures, verdicts and losses with their reasons."""
    w = world(ONE).start({"n": 1})
    w.lose("a", "drain")
    w.fail("a", message="m" * 1000)
    w.verdict("a", 5)
    kinds = [entry["kind"] for entry in w.history() if entry.get("node")]
    assert kinds == ["node.queued", "node.lost", "node.queued", "node.retrying", "node.decided"]
    assert b'"reason":"drain","silent_ms":3200,"worker":"w1"' in w.history("node.lost")[0]["data"]
    assert len(w.history("node.retrying")[0]["data"]) < 700
    assert b'"delay_ms":5' in w.history("node.decided")[0]["data"]
