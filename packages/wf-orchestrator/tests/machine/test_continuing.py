"""Continuations: what a worker may go on with by itself, and what becomes of what it began."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wf_core import wire
from wf_core.continuing import next_of
from wf_core.store import ops as operations
from wf_orchestrator.machine import continuing
from wf_orchestrator.machine.effects import Begun, Dispatch, Ended, StopTails
from wf_orchestrator.machine.snapshot import to_ops

T: dict[str, Any] = {"task": "t"}
CHAIN = {
    "a": {"task": "t"},
    "b": {"task": "u", "depends_on": ["a"], "params": {"x": "${{ nodes.a.output }}"}},
    "c": {"task": "t", "depends_on": ["b"]},
}


def chain(count: int, **fields: Any) -> dict[str, Any]:
    """So many nodes in a row."""
    return {f"n{i}": {**T, **fields, "depends_on": [f"n{i - 1}"] if i else []} for i in range(count)}


def after(*upstream: str, **fields: Any) -> dict[str, Any]:
    return {**T, "depends_on": list(upstream), **fields}


# --- what a tail holds


def test_a_tail_is_what_waits_for_nothing_else(world):
    """A task message names the nodes that follow, with all that a worker needs to begin them."""
    nodes = {
        "z": T,
        "a": after("z"),
        "b": after("a", task="u", params={"x": ["${{ nodes.z.output.k }}", "${{ input.n }}"]}, timeout="2s"),
        "c": after("b", params={"x": 1}, heartbeat="3s"),
    }
    w = world({"nodes": nodes}).start({"n": 4})
    w.done("z", output={"k": 5})
    message = w.message("a")
    assert message.id == "a"
    assert message.then == wire.Tail(
        following=(
            wire.Following(
                node="b", attempt=1, id="b", task="u", template=True, timeout_ms=2000,
                params=b'{"x":["${{ nodes.z.output.k }}","${{ input.n }}"]}',
            ),
            wire.Following(node="c", attempt=1, id="c", task="t", params=b'{"x":1}', heartbeat_ms=3000),
        ),
        limit=continuing.LONGEST_PARAMS,
        nodes={"z": b'{"output":{"k": 5},"status":"COMPLETED","error":null}'},
        input=b'{"n": 4}',
    )  # fmt: skip


def test_messages_without_a_tail_are_as_before(world):
    """A node that nothing follows, or that something else holds up, goes out as it always did."""
    w = world({"nodes": {"a": T, "b": T, "c": after("a", "b")}}).start()
    for node in ("a", "b"):
        assert w.message(node).then is None
        assert b"then" not in wire.encode(w.message(node))
        assert w.message(node).id == ""


NOT_BEGUN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("it is in another queue", {"queue": "slow"}, {}),
    ("it has a priority of its own", {"priority": 9}, {}),
    ("its join asks for more than success", {"join": "all_done"}, {}),
    ("it has a guard", {"when": "1 == 1"}, {}),
    ("it is looked up in the cache", {"cache": {"key": "k"}}, {}),
    ("it may wait for so long only", {"queue_timeout": "1m"}, {}),
    ("all of its attempts together have a time", {"total_timeout": "1m"}, {}),
    ("its parameters name the execution", {"params": {"x": "${{ execution.id }}"}}, {}),
    ("something is to be undone", {"compensate": {"task": "undo"}}, {}),
    ("so many attempts may be in flight", {}, {"max_parallel": 5}),
    ("nodes are ordered by a policy", {}, {"scheduling": "priority"}),
]


@pytest.mark.parametrize(("fields", "document"), [row[1:] for row in NOT_BEGUN], ids=[row[0] for row in NOT_BEGUN])
def test_what_no_worker_begins(world, fields, document):
    """Whatever asks, tells or counts before an attempt goes out keeps a node out of a tail."""
    w = world({"nodes": {"a": T, "b": after("a", **fields)}, **document}).start()
    assert w.tail("a") == []


@pytest.mark.parametrize("fields", [{"queue_timeout": "1m"}, {"total_timeout": "1m"}])
def test_a_node_whose_attempt_may_be_taken_away_has_no_tail(world, fields):
    """What a timer may end while its worker goes on by itself carries none."""
    w = world({"nodes": {"a": {**T, **fields}, "b": after("a")}}).start()
    assert w.tail("a") == []


def test_kinds_that_no_worker_runs_end_a_tail(world):
    """A tail goes through tasks only, and through none that a switch or a `catch` names."""
    nodes = {
        "a": {**T, "catch": [{"to": "rescue"}]},
        "b": after("a"),
        "which": {"kind": "switch", "depends_on": ["b"], "cases": [{"when": "true", "to": ["x"]}], "default": ["y"]},
        "x": T,
        "y": T,
        "rescue": T,
    }
    w = world({"nodes": nodes}).start()
    assert w.tail("a") == ["b"]
    w.done("a", "b")
    assert w.tail("x") == []


def test_a_tail_follows_one_successor_at_each_node(world):
    """The first one that may be begun; what else became ready is dispatched by the fold."""
    nodes = {
        "a": T,
        "slow": after("a", queue="slow"),
        "b": after("a"),
        "other": after("a"),
        "c": after("b"),
    }
    w = world({"nodes": nodes}).start()
    assert w.tail("a") == ["b", "c"]
    w.go_on("a")
    assert w.statuses == {"a": "COMPLETED", "slow": "QUEUED", "b": "QUEUED", "other": "QUEUED", "c": "PENDING"}
    assert [effect.token.split("/")[1] for effect in w.last.effects if isinstance(effect, Dispatch)] == [
        "slow",
        "other",
    ]


def test_a_join_of_nodes_of_the_tail_is_in_it(world):
    """A node may come after several nodes of a tail, not only after the last one."""
    nodes = {
        "a": T,
        "b": after("a"),
        "c": after("a", "b", params={"x": "${{ nodes.a.output }}", "y": "${{ nodes.b.output }}"}),
    }
    w = world({"nodes": nodes}).start()
    assert w.tail("a") == ["b", "c"]
    w.go_on("a", output=1)
    w.go_on("b", output=2)
    assert w.params("c") == {"x": 1, "y": 2}


def test_the_last_of_many_before_a_join_may_begin_it(world):
    """Of ten before a join the one that is dispatched last, when all others have succeeded, has it in its tail."""
    nodes = {f"n{i}": T for i in range(9)} | {"late": after("n0"), "join": after(*(f"n{i}" for i in range(9)), "late")}
    w = world({"nodes": nodes}).start()
    assert not any(w.tail(f"n{i}") for i in range(1, 9))
    assert w.tail("n0") == ["late"]
    w.done(*(f"n{i}" for i in range(1, 9)))
    w.done("n0")
    assert w.tail("late") == ["join"]


def test_a_failure_that_was_passed_over_is_told(world):
    """A node that failed and counts as a success is in the tail with its error, as the fold would have shown it."""
    nodes = {
        "z": {**T, "on_error": "continue"},
        "a": T,
        "b": after("a", "z", params={"x": "${{ nodes.z.error.message }}", "s": "${{ nodes.z.status }}"}),
    }
    w = world({"nodes": nodes}).start()
    w.fail_for_good("z")
    assert w.tail("a") == []
    w.lose("a", "crash")
    assert w.tail("a") == ["b"]
    w.go_on("a")
    assert w.params("b") == {"x": "went wrong", "s": "FAILED"}


def test_tails_are_short(world):
    """At most 32 nodes; the last of them is dispatched with a tail of its own when the fold comes to it."""
    w = world({"nodes": chain(70)}).start()
    assert w.tail("n0") == [f"n{i}" for i in range(1, 33)]
    w.go_on(*(f"n{i}" for i in range(32)))
    assert next_of(w.message("n32"), b"1") is None
    w.done("n32")
    assert w.tail("n33") == [f"n{i}" for i in range(34, 66)]


def test_tails_are_small(world):
    """64 KiB at most of parameters and outputs: a tail ends before what would not fit."""
    nodes = chain(5)
    nodes["n2"]["params"] = {"x": "y" * 40_000}
    nodes["n3"]["params"] = {"x": "y" * 40_000}
    assert world({"nodes": nodes}).start().tail("n0") == ["n1", "n2"]
    nodes = {"z": T, "a": after("z"), "b": after("a", params={"x": "${{ nodes.z.output.k }}"})}
    w = world({"nodes": nodes}).start()
    w.done("z", output={"k": 1, "rest": "y" * 70_000})
    assert w.tail("a") == []


def test_parameters_that_are_too_long_end_a_tail(world):
    """What the fold would refuse is left to the fold; and a long message goes without a tail, lest it is refused."""
    settings = wire.FrozenSettings(max_payload_bytes=100)
    nodes = {"a": T, "b": after("a", params={"x": "y" * 500})}
    assert world({"nodes": nodes}, settings=settings).start().tail("a") == []
    nodes = {"a": {**T, "params": {"x": "y" * (continuing.LONGEST_PARAMS + 1)}}, "b": after("a")}
    assert world({"nodes": nodes}).start().tail("a") == []


def test_bodies_have_tails_with_paths(world):
    """The nodes of an item or a pass follow each other in its own names; those around it may be named as well."""
    nodes = {
        "z": T,
        "m": {
            "kind": "map",
            "depends_on": ["z"],
            "items": [7, 8],
            "nodes": {"a": T, "b": after("a", params={"x": "${{ nodes.z.output }}"}), "c": after("b")},
        },
    }
    w = world({"nodes": nodes}).start()
    w.done("z", output=3)
    assert w.tail("m[1]/a") == ["m[1]/b", "m[1]/c"]
    w.go_on("m[1]/a", "m[1]/b")
    assert w.params("m[1]/b") == {"x": 3}
    w.done("m[1]/c", output=1)
    w.done("m[0]/a", "m[0]/b", "m[0]/c", output=0)
    assert (w.ended, w.output) == ("COMPLETED", [0, 1])


def test_what_only_a_body_knows_is_left_to_the_fold(world):
    """The item, its place and the number of a pass do not travel: a node that names them is dispatched."""
    nodes = {"m": {"kind": "map", "items": [7], "nodes": {"a": T, "b": after("a", params={"x": "${{ item }}"})}}}
    assert world({"nodes": nodes}).start().tail("m[0]/a") == []


def test_a_body_that_may_be_opened_again_has_none(world):
    """A container with a `retry` of its own takes attempts away and counts on: its nodes are begun in their turn."""
    body = {"kind": "map", "items": [7], "nodes": {"a": T, "b": after("a")}}
    assert world({"nodes": {"m": body}}).start().tail("m[0]/a") == ["m[0]/b"]
    assert world({"nodes": {"m": {**body, "retry": {"max_retries": 1}}}}).start().tail("m[0]/a") == []


def test_clean_up_has_no_tails(world):
    """`finally`, and what still runs after a failure, is dispatched node by node."""
    w = world({"nodes": {"x": T}, "finally": {"a": T, "b": after("a")}}).start()
    w.done("x")
    assert w.tail("a") == []
    nodes = {"x": T, "clean": after("x", join="all_done"), "more": after("clean")}
    w = world({"nodes": nodes}).start()
    w.fail_for_good("x")
    assert (w.status("clean"), w.tail("clean")) == ("QUEUED", [])


def test_attempts_that_are_tried_again_carry_it_as_well(world):
    """After a failure and after a crash, which its worker tells in place of a result, the next has the same tail."""
    w = world({"nodes": CHAIN}).start()
    w.fail("a")
    w.verdict("a", 0)
    w.due("a")
    assert (w.attempt("a"), w.tail("a")) == (2, ["b", "c"])
    w.lose("a", "crash")
    assert (w.attempt("a"), w.tail("a")) == (3, ["b", "c"])


@pytest.mark.parametrize("reason", ["dead", "orphan", "drain"])
def test_a_node_whose_attempt_was_lost_has_no_tail_any_more(world, reason):
    """Its old worker may have gone on: another one that is given the same numbers would begin what is used up."""
    w = world({"nodes": CHAIN}).start()
    late = w.begins("a")
    w.lose("a", reason)
    assert (w.attempt("a"), w.tail("a")) == (2, [])
    w.send(late)
    assert (w.attempts("b")[0]["reason"], w.begun) == (continuing.UNWANTED, set())
    w.done("a")
    assert (w.attempt("b"), w.tail("b")) == (2, [])
    w.done("b")
    assert (w.attempt("c"), w.tail("c")) == (1, [])
    w.done("c")
    assert w.ended == "COMPLETED"


# --- what becomes of what was begun


def test_a_begun_node_is_taken_over(world):
    """It is in flight and claimed, as of the record; nothing waits to be sent, and the history names the worker."""
    w = world({"nodes": CHAIN}).start()
    w.go_on("a", output={"k": 1})
    token = f"{w.execution.id}/b/1"
    assert w.status("b") == "QUEUED"
    assert w.params("b") == {"x": {"k": 1}}
    assert [effect for effect in w.last.effects if isinstance(effect, Dispatch | Begun)] == [Begun(token, "w1", w.now)]
    ops = {(op[0], op[1]): op[2:] for op in to_ops(w.keys, [w.last])}
    assert ops["HSET", w.keys.in_flight] == (token, str(w.now))
    assert ops["HSET", w.keys.claims] == (token, f"w1|{w.now}")
    assert not [key for _, key in ops if ":ob:" in key and key != w.keys.outbox("default")]
    assert ("ZADD", w.keys.outbox("default")) not in ops
    queued = w.history("node.queued")[-1]
    assert (queued["node"], json.loads(queued["data"])) == ("b", {"worker": "w1"})
    w.go_on("b")
    w.done("c", output=3)
    assert (w.ended, w.output, w.begun) == ("COMPLETED", 3, set())
    assert w.attempts("b")[0]["attempt"] == 1


def test_a_chain_in_one_batch_leaves_nothing_behind(world):
    """What was begun and ended within one batch is written as ended only."""
    w = world({"nodes": CHAIN}).create()
    outcomes = [w.trigger(), w.go_on("a"), w.go_on("b"), w.done("c")]
    ops = list(operations.split(to_ops(w.keys, outcomes)))
    assert not [op for op in ops if op[1] in (w.keys.in_flight, w.keys.claims, w.keys.messages)]


def test_a_begun_attempt_is_as_any_other(world):
    """It fails, is tried again, is lost and is cancelled like one that was dispatched."""
    w = world({"nodes": CHAIN}).start()
    w.go_on("a")
    w.lose("b")
    assert (w.attempt("b"), w.cell("b").lost) == (2, 1)
    assert w.message("b").params == b'{"x":null}'
    assert w.message("b").lost == 1
    w.done("b")
    w.fail("c")
    w.verdict("c", 0)
    w.due("c")
    assert (w.status("c"), w.attempt("c"), w.begun) == ("QUEUED", 2, set())
    w.done("c")
    assert w.ended == "COMPLETED"
    w = world({"nodes": CHAIN}).start()
    w.go_on("a")
    w.cancel()
    assert [effect.cancel for effect in w.last.effects if getattr(effect, "queue", None)] == [True]
    assert (w.ended, w.begun) == ("CANCELLED", set())


def test_a_copy_of_the_record_changes_nothing(world):
    """A result that begins the next node comes again, at once, later, and when all is over."""
    w = world({"nodes": CHAIN}).start()
    copies = [w.begins("a")]
    for copy in (*copies, *copies):
        w.send(copy)
    assert not w.last.effects
    assert not w.last.changed_fields
    copies.append(w.begins("b"))
    w.send(copies[1])
    w.send(copies[0])
    assert not w.last.changed_fields
    w.done("c")
    for copy in copies:
        w.send(copy)
        assert to_ops(w.keys, [w.last]) == []
    w.retry("a")
    for copy in copies:
        w.send(copy)
        assert to_ops(w.keys, [w.last]) == []


@pytest.mark.parametrize("how", ["pause", "fail"])
def test_a_begun_node_runs_although_nothing_new_may_start(world, how):
    """While the execution is paused, or halts after a failure, what a worker began is accepted as already running."""
    w = world({"nodes": {**CHAIN, "x": T}}).start()
    w.pause() if how == "pause" else w.fail_for_good("x")
    assert stopped(w)
    w.go_on("a")
    assert (w.status("b"), w.status("c")) == ("QUEUED", "PENDING")
    assert stopped(w)
    if how == "pause":
        w.done("b", "x")
        assert w.status("c") == "PENDING"
        w.resume()
        w.done("c")
        assert w.ended == "COMPLETED"
    else:
        w.done("b")
        assert (w.status("c"), w.ended) == ("CANCELLED", "FAILED")


def stopped(w: Any) -> bool:
    """Whether workers are told to begin nothing more of the execution by themselves."""
    return StopTails(w.execution.id) in w.last.effects


def test_workers_are_told_to_stop_only_when_something_goes_on(world):
    """Not by a failure that cancels everything, since its tokens are cancelled one by one; and not as a rule."""
    w = world({"nodes": {**CHAIN, "x": T}, "on_failure": "cancel"}).start()
    w.go_on("a")
    assert not stopped(w)
    w.fail_for_good("x")
    assert not stopped(w)
    assert [effect.cancel for effect in w.last.effects if isinstance(effect, Ended)] == [True]


def test_a_begun_node_that_is_not_wanted_is_withdrawn_when_nobody_has_it(world):
    """In a halting execution its loss ends it: it is not tried again."""
    w = world({"nodes": {**CHAIN, "x": T}}).start()
    w.fail_for_good("x")
    w.go_on("a")
    w.lose("b", "withdrawn")
    assert (w.status("b"), w.ended) == ("CANCELLED", "FAILED")


def test_a_begun_node_whose_turn_has_not_come_uses_up_its_number(world):
    """A number that a worker may have used never comes again; an attempt that says so is kept."""
    w = world({"nodes": {"a": T, "x": T, "b": after("a", "x"), "c": after("b")}}).start()
    begin = wire.Begin(node="b", attempt=1, params=b"{}")
    w.send(w.result("a", output=b"1", begin=begin, v=wire.BEGINS))
    assert (w.status("a"), w.status("b"), w.attempt("b")) == ("COMPLETED", "PENDING", 1)
    assert [(a["attempt"], a["status"], a["worker"]) for a in w.attempts("b")] == [(1, "CANCELLED", "w1")]
    w.done("x")
    assert (w.status("b"), w.attempt("b")) == ("QUEUED", 2)
    assert w.tail("b") == []
    w.fail("b")
    assert w.verdict("b", 0).execution is not None
    w.due("b")
    w.done("b", "c")
    assert w.ended == "COMPLETED"


@pytest.mark.parametrize(
    "begin",
    [
        {"node": "b", "attempt": 3},
        {"node": "c", "attempt": 1},
        {"node": "a", "attempt": 2},
        {"node": "nowhere", "attempt": 1},
        {"node": "guarded", "attempt": 1},
        {"node": "m", "attempt": 1},
    ],
)
def test_what_no_tail_says_is_refused(world, begin):
    """The result counts; the node that it names is not taken over, and is dispatched when its turn comes."""
    more = {"guarded": after("a", when="1 == 1"), "m": {"kind": "map", "items": [1], "task": "t", "depends_on": ["a"]}}
    w = world({"nodes": {**CHAIN, **more}}).start()
    w.send(w.result("a", output=b"1", begin=wire.Begin(params=b"{}", **begin), v=wire.BEGINS))
    assert w.status("a") == "COMPLETED"
    assert w.begun == set()
    assert (w.status("b"), w.status("guarded"), w.status("m[0]")) == ("QUEUED", "QUEUED", "QUEUED")
    w.done("guarded", "m[0]", "b", "c")
    assert w.ended == "COMPLETED"


# --- results that are refused


def test_a_refused_result_uses_up_the_number_that_it_begins(world):
    """The attempt before it had been cancelled, and its worker did not know: what it began is never begun again."""
    nodes = {"m": {"kind": "loop", "until": "true", "max_iterations": 2, "nodes": CHAIN}}
    w = world({"nodes": nodes}).start()
    late = w.begins("m#0/a")
    w.cancel()
    w.send(late)
    assert (w.ended, w.begun) == ("CANCELLED", set())
    w.retry()
    w.done("m#0/a")
    assert (w.attempt("m#0/a"), w.attempt("m#0/b")) == (2, 2)
    assert [(a["attempt"], a["reason"]) for a in w.attempts("m#0/b")] == [(1, continuing.PERHAPS)]


def test_a_refused_result_that_comes_after_the_retry(world):
    """The node that was cancelled has no tail any more, so that no other worker has the same number."""
    w = world({"nodes": CHAIN}).start()
    late = w.begins("a")
    w.cancel()
    w.retry()
    assert (w.attempt("a"), w.tail("a")) == (2, [])
    w.send(late)
    assert (w.status("b"), w.attempt("b"), w.attempts("b")[0]["reason"]) == ("PENDING", 1, continuing.UNWANTED)
    w.done("a")
    assert (w.attempt("b"), w.tail("b")) == (2, [])
    w.done("b", "c")
    assert w.ended == "COMPLETED"


def test_numbers_go_on_when_a_container_begins_anew(world):
    """Bodies that are opened again after `retry` skip what a worker may have begun in them."""
    body = {"a": T, "b": after("a"), "c": after("b")}
    nodes = {"x": T, "m": {"kind": "map", "depends_on": ["x"], "items": [1], "nodes": body}}
    w = world({"nodes": nodes}).start()
    w.done("x")
    w.go_on("m[0]/a")
    late = w.begins("m[0]/b")
    w.cancel()
    w.send(late)
    w.retry("x")
    w.done("x")
    assert w.attempt("m[0]/a") == 2
    w.done("m[0]/a")
    assert (w.attempt("m[0]/b"), w.tail("m[0]/b")) == (2, [])
    w.done("m[0]/b")
    assert w.attempt("m[0]/c") == 2


def test_a_number_that_was_used_up_says_nothing_of_the_next(world):
    """A worker begins b#2 by a tail of an older orchestrator, after b#1 was begun in vain; its result is refused."""
    w = world({"nodes": CHAIN}).start()
    late = w.begins("a")
    w.lose("a")
    w.send(late)
    late = w.result("a", output=b"1", begin=wire.Begin(node="b", attempt=2, params=b"{}"), v=wire.BEGINS)
    w.cancel()
    w.send(late)
    w.retry()
    w.done("a")
    assert [(one["attempt"], one["reason"]) for one in w.attempts("b")] == [
        (1, continuing.UNWANTED),
        (2, continuing.PERHAPS),
    ]
    assert w.attempt("b") == 3


def test_what_came_late_before_a_retry_is_nobody_elses(world):
    """A worker that was cut off may still begin a node of two; after `retry` the other one has it in no tail."""
    w = world({"nodes": {"z": T, "a": after("z"), "x": T, "b": after("a", "x")}}).start()
    w.done("x", "z")
    late = w.begins("a")
    w.lose("a")
    w.cancel()
    w.retry("x")
    w.done("a")
    w.fail("x")
    w.verdict("x", 0)
    w.due("x")
    assert (w.attempt("a"), w.attempt("x"), w.tail("x")) == (3, 3, [])
    w.send(late)
    assert w.attempt("b") == 1
    w.done("x")
    assert w.attempt("b") == 2


def test_executions_without_begins_are_stored_as_before(world):
    """Tails are in messages only: no field, no cell and no number is other than without them."""
    w = world({"nodes": CHAIN}).start()
    w.cancel()
    w.retry()
    w.done("a", "b", "c")
    assert "continued" not in w.store.get(w.keys.execution(w.execution.id))
    assert w.attempt("b") == 1
