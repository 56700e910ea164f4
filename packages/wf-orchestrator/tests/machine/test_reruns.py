"""`retry`: an execution that has ended goes on from what failed, or from nodes that are named."""

from __future__ import annotations

import pytest

from wf_core import ids, wire
from wf_core.schema.validation import canonical_bytes, parse_document
from wf_orchestrator.machine import verdicts

CHAIN = {
    "nodes": {
        "a": {"task": "t"},
        "b": {"task": "t", "params": {"a": "${{ nodes.a.output }}", "i": "${{ input.n }}"}},
        "c": {"task": "t", "depends_on": ["b"]},
    }
}


def failed_chain(world):
    w = world(CHAIN).start({"n": 1})
    w.done("a", output=7)
    w.fail_for_good("b")
    assert w.ended == "FAILED"
    return w


def test_from_failed_nodes(world):
    """Failed nodes and what could not run because of them run again; completed outputs are kept, attempts go on."""
    w = failed_chain(world)
    w.retry()
    assert (w.ended, w.execution.error, w.execution.ended_at) == ("RUNNING", None, None)
    assert w.statuses == {"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"}
    assert (w.attempt("a"), w.attempt("b")) == (1, 2)
    assert w.params("b") == {"a": 7, "i": 1}
    w.done("b")
    w.done("c", output=3)
    assert (w.ended, w.output) == ("COMPLETED", 3)
    assert [a["status"] for a in w.attempts("b")] == ["FAILED", "COMPLETED"]
    assert w.history("execution.retried")


def test_only_an_execution_that_has_ended(world):
    """While it runs the command changes nothing; one command starts it once, whenever its copies come."""
    w = world(CHAIN).start({"n": 1})
    assert not w.retry(command="early").moved
    w.done("a")
    w.fail_for_good("b")
    w.retry(command="x")
    w.fail_for_good("b")
    assert w.ended == "FAILED"
    assert not w.retry(command="x").moved
    assert w.last.effects


def test_late_records_of_the_first_run_change_nothing(world):
    """A late result of an attempt from before the retry is stale: numbers of attempts never come again."""
    w = failed_chain(world)
    w.retry()
    w.send(w.result("b", 1, output=b"1"))
    assert w.status("b") == "QUEUED"


def test_budgets_start_afresh(world):
    """After a retry the policy is asked about the failures since then, and platform losses count from one."""
    w = world({"nodes": {"a": {"task": "t"}}}, settings=wire.FrozenSettings(max_platform_retries=1)).start()
    w.lose("a")
    w.lose("a")
    assert w.ended == "FAILED"
    w.retry()
    w.lose("a")
    assert w.status("a") == "QUEUED"
    w.fail("a")
    request = verdicts.request(w.execution, "a", w.attempt("a"))
    assert (request.failures, request.attempt) == (1, 4)


def test_with_another_input(world):
    """A given input replaces the execution's: nodes that run again see it, those that completed keep their outputs."""
    w = failed_chain(world)
    w.retry(value={"n": 2})
    assert w.params("b") == {"a": 7, "i": 2}


def test_from_named_nodes(world):
    """`from` runs these nodes and everything downstream of them again, also after COMPLETED; others are kept."""
    nodes = {**CHAIN["nodes"], "z": {"task": "t"}}
    w = world({"nodes": nodes}).start({"n": 1})
    w.done("a", "z", "b", "c", output=1)
    assert w.ended == "COMPLETED"
    w.retry("b", "nobody")
    assert w.statuses == {"a": "COMPLETED", "b": "QUEUED", "c": "PENDING", "z": "COMPLETED"}
    w.done("b", "c", output=2)
    assert (w.ended, w.output) == ("COMPLETED", {"c": 2, "z": 1})


def test_from_named_nodes_takes_the_failed_ones_along(world):
    """`from` on a failed execution runs the named nodes and what failed."""
    nodes = {"a": {"task": "t"}, "b": {"task": "t"}, "c": {"task": "t"}}
    w = world({"nodes": nodes}).start()
    w.done("a", "c")
    w.fail_for_good("b")
    w.retry("a")
    assert w.statuses == {"a": "QUEUED", "b": "QUEUED", "c": "COMPLETED"}


def test_after_a_cancel(world):
    """A cancelled execution goes on with the nodes that were cancelled, those that had not started too."""
    w = world(CHAIN).start({"n": 1})
    w.done("a")
    w.cancel()
    assert w.statuses == {"a": "COMPLETED", "b": "CANCELLED", "c": "CANCELLED"}
    w.retry()
    w.done("b", "c")
    assert w.ended == "COMPLETED"


def test_of_an_execution_that_never_started(world):
    """One that was cancelled before its trigger starts with the retry."""
    w = world(CHAIN).create({"n": 1})
    w.cancel()
    w.retry()
    assert (w.ended, w.status("a"), w.execution.started_at) == ("RUNNING", "QUEUED", w.now)


def test_skipped_nodes_after_a_failed_one_are_asked_again(world):
    """What was skipped downstream of a node that runs again is decided anew; a skip elsewhere stays."""
    nodes = {
        "a": {"task": "t", "on_error": "continue"},
        "b": {"task": "t"},
        "g": {"task": "t", "depends_on": ["b"], "join": "all_failed", "when": "false"},
        "h": {"task": "t", "depends_on": ["a"], "when": "false"},
    }
    w = world({"nodes": nodes}).start()
    w.fail_for_good("a")
    w.fail_for_good("b")
    assert (w.status("g"), w.status("h"), w.ended) == ("SKIPPED", "SKIPPED", "FAILED")
    w.retry()
    assert w.statuses == {"a": "FAILED", "b": "QUEUED", "g": "PENDING", "h": "SKIPPED"}
    w.done("b")
    assert (w.status("g"), w.ended) == ("SKIPPED", "COMPLETED")


def test_clean_up_that_completed_is_kept(world):
    """A clean-up node that completed after the failure does not run again."""
    nodes = {"a": {"task": "t"}, "c": {"task": "t", "depends_on": ["a"], "join": "all_done"}}
    w = world({"nodes": nodes}).start()
    w.fail_for_good("a")
    w.done("c", output=1)
    w.retry()
    assert w.statuses == {"a": "QUEUED", "c": "COMPLETED"}
    w.done("a")
    assert w.ended == "COMPLETED"


def test_a_caught_failure_is_kept(world):
    """What was caught does not count and stays; the target that failed runs again."""
    nodes = {"a": {"task": "t", "catch": [{"errors": ["Oops"], "to": "h", "as": "why"}]}, "h": {"task": "t"}}
    w = world({"nodes": nodes}).start()
    w.fail_for_good("a")
    w.fail_for_good("h")
    w.retry()
    assert w.statuses == {"a": "FAILED", "h": "QUEUED"}
    w.done("h")
    assert w.ended == "COMPLETED"


def test_finally_runs_again(world):
    """All nodes of `finally` run again when the execution ends again."""
    w = world({"nodes": {"a": {"task": "t"}}, "finally": {"z": {"task": "t"}}}).start()
    w.fail_for_good("a")
    w.done("z")
    assert w.ended == "FAILED"
    w.retry()
    assert w.statuses == {"a": "QUEUED", "z": "PENDING"}
    w.done("a", "z")
    assert (w.ended, w.attempt("z")) == ("COMPLETED", 2)


def test_compensated_nodes_run_again(world):
    """What was undone is done again, and undone again if need be."""
    nodes = {
        "a": {"task": "t", "compensate": {"task": "u"}},
        "b": {"task": "t", "depends_on": ["a"]},
        "k": {"task": "t"},
    }
    w = world({"nodes": nodes}).start()
    w.done("a", "k")
    w.fail_for_good("b")
    w.done("a~compensate")
    assert w.ended == "FAILED"
    w.retry()
    assert w.statuses == {"a": "QUEUED", "b": "PENDING", "k": "COMPLETED"}
    w.done("a")
    w.fail_for_good("b")
    assert w.status("a~compensate") == "QUEUED"
    assert w.attempt("a~compensate") == 2
    w.done("a~compensate")
    assert w.ended == "FAILED"


HOTEL = {
    "hotel": {"task": "t", "compensate": {"task": "u", "params": {"id": "${{ nodes.hotel.output }}"}}},
    "invoice": {"task": "t", "params": {"value": "for ${{ nodes.hotel.output }}"}},
}


def test_what_comes_after_an_undone_node_runs_again(world):
    """A completed node holds what was undone: it sees the new output, as does what follows it."""
    nodes = {
        **HOTEL,
        "paper": {"task": "t", "params": {"value": "${{ nodes.invoice.output }}"}},
        "beside": {"task": "t"},
        "flight": {"task": "t", "depends_on": ["invoice"]},
    }
    w = world({"nodes": nodes, "output": "${{ nodes.paper.output }}"}).start()
    w.done("hotel", output="H1")
    w.done("beside")
    w.done("invoice", output="for H1")
    w.done("paper", output="paper 1")
    w.fail_for_good("flight")
    assert w.params("hotel~compensate") == {"id": "H1"}
    w.done("hotel~compensate")
    w.retry()
    assert w.statuses == {
        "hotel": "QUEUED",
        "invoice": "PENDING",
        "paper": "PENDING",
        "beside": "COMPLETED",
        "flight": "PENDING",
    }
    w.done("hotel", output="H2")
    assert w.params("invoice") == {"value": "for H2"}
    w.done("invoice", output="for H2")
    assert w.params("paper") == {"value": "for H2"}
    w.done("paper", output="paper 2")
    w.done("flight")
    assert (w.ended, w.output) == ("COMPLETED", "paper 2")


@pytest.mark.parametrize("status", ["FAILED", "COMPLETED"])
def test_what_comes_after_an_undone_node_in_an_item_runs_again(world, status):
    """In its item, and after the map, whether that completed or failed."""
    nodes = {
        "trips": {"kind": "map", "items": [1, 2], "nodes": {**HOTEL, "taxi": {"task": "t", "depends_on": ["invoice"]}}},
        "report": {"task": "t", "depends_on": ["trips"], "join": "all_done"},
        "flight": {"task": "t", "depends_on": ["report"]},
    }
    w = world({"nodes": nodes}).start()
    w.done("trips[0]/hotel", "trips[1]/hotel", output="H1")
    w.done("trips[0]/invoice", "trips[1]/invoice", output="for H1")
    w.done("trips[0]/taxi")
    if status == "FAILED":
        w.fail_for_good("trips[1]/taxi")
        w.done("report", "flight")
    else:
        w.done("trips[1]/taxi", "report")
        w.fail_for_good("flight")
    w.done("trips[1]/hotel~compensate", "trips[0]/hotel~compensate")
    assert (w.ended, w.status("trips"), w.status("report")) == ("FAILED", status, "COMPLETED")
    w.retry()
    assert {w.status(path) for path in ("trips[0]/hotel", "trips[1]/hotel")} == {"QUEUED"}
    after = ("trips[0]/invoice", "trips[1]/invoice", "trips[0]/taxi", "trips[1]/taxi", "report", "flight")
    assert {w.status(path) for path in after} == {"PENDING"}
    w.done("trips[0]/hotel", "trips[1]/hotel", output="H2")
    assert w.params("trips[0]/invoice") == w.params("trips[1]/invoice") == {"value": "for H2"}
    w.done("trips[0]/invoice", "trips[1]/invoice", "trips[0]/taxi", "trips[1]/taxi", "report", "flight")
    assert w.ended == "COMPLETED"


def test_passes_after_an_undone_node_run_again(world):
    """A loop goes on with the pass in which something was undone, and what follows the loop runs again."""
    loop = {"kind": "loop", "until": "iteration == 1", "max_iterations": 2, "nodes": HOTEL}
    nodes = {
        "l": loop,
        "z": {"task": "t", "params": {"l": "${{ nodes.l.output }}"}},
        "y": {"task": "t", "depends_on": ["z"]},
    }
    w = world({"nodes": nodes}).start()
    for number in range(2):
        w.done(f"l#{number}/hotel", f"l#{number}/invoice", output=number)
    w.done("z")
    w.fail_for_good("y")
    w.done("l#1/hotel~compensate", "l#0/hotel~compensate")
    w.retry()
    assert w.statuses == {
        "l": "WAITING",
        "z": "PENDING",
        "y": "PENDING",
        "l#0/hotel": "QUEUED",
        "l#0/invoice": "PENDING",
    }
    for number in range(2):
        w.done(f"l#{number}/hotel", f"l#{number}/invoice", output=number + 10)
    assert w.params("z") == {"l": 11}


def test_what_was_undone_of_an_earlier_attempt_is_forgotten_when_it_is_done_again(world):
    """An item of an earlier attempt of its map was undone; done again it is kept, as is what comes after the map."""
    body = {"hotel": HOTEL["hotel"], "taxi": {"task": "t", "depends_on": ["hotel"]}}
    trips = {"kind": "map", "items": [1, 2], "order": "sequential", "nodes": body, "retry": {"max_retries": 1}}
    nodes = {"trips": trips, "after": {"task": "t", "depends_on": ["trips"]}, "z": {"task": "t"}}
    w = world({"nodes": nodes}).start()
    w.done("z", "trips[0]/hotel", "trips[0]/taxi", "trips[1]/hotel")
    w.fail_for_good("trips[1]/taxi")
    w.verdict("trips", 0)
    w.due("trips")
    w.fail_for_good("trips[0]/hotel")
    w.verdict("trips", None)
    w.done("trips[1]/hotel~compensate", "trips[0]/hotel~compensate")
    assert w.ended == "FAILED"
    w.retry()
    for number in range(2):
        w.done(f"trips[{number}]/hotel", f"trips[{number}]/taxi")
    w.done("after")
    assert w.ended == "COMPLETED"
    w.retry("z")
    assert {path for path, status in w.statuses.items() if status != "COMPLETED"} == {"z"}


MAP = {
    "m": {
        "kind": "map",
        "items": "${{ input.items }}",
        "as": "one",
        "nodes": {
            "x": {"task": "t", "params": {"v": "${{ one }}"}},
            "y": {"task": "t", "params": {"v": "${{ nodes.x.output }}"}},
        },
    },
    "z": {"task": "t", "params": {"m": "${{ nodes.m.output }}"}},
}


def failed_map(world, **fields):
    w = world({"nodes": {**MAP, "m": {**MAP["m"], **fields}}}).start({"items": [10, 20, 30]})
    w.done("m[0]/x", "m[1]/x", "m[2]/x", output=5)
    w.done("m[0]/y", output=0)
    w.fail_for_good("m[1]/y")
    w.done("m[2]/y", output=2)
    assert w.ended == "FAILED"
    return w


def test_a_map_goes_on_with_its_failed_items(world):
    """The failed item resumes at its failed node; the outputs of the others are kept, in order."""
    w = failed_map(world)
    w.retry()
    assert (w.status("m"), w.attempt("m"), w.status("m[1]/x"), w.status("m[1]/y")) == (
        "WAITING",
        2,
        "COMPLETED",
        "QUEUED",
    )
    w.done("m[1]/y", output=1)
    assert (w.status("m"), w.params("z")) == ("COMPLETED", {"m": [0, 1, 2]})
    w.done("z")
    assert w.ended == "COMPLETED"


def test_a_map_opens_the_items_that_it_had_not(world):
    """Items that had not been opened when the map failed are opened after the retry."""
    w = world({"nodes": {**MAP, "m": {**MAP["m"], "order": "sequential"}}}).start({"items": [1, 2, 3]})
    w.done("m[0]/x", "m[0]/y", output=0)
    w.fail_for_good("m[1]/x")
    assert w.ended == "FAILED"
    w.retry()
    w.done("m[1]/x", "m[1]/y", output=1)
    w.done("m[2]/x", "m[2]/y", output=2)
    assert w.params("z") == {"m": [0, 1, 2]}


def test_a_short_map_goes_on_with_its_failed_items(world):
    """The short form too: the item's node is the item."""
    w = world({"nodes": {"m": {"kind": "map", "items": [1, 2], "task": "t"}}}).start()
    w.done("m[0]", output=0)
    w.fail_for_good("m[1]")
    w.retry()
    assert w.statuses == {"m": "WAITING", "m[0]": "COMPLETED", "m[1]": "QUEUED"}
    w.done("m[1]", output=1)
    assert w.output == [0, 1]


@pytest.mark.parametrize("nodes", [{"x": {"task": "t"}}, {"x": {"task": "t"}, "y": {"task": "t", "depends_on": ["x"]}}])
def test_a_sequential_map_resumes_one_item_after_the_other(world, nodes):
    """More items failed than may run at once: they wait for each other, in order, also over a pause."""
    m = {"kind": "map", "items": [0, 1, 2], "order": "sequential", "tolerate": 2, "nodes": nodes}
    w = world({"nodes": {"m": m}}).start()
    for number in range(3):
        w.fail_for_good(f"m[{number}]/x")
    assert w.ended == "FAILED"
    w.retry()
    for number in range(3):
        assert [w.status(f"m[{n}]/x") for n in range(3)] == ["COMPLETED"] * number + ["QUEUED"] + ["PENDING"] * (
            2 - number
        )
        w.pause(command=f"p{number}")
        w.done(f"m[{number}]/x")
        w.resume(command=f"r{number}")
        if "y" in nodes:
            w.done(f"m[{number}]/y")
    assert w.ended == "COMPLETED"


def test_items_that_wait_end_with_their_map(world):
    """An item that waits for its place is cancelled with the rest, and can be retried again."""
    m = {"kind": "map", "items": [0, 1, 2], "max_parallel": 1, "tolerate": 1, "nodes": {"x": {"task": "t"}}}
    w = world({"nodes": {"m": m}}).start()
    w.fail_for_good("m[0]/x")
    w.fail_for_good("m[1]/x")
    assert (w.ended, "m[2]/x" in w.statuses) == ("FAILED", False)
    w.retry()
    w.cancel()
    assert {w.status("m"), w.status("m[0]/x"), w.status("m[1]/x")} == {"CANCELLED"}
    w.retry()
    w.done("m[0]/x", "m[1]/x", "m[2]/x")
    assert w.ended == "COMPLETED"


def test_from_a_node_inside_an_item(world):
    """A path names a node in one item: it and what follows it run again, and what follows the map."""
    w = world({"nodes": MAP}).start({"items": [1, 2]})
    w.done("m[0]/x", "m[1]/x", "m[0]/y", "m[1]/y", output=1)
    w.done("z")
    w.retry("m[1]/y")
    assert {k: v for k, v in w.statuses.items() if v != "COMPLETED"} == {
        "m": "WAITING",
        "m[1]/y": "QUEUED",
        "z": "PENDING",
    }
    w.done("m[1]/y", output=9)
    assert w.params("z") == {"m": [1, 9]}


def test_from_a_map_begins_it_anew(world):
    """A named map evaluates its items again and opens every one."""
    w = failed_map(world)
    w.retry("m", value={"items": [1]})
    assert w.statuses == {"m": "WAITING", "m[0]/x": "QUEUED", "m[0]/y": "PENDING", "z": "PENDING"}
    assert w.attempt("m[0]/x") == 2
    w.done("m[0]/x", "m[0]/y", output=4)
    assert w.params("z") == {"m": [4]}


LOOP = {
    "l": {
        "kind": "loop",
        "until": "iteration == 2",
        "max_iterations": 5,
        "nodes": {"x": {"task": "t", "params": {"last": "${{ last }}"}}, "y": {"task": "t", "depends_on": ["x"]}},
    }
}


@pytest.mark.parametrize("fields", [{}, {"keep_last": 1}, {"keep_last": 2}])
def test_a_loop_goes_on_with_its_failed_pass(world, fields):
    """The pass that failed resumes; earlier ones are kept, and `last` is what it was."""
    w = world({"nodes": {"l": {**LOOP["l"], **fields}}}).start()
    w.done("l#0/x", "l#0/y", output=0)
    w.done("l#1/x")
    w.fail_for_good("l#1/y")
    assert w.ended == "FAILED"
    w.retry()
    assert (w.status("l"), w.status("l#1/x"), w.status("l#1/y")) == ("WAITING", "COMPLETED", "QUEUED")
    w.done("l#1/y", output=1)
    assert w.params("l#2/x") == {"last": 1}
    w.done("l#2/x", "l#2/y", output=2)
    assert (w.ended, w.output) == ("COMPLETED", 2)


def test_from_an_earlier_pass(world):
    """A named pass runs again and so do those after it; it sees the output of the pass before it."""
    w = world({"nodes": LOOP}).start()
    for number in range(3):
        w.done(f"l#{number}/x", f"l#{number}/y", output=number)
    w.retry("l#1/x")
    assert w.params("l#1/x") == {"last": 0}
    assert "l#2/x" not in w.statuses
    w.done("l#1/x", "l#1/y", output=10)
    assert (w.params("l#2/x"), w.attempt("l#2/x")) == ({"last": 10}, 2)
    w.done("l#2/x", "l#2/y", output=20)
    assert (w.ended, w.output) == ("COMPLETED", 20)


def test_a_pass_whose_past_is_forgotten_begins_the_loop_anew(world):
    """With `keep_last: 1` nobody knows what the named pass saw: the loop begins with the first one."""
    w = world({"nodes": {"l": {**LOOP["l"], "keep_last": 1}}}).start()
    for number in range(3):
        w.done(f"l#{number}/x", f"l#{number}/y", output=number)
    w.retry("l#2/y")
    assert w.params("l#0/x") == {"last": None}


def test_a_loop_that_reached_its_limit_begins_anew(world):
    """No pass failed: there is none to resume."""
    w = world({"nodes": {"l": {**LOOP["l"], "max_iterations": 1}}}).start()
    w.done("l#0/x", "l#0/y")
    assert w.ended == "FAILED"
    w.retry()
    assert (w.status("l"), w.status("l#0/x"), w.attempt("l#0/x")) == ("WAITING", "QUEUED", 2)


def test_deep_inside(world):
    """A loop in a map in a loop resumes where it failed, at any depth."""
    inner = {
        "kind": "loop",
        "until": "iteration == 1",
        "max_iterations": 3,
        "nodes": {"t": {"task": "t"}},
    }
    middle = {"kind": "map", "items": [1, 2], "nodes": {"inner": inner}}
    outer = {"kind": "loop", "until": "iteration == 1", "max_iterations": 3, "nodes": {"middle": middle}}
    w = world({"nodes": {"o": outer}}).start()
    for path in ("o#0/middle[0]/inner#0/t", "o#0/middle[1]/inner#0/t", "o#0/middle[0]/inner#1/t"):
        w.done(path)
    w.fail_for_good("o#0/middle[1]/inner#1/t")
    assert w.ended == "FAILED"
    w.retry()
    started = [path for path, status in w.statuses.items() if status == "QUEUED"]
    assert started == ["o#0/middle[1]/inner#1/t"]
    w.done(*started)
    assert w.status("o#1/middle[0]/inner#0/t") == "QUEUED"


def test_an_end_that_failed_is_asked_again(world):
    """An `end` node that failed the execution, and what it skipped, are decided again."""
    nodes = {
        "a": {"task": "t"},
        "e": {"kind": "end", "status": "FAILED", "depends_on": ["a"], "when": "input.bad"},
        "z": {"task": "t", "depends_on": ["slow"]},
        "slow": {"task": "t"},
    }
    w = world({"nodes": nodes}).start({"bad": True})
    w.done("a")
    assert (w.ended, w.status("slow"), w.status("z")) == ("FAILED", "CANCELLED", "SKIPPED")
    w.retry(value={"bad": False})
    assert w.statuses == {"a": "COMPLETED", "e": "SKIPPED", "z": "PENDING", "slow": "QUEUED"}


def test_an_output_that_failed_is_evaluated_again(world):
    """Nothing is left to run: the output is evaluated with the new input."""
    w = world({"nodes": {"a": {"task": "t"}}, "output": "${{ input.x.y }}"}).start({"x": 1})
    w.done("a")
    assert w.ended == "FAILED"
    w.retry(value={"x": {"y": 5}})
    assert (w.ended, w.output) == ("COMPLETED", 5)


def test_the_time_of_the_execution_starts_afresh(world):
    """The timeout of the execution counts from the retry."""
    w = world({"timeout": "1m", "nodes": {"a": {"task": "t"}}}).start()
    w.deadline()
    assert w.ended == "FAILED"
    w.retry()
    assert w.timers() == {f"deadline|{w.execution.id}//0": w.now + 60_000}


def test_many_times(world):
    """An execution may be retried as often as one likes, and paused in between."""
    w = failed_map(world)
    for number in range(2, 6):
        w.retry()
        assert w.attempt("m[1]/y") == number
        w.pause(command=f"p{number}")
        w.fail_for_good("m[1]/y")
        w.resume(command=f"r{number}")
        assert w.ended == "FAILED"
    w.retry()
    w.done("m[1]/y", "z")
    assert w.ended == "COMPLETED"


def test_waits_approvals_and_children_begin_anew(world):
    """What waits for someone outside waits again, as a new attempt: a new child, a new question, a new timer."""
    nodes = {
        "w": {"kind": "wait", "signal": "go", "timeout": "1m"},
        "p": {"kind": "approval", "timeout": "1m"},
        "c": {"kind": "workflow", "nodes": {"x": {"task": "t"}}},
        "d": {"task": "t", "depends_on": ["w", "p", "c"]},
    }
    w = world({"nodes": nodes}).start()
    w.cancel()
    assert {w.status(node) for node in nodes} == {"CANCELLED"}
    w.retry()
    assert {w.status(node): w.attempt(node) for node in ("w", "p", "c")} == {"WAITING": 2}
    w.send(w.record(wire.Signalled, id="s", name="go", payload=b"1"))
    w.send(w.record(wire.Answered, id="y", node="p", attempt=2, answer=b"true"))
    child = ids.child_execution_id(f"{w.execution.id}/c/2")
    w.send(w.record(wire.ChildEnded, node="c", attempt=2, child=child, status="COMPLETED", output=b"3"))
    w.done("d")
    assert w.ended == "COMPLETED"


def test_a_dynamic_node_goes_on_with_its_frozen_nodes(world):
    """The nodes that were checked are not asked for again; the one that failed runs again."""
    w = world({"nodes": {"d": {"kind": "dynamic", "nodes": "${{ input.nodes }}"}}}).start(
        {"nodes": {"a": {"task": "t"}, "b": {"task": "t"}}}
    )
    frozen = canonical_bytes(parse_document({"name": "d", "nodes": {"a": {"task": "t"}, "b": {"task": "t"}}}))
    w.send(w.record(wire.Expanded, node="d", attempt=1, document=frozen))
    w.done("d/a", output=1)
    w.fail_for_good("d/b")
    assert w.ended == "FAILED"
    w.retry()
    assert (w.status("d"), w.status("d/a"), w.status("d/b")) == ("WAITING", "COMPLETED", "QUEUED")
    w.done("d/b", output=2)
    assert (w.ended, w.output) == ("COMPLETED", {"a": 1, "b": 2})
