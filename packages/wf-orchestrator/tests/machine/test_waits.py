"""Waits: for times, for signals, for any or all of them; and approvals. They hold no slot."""

from __future__ import annotations

import json
import time

import pytest

from wf_core import wire

T = {"task": "t"}
T0 = 1_000_020
"""When the world's executions start, in Unix ms."""


def wait(**fields):
    return {"kind": "wait", **fields}


def waiting(world, document_input=None, /, **fields):
    """A wait `w`, and `next` after it, started."""
    nodes = {"w": wait(**fields), "next": {"task": "t", "params": {"got": "${{ nodes.w.output }}"}}}
    return world({"nodes": nodes}).start(document_input)


def got(w, node="next"):
    assert w.status(node) == "QUEUED"
    return w.params(node)["got"]


def due(w, node="w", kind="wait"):
    found = {member: when for member, when in w.timers().items() if member.startswith(f"{kind}|")}
    assert len(found) == 1
    return found[f"{kind}|{w.execution.token(w.execution.index_of(node))}"]


# -- times


def test_a_duration_holds_no_slot_and_gives_null(world):
    nodes = {"w": wait(duration="5s"), "next": {**T, "depends_on": ["w"]}, "other": T}
    w = world({"nodes": nodes, "max_parallel": 1}).start()
    assert w.status("w") == "WAITING"
    assert w.status("other") == "QUEUED"
    assert due(w) == T0 + 5000
    (entry,) = w.history("node.waiting")
    assert json.loads(entry["data"]) == {"signals": [], "due": T0 + 5000}
    w.done("other")
    w.timer("wait", "w")
    assert w.status("w") == "COMPLETED"
    assert not w.timers()
    w.done("next")
    assert w.ended == "COMPLETED"
    (attempt,) = w.attempts("w")
    assert attempt["status"] == "COMPLETED"
    assert attempt["ended_at"] == T0 + 5000


@pytest.mark.parametrize("given", ["1m30s", 90, "PT1M30S"])
def test_a_duration_may_come_from_a_template(world, given):
    w = waiting(world, {"long": given}, duration="${{ input.long }}")
    assert due(w) == T0 + 90_000


def test_a_duration_of_nothing_has_passed(world):
    assert got(waiting(world, {"long": 0}, duration="${{ input.long }}")) is None


def test_until_a_time(world):
    w = waiting(world, {"at": "1970-01-01T01:30:00+01:00"}, until="${{ input.at }}")
    assert due(w) == 1_800_000
    w.timer("wait", "w")
    assert got(w) is None


def test_a_time_that_is_past_has_come(world):
    w = waiting(world, until="1970-01-01T00:00:00Z")
    assert got(w) is None
    assert not w.timers()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("until", "tomorrow", 'gives "tomorrow": a time is RFC 3339 text'),
        ("until", "2026-07-01T09:00:00", "has no offset"),
        ("until", 1751360400, "gives 1751360400"),
        ("until", None, "gives null"),
        ("until", "x" * 500, "x…"),
        ("duration", "soon", 'gives "soon"'),
        ("duration", -1, "gives -1"),
        ("duration", [5], "gives [5]: a duration is a text"),
        ("duration", "99999999999d", "100 years"),
    ],
)
def test_what_is_no_time_fails_the_node_and_is_named(world, field, value, said):
    w = waiting(world, {"v": value}, **{field: "${{ input.v }}"})
    assert w.ended == "FAILED"
    assert w.execution.error.type == "ValueError"
    assert f"`{field}` of 'w'" in w.execution.error.message
    assert said in w.execution.error.message
    assert len(w.attempts("w")) == 1


def test_an_expression_that_fails_fails_the_wait(world):
    w = waiting(world, until="${{ input.nothing }}")
    assert w.ended == "FAILED"
    assert w.execution.error.type == "ExpressionError"


def test_a_timer_that_fires_early_or_twice_changes_nothing(world):
    w = waiting(world, duration="5s")
    event = w.record(wire.Timer, timer="wait", node="w", attempt=1)
    w.send(event)
    assert w.status("w") == "WAITING"
    w.timer("wait", "w")
    w.send(w.log[-1])
    assert got(w) is None
    assert len(w.history("node.completed")) == 1


# -- signals


def test_a_signal_ends_the_wait_with_its_payload(world):
    w = waiting(world, signal="paid")
    assert not w.timers()
    assert w.ended == "RUNNING"
    w.signal("other", 1)
    assert w.status("w") == "WAITING"
    w.signal("paid", {"amount": 5})
    assert got(w) == {"amount": 5}
    told = [json.loads(entry["data"]) for entry in w.history("execution.signalled")]
    assert [(one["name"], one["consumed_by"]) for one in told] == [("other", None), ("paid", "w")]


def test_a_signal_that_came_early_is_kept(world):
    w = world(
        {"nodes": {"first": T, "w": wait(signal="go", depends_on=["first"]), "w2": wait(signal="go", depends_on=["w"])}}
    )
    w.create()
    w.signal("go", "before the start")
    w.trigger()
    w.signal("go", "before the wait")
    assert [signal.payload for signal in w.execution.signals] == [b'"before the start"', b'"before the wait"']
    w.done("first")
    assert w.ended == "COMPLETED"
    assert not w.execution.signals
    assert w.output == "before the wait"
    assert json.loads(w.store.get(w.keys.results(w.execution.id))["o:w"]) == "before the start"
    assert len(w.history("node.signalled")) == 2


def test_each_signal_is_taken_by_one_wait_the_one_that_waits_longest(world):
    nodes = {"late": wait(signal="go", depends_on=["t"]), "b": wait(signal="go"), "a": wait(signal="go"), "t": T}
    w = world({"nodes": nodes}).start()
    w.done("t")
    ended = []
    for _ in range(3):
        w.signal("go")
        ended += [n for n in ("a", "b", "late") if w.status(n) == "COMPLETED" and n not in ended]
    order = sorted(("a", "b"), key=w.execution.index_of)
    assert ended == [*order, "late"]


def test_a_copy_of_a_signal_changes_nothing(world):
    nodes = {"a": wait(signal="go"), "b": wait(signal="go", depends_on=["a"])}
    w = world({"nodes": nodes}).start()
    w.signal("go", 1, command="one")
    w.signal("go", 1, command="one")
    assert w.status("b") == "WAITING"
    assert not w.execution.signals
    assert [effect.field for effect in w.last.effects] == [f"{w.execution.id}/signal:one"]
    w.signal("go", 2, command="two")
    assert w.ended == "COMPLETED"


def test_copies_are_known_among_a_thousand_signals(world):
    w = world({"nodes": {"a": T}}, check=False).start()
    for n in range(900):
        w.signal("s", n, command=f"c{n}")
    for n in (0, 450, 899):
        w.signal("s", n, command=f"c{n}")
    assert len(w.execution.signals) == 900


def test_only_signals_that_match_are_taken(world):
    w = waiting(world, {"id": 7}, signal="paid", match="payload.order == input.id && payload.ok")
    w.signal("paid", {"order": 6, "ok": True})
    w.signal("paid", {"order": 7, "ok": False})
    assert w.status("w") == "WAITING"
    assert not w.history("node.unmatched")
    w.signal("paid", {"order": 7, "ok": True})
    assert got(w) == {"order": 7, "ok": True}
    assert len(w.execution.signals) == 2


def test_a_kept_signal_must_match_too(world):
    w = world({"nodes": {"first": T, "w": wait(signal="go", match="payload > 1", depends_on=["first"])}}).start()
    for n in (1, 2, 3):
        w.signal("go", n)
    w.done("first")
    assert w.output == 2
    assert [signal.payload for signal in w.execution.signals] == [b"1", b"3"]


def test_a_match_that_fails_leaves_the_signal_and_is_told_once(world):
    nodes = {
        "a": wait(signal="go", match="payload.n > 1"),
        "b": wait(signal="go", match="payload.n > 1"),
        "any": wait(signal="go", depends_on=["t"]),
        "late": wait(signal="go", match="payload.n > 2", depends_on=["t"]),
        "t": T,
    }
    w = world({"nodes": nodes}).start()
    w.signal("go", {"m": 1}, command="odd")
    (entry,) = w.history("node.unmatched")
    told = json.loads(entry["data"])
    assert told["command"] == "odd"
    assert told["name"] == "go"
    assert "payload.n > 1" in told["error"]
    assert len(w.execution.signals) == 1
    w.done("t")
    assert w.status("any") == "COMPLETED"
    assert w.status("a") == w.status("late") == "WAITING"
    assert not w.execution.signals


def test_a_payload_that_is_no_json_matches_nothing(world):
    w = waiting(world, signal="go", match="payload == 1")
    w.send(w.record(wire.Signalled, id="bad", name="go", payload=b"{"))
    assert w.status("w") == "WAITING"
    assert "is no JSON" in json.loads(w.history("node.unmatched")[0]["data"])["error"]


def test_signals_beyond_the_bound_are_dropped_and_may_come_again(world):
    nodes = {"first": T, "w": wait(signal="s", depends_on=["first"]), "last": T}
    w = world({"nodes": nodes}, check=False).start()
    for n in range(1000):
        w.signal("s", n, command=f"c{n}")
    outcome = w.signal("s", 1000, command="last")
    assert [entry.kind for entry in outcome.history] == ["execution.signal_dropped"]
    assert len(w.execution.signals) == 1000
    w.done("first")
    assert len(w.execution.signals) == 999
    w.signal("s", 1000, command="last")
    assert len(w.execution.signals) == 1000


def test_the_payloads_that_are_kept_are_bounded(world):
    w = world({"nodes": {"first": T}}, check=False).start()
    for _ in range(16):
        w.signal("s", "x" * (2**18 - 2))
    outcome = w.signal("s", "")
    assert [entry.kind for entry in outcome.history] == ["execution.signal_dropped"]
    assert len(w.execution.signals) == 16


def test_an_execution_that_has_ended_takes_no_signals(world):
    w = waiting(world, signal="go")
    w.cancel()
    outcome = w.signal("go")
    assert not w.execution.signals
    assert [effect.field.partition("/")[2].partition(":")[0] for effect in outcome.effects] == ["signal"]
    assert not outcome.history


# -- any and all


def test_any_ends_with_the_first_and_says_which(world):
    terms = [{"signal": "yes"}, {"signal": "no", "match": "payload > 1"}, {"duration": "1m"}]
    w = waiting(world, any=terms)
    w.signal("no", 1)
    w.signal("no", 2)
    assert got(w) == {"by": "no", "payload": 2}
    assert not w.timers()

    w = waiting(world, any=terms)
    w.timer("wait", "w")
    assert got(w) == {"by": "duration", "payload": None}


def test_any_takes_what_is_there_in_the_order_of_the_document(world):
    w = world(
        {"nodes": {"w": wait(any=[{"signal": "b"}, {"signal": "a"}, {"until": "1970-01-01T00:00:00Z"}])}}
    ).create()
    w.signal("a", 1)
    w.signal("b", 2)
    w.trigger()
    assert w.output == {"by": "b", "payload": 2}
    assert len(w.execution.signals) == 1


def test_all_ends_with_the_last_and_gives_each_by_name(world):
    terms = [{"signal": "a"}, {"duration": "10s"}, {"signal": "b"}, {"until": "1970-01-01T00:30:00Z"}]
    w = waiting(world, all=terms, timeout="1h")
    assert due(w) == T0 + 10_000
    w.signal("b", 1)
    w.signal("b", 2)
    assert len(w.execution.signals) == 1
    w.timer("wait", "w")
    assert due(w) == 1_800_000
    w.timer("wait", "w")
    assert due(w) == T0 + 3_600_000
    w.signal("a", "x")
    assert got(w) == {"a": "x", "duration": None, "b": 1, "until": None}
    assert not w.timers()
    assert "w:w" not in w.store.get(w.keys.results(w.execution.id))


def test_all_without_a_timeout_needs_no_timer_once_its_times_have_come(world):
    w = waiting(world, all=[{"signal": "a"}, {"duration": "10s"}])
    w.timer("wait", "w")
    assert not w.timers()
    w.signal("a", 1)
    assert got(w) == {"a": 1, "duration": None}


# -- timeouts


def test_a_wait_in_vain_fails(world):
    w = waiting(world, signal="go", timeout="5s")
    w.timer("wait", "w")
    assert w.ended == "FAILED"
    assert w.execution.error.type == "TimeoutError"
    assert "no 'go' within 5 s" in w.execution.error.message
    assert w.attempts("w")[0]["class"] == "timeout"
    assert not w.timers()


def test_a_timeout_may_be_caught(world):
    nodes = {
        "w": wait(signal="go", timeout="5s", catch=[{"errors": ["TimeoutError"], "to": "late"}]),
        "late": T,
    }
    w = world({"nodes": nodes}).start()
    w.timer("wait", "w")
    w.done("late")
    assert w.ended == "COMPLETED"


def test_a_wait_in_vain_may_skip(world):
    nodes = {"w": wait(signal="go", timeout="5s", on_timeout="skip"), "next": {**T, "depends_on": ["w"]}}
    w = world({"nodes": nodes}).start()
    w.timer("wait", "w")
    assert w.statuses == {"w": "SKIPPED", "next": "SKIPPED"}
    assert w.ended == "COMPLETED"


def test_a_wait_in_vain_may_give_a_value(world):
    w = waiting(world, {"n": 4}, signal="go", timeout="5s", on_timeout={"value": {"n": "${{ input.n }}"}})
    w.timer("wait", "w")
    assert got(w) == {"n": 4}


def test_a_value_that_cannot_be_evaluated_fails(world):
    w = waiting(world, signal="go", timeout="5s", on_timeout={"value": "${{ input.nothing }}"})
    w.timer("wait", "w")
    assert w.execution.error.type == "ExpressionError"


def test_what_comes_before_the_timeout_counts_when_both_are_past(world):
    w = waiting(world, any=[{"duration": "5s"}, {"signal": "a"}], timeout="6s", on_timeout="skip")
    w.now += 60_000
    w.timer("wait", "w")
    assert got(w) == {"by": "duration", "payload": None}
    w = waiting(world, any=[{"duration": "6s"}, {"signal": "a"}], timeout="5s", on_timeout="skip")
    w.now += 60_000
    w.timer("wait", "w")
    assert w.status("w") == "SKIPPED"


def test_a_wait_is_tried_again_only_by_its_own_retry(world):
    w = waiting(world, signal="go", timeout="5s", retry={"max_retries": 2})
    w.timer("wait", "w")
    assert w.status("w") == "RETRYING"
    w.signal("go", "between")
    w.verdict("w", 100)
    w.due("w")
    assert got(w) == "between"
    assert [attempt["status"] for attempt in w.attempts("w")] == ["TIMED_OUT", "COMPLETED"]


def test_the_second_attempt_counts_its_time_anew(world):
    w = waiting(world, signal="go", timeout="5s", retry={"max_retries": 2})
    w.timer("wait", "w")
    w.verdict("w", 100)
    w.due("w")
    assert due(w) == w.now + 5000
    w.timer("wait", "w")
    w.verdict("w", None)
    assert w.ended == "FAILED"


# -- control


def test_cancel_ends_waits_and_their_timers(world):
    nodes = {"w": wait(any=[{"signal": "a"}, {"duration": "1h"}]), "q": {"kind": "approval", "timeout": "1h"}}
    w = world({"nodes": nodes}).start()
    w.cancel()
    assert w.statuses == {"w": "CANCELLED", "q": "CANCELLED"}
    assert not w.timers()
    assert not w.execution.listeners
    w.signal("a")
    w.answer("q", 1)
    assert w.ended == "CANCELLED"


def test_halt_cancels_waits_at_once(world):
    nodes = {"w": wait(signal="a"), "q": {"kind": "approval"}, "bad": T}
    w = world({"nodes": nodes}).start()
    w.fail_for_good("bad")
    assert w.ended == "FAILED"
    assert w.statuses == {"w": "CANCELLED", "q": "CANCELLED", "bad": "FAILED"}


def test_a_wait_that_cleans_up_goes_on_under_halt(world):
    nodes = {"w": wait(signal="a", join="all_done", depends_on=["bad"]), "bad": T}
    w = world({"nodes": nodes}).start()
    w.fail_for_good("bad")
    assert w.ended == "RUNNING"
    w.signal("a")
    assert w.ended == "FAILED"
    assert w.status("w") == "COMPLETED"


def test_a_pause_lets_waits_end_and_starts_nothing_after_them(world):
    nodes = {
        "w": wait(signal="a"),
        "d": wait(duration="5s"),
        "q": {"kind": "approval"},
        "next": wait(signal="b", depends_on=["w", "d", "q"]),
    }
    w = world({"nodes": nodes}).start()
    w.pause()
    w.signal("a")
    w.signal("b")
    w.timer("wait", "d")
    w.answer("q", "yes")
    assert w.statuses == {"w": "COMPLETED", "d": "COMPLETED", "q": "COMPLETED", "next": "PENDING"}
    assert w.ended == "PAUSED"
    w.resume()
    assert w.ended == "COMPLETED"


def test_a_retry_that_falls_due_in_a_pause_waits_for_its_end(world):
    w = waiting(world, signal="go", timeout="5s", retry={"max_retries": 2})
    w.timer("wait", "w")
    w.verdict("w", 100)
    w.pause()
    w.due("w")
    assert w.status("w") == "WAITING"
    w.signal("go", 1)
    assert len(w.execution.signals) == 1
    w.resume()
    assert got(w) == 1


def test_an_execution_that_is_retried_waits_again_and_finds_what_was_kept(world):
    w = waiting(world, signal="go", timeout="5s", match="payload == 2")
    w.signal("go", 1)
    w.timer("wait", "w")
    assert w.ended == "FAILED"
    assert len(w.execution.signals) == 1
    w.retry()
    assert w.status("w") == "WAITING"
    assert w.attempt("w") == 2
    w.signal("go", 2)
    assert got(w) == 2


# -- inside bodies


def test_waits_in_a_map_take_signals_by_item(world):
    body = {"w": wait(signal="done", match="payload.id == item"), "t": {**T, "depends_on": ["w"]}}
    w = world({"nodes": {"m": {"kind": "map", "items": [1, 2, 3], "nodes": body, "output": "${{ nodes.w.output }}"}}})
    w.start()
    for n in (3, 1, 2):
        w.signal("done", {"id": n})
        assert w.status(f"m[{n - 1}]/w") == "COMPLETED"
        w.done(f"m[{n - 1}]/t")
    assert w.ended == "COMPLETED"


def test_a_loop_of_waits_uses_its_cells_again(world):
    body = {"w": wait(any=[{"signal": "tick"}, {"duration": "1s"}], timeout="1m")}
    loop = {"kind": "loop", "until": "iteration == 5", "max_iterations": 10, "keep_last": 1, "nodes": body}
    w = world({"nodes": {"l": loop}}).start()
    for n in range(6):
        if n % 2:
            w.timer("wait", f"l#{n}/w")
        else:
            w.signal("tick", n)
    assert w.ended == "COMPLETED"
    assert w.output == {"by": "duration", "payload": None}
    assert not [name for name in w.store.get(w.keys.results(w.execution.id)) if name.startswith("w:")]


def test_a_loop_finishes_its_kept_signals_in_one_step(world):
    body = {"w": wait(signal="tick")}
    loop = {"kind": "loop", "until": "last == 49", "max_iterations": 100, "keep_last": 1, "nodes": body}
    w = world({"nodes": {"first": T, "l": {**loop, "depends_on": ["first"]}}}).start()
    for n in range(50):
        w.signal("tick", n)
    w.done("first")
    assert w.ended == "COMPLETED"
    assert not w.execution.signals


def test_a_container_that_ends_ends_its_waits(world):
    body = {"w": wait(all=[{"signal": "a"}, {"duration": "1h"}])}
    w = world({"nodes": {"m": {"kind": "map", "items": [1, 2], "nodes": body, "timeout": "5s"}}}).start()
    w.timer("timeout", "m")
    assert w.ended == "FAILED"
    assert not w.timers()


def test_waits_in_finally(world):
    w = world({"nodes": {"a": T}, "finally": {"w": wait(signal="a", timeout="5s"), "q": {"kind": "approval"}}}).start()
    w.signal("a")
    w.done("a")
    assert w.status("w") == "COMPLETED"
    w.answer("q", 1)
    assert w.ended == "COMPLETED"


def test_many_waits_for_one_signal(world, record_property):
    """A signal costs the same however many wait for it, as long as the first one takes it."""
    body = {"w": wait(signal="go")}
    w = world({"nodes": {"m": {"kind": "map", "items": list(range(5000)), "nodes": body}}}, check=False).start()
    begun = time.perf_counter()
    for n in range(5000):
        w.signal("go", n)
    spent = (time.perf_counter() - begun) / 5000 * 1e6
    record_property("µs_per_signal", round(spent))
    assert w.ended == "COMPLETED"
    assert w.output == list(range(5000))
    assert spent < 2000


# -- approvals


def asking(world, document_input=None, /, **fields):
    nodes = {"q": {"kind": "approval", **fields}, "next": {"task": "t", "params": {"got": "${{ nodes.q.output }}"}}}
    return world({"nodes": nodes}).start(document_input)


def test_an_approval_shows_what_it_asks_and_gives_the_answer(world):
    schema = {"type": "object", "required": ["ok"]}
    w = asking(world, {"who": ["ann", "bob"]}, schema=schema, assignees="${{ input.who }}")
    assert w.params("q") == {"assignees": ["ann", "bob"], "schema": schema}
    (entry,) = w.history("node.waiting")
    assert json.loads(entry["data"]) == {"assignees": ["ann", "bob"], "due": None}
    w.answer("q", {"ok": True}, by="ann")
    assert got(w) == {"ok": True}
    (entry,) = w.history("node.answered")
    assert json.loads(entry["data"])["by"] == "ann"


@pytest.mark.parametrize(("given", "names"), [("ann", ["ann"]), ([], [])])
def test_assignees_are_a_list_of_names(world, given, names):
    assert asking(world, {"who": given}, assignees="${{ input.who }}").params("q")["assignees"] == names


@pytest.mark.parametrize("given", [5, None, [1], {"a": 1}])
def test_assignees_that_are_no_names_fail_the_approval(world, given):
    w = asking(world, {"who": given}, assignees="${{ input.who }}")
    assert w.execution.error.type == "TypeError"
    assert "`assignees` of 'q'" in w.execution.error.message


def test_an_answer_counts_once_and_for_the_attempt_that_asks(world):
    w = asking(world, timeout="5s", retry={"max_retries": 1})
    w.timer("approval", "q")
    assert w.status("q") == "RETRYING"
    w.answer("q", "late")
    w.verdict("q", 100)
    w.due("q")
    w.answer("q", "for the first", attempt=1)
    w.answer("next", "no approval")
    w.answer("nobody", "unknown")
    assert w.status("q") == "WAITING"
    w.answer("q", "yes", attempt=2, command="a")
    w.answer("q", "no", command="b")
    assert got(w) == "yes"
    assert not w.timers()
    assert [effect.field for effect in w.last.effects] == [f"{w.execution.id}/answer:b"]
    assert "b" not in dict(w.execution.commands)


def test_a_copy_of_an_answer_does_not_answer_the_next_pass(world):
    loop = {"kind": "loop", "until": "iteration == 1", "max_iterations": 3, "nodes": {"q": {"kind": "approval"}}}
    w = world({"nodes": {"l": loop}}).start()
    w.answer("l#0/q", 1, command="a")
    w.answer("l#1/q", 1, command="a")
    assert w.status("l#1/q") == "WAITING"


@pytest.mark.parametrize(
    ("on_timeout", "status", "ended"),
    [("fail", "FAILED", "FAILED"), ("skip", "SKIPPED", "COMPLETED"), ({"value": False}, "COMPLETED", "COMPLETED")],
)
def test_an_approval_that_nobody_answers(world, on_timeout, status, ended):
    w = world({"nodes": {"q": {"kind": "approval", "timeout": "1d", "on_timeout": on_timeout}}}).start()
    assert due(w, "q", "approval") == T0 + 86_400_000
    w.timer("approval", "q")
    assert w.status("q") == status
    assert w.ended == ended
    if status == "FAILED":
        assert "no answer within" in w.execution.error.message
