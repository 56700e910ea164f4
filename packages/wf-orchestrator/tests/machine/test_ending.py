"""`catch`, `end`, `compensate`, `finally`, and how an execution comes to its end."""

from __future__ import annotations

import pytest

T = {"task": "t"}


def running(w):
    return sorted(path for path, status in w.statuses.items() if status == "QUEUED")


# -- catch


def caught(world, *, errors=("Oops",), **fields):
    params = {"e": "${{ problem.type }}", "n": "${{ nodes.a.error.node }}"}
    nodes = {
        "a": {**T, "catch": [{"errors": list(errors), "to": "rescue", "as": "problem"}]},
        "rescue": {"task": "t", "params": params},
        "b": {**T, "depends_on": ["a"]},
        "c": {**T, "depends_on": ["b", "rescue"], "join": "none_failed"},
        **fields,
    }
    return world({"nodes": nodes}).start()


def test_a_caught_failure_runs_its_target_and_fails_nothing(world):
    w = caught(world)
    w.fail_for_good("a")
    assert (w.status("a"), w.status("b"), running(w)) == ("FAILED", "SKIPPED", ["rescue"])
    assert w.params("rescue") == {"e": "Oops", "n": "a"}
    w.done("rescue", "c")
    assert w.ended == "COMPLETED"


def test_without_a_failure_the_target_is_skipped(world):
    w = caught(world)
    w.done("a", "b")
    assert w.status("rescue") == "SKIPPED"
    w.done("c")
    assert w.ended == "COMPLETED"


def test_another_class_is_not_caught(world):
    w = caught(world, errors=["Other"])
    w.fail_for_good("a")
    assert (w.ended, w.status("rescue"), w.status("b")) == ("FAILED", "SKIPPED", "UPSTREAM_FAILED")


def test_base_classes_are_caught(world):
    w = caught(world, errors=["OSError"])
    w.fail_for_good("a", classes=("ConnectionError", "OSError"))
    assert running(w) == ["rescue"]


def test_a_failed_map_is_caught(world):
    nodes = {
        "m": {"kind": "map", "items": [1], "nodes": {"one": T}, "catch": [{"to": "r"}]},
        "r": {"task": "t", "params": {"e": "${{ nodes.m.error.node }}"}},
    }
    w = world({"nodes": nodes}).start()
    w.fail_for_good("m[0]/one")
    assert w.params("r") == {"e": "m[0]/one"}
    w.done("r")
    assert w.ended == "COMPLETED"


# -- end


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED"])
def test_end_ends_the_execution_at_once(world, status):
    end = {"kind": "end", "status": status, "depends_on": ["a"]}
    end |= {"output": {"v": "${{ nodes.a.output }}"}} if status == "COMPLETED" else {}
    end |= {"error": {"type": "Bad", "message": "so ${{ nodes.a.output }}"}} if status == "FAILED" else {}
    nodes = {"a": T, "slow": T, "later": {**T, "depends_on": ["slow"]}, "stop": end}
    w = world({"nodes": nodes}).start()
    w.done("a", output=4)
    assert w.ended == status
    assert w.statuses == {"a": "COMPLETED", "slow": "CANCELLED", "later": "SKIPPED", "stop": "COMPLETED"}
    if status == "COMPLETED":
        assert w.output == {"v": 4}
    if status == "FAILED":
        assert (w.execution.error.type, w.execution.error.message) == ("Bad", "so 4")


@pytest.mark.parametrize(
    ("said", "type_", "message"),
    [
        ({"type": "Foo", "message": "out of ${{ input.what }}"}, "Foo", "out of stock"),
        ("out of ${{ input.what }}", "CancelledError", "out of stock"),
        ("${{ {'type': 'Foo'} }}", "Foo", "the node 'stop' ended it as CANCELLED"),
    ],
)
def test_an_end_that_cancels_says_why(world, said, type_, message):
    """The error of an `end` with CANCELLED is that of the execution, as with FAILED."""
    final = {"f": {"task": "t", "params": {"e": "${{ execution.error.type }}"}}}
    stop = {"kind": "end", "status": "CANCELLED", "error": said}
    w = world({"nodes": {"stop": stop}, "finally": final}).start({"what": "stock"})
    assert w.params("f") == {"e": type_}
    w.done("f")
    error = w.execution.error
    assert (w.ended, error.type, error.message, error.node) == ("CANCELLED", type_, message, "stop")


@pytest.mark.parametrize("said", [None, {"type": "Foo", "message": "enough"}])
def test_an_end_that_cancels_a_body_fails_it_with_its_error(world, said):
    """The container of a body sees a failure: the error of the `end`, or one that says what it did."""
    stop = {"kind": "end", "status": "CANCELLED", **({"error": said} if said else {})}
    w = world({"nodes": {"m": {"kind": "map", "items": [1], "nodes": {"stop": stop}}}}).start()
    error = w.execution.error
    type_, message = ("Foo", "enough") if said else ("CancelledError", "m[0] ended itself as CANCELLED")
    assert (w.ended, error.type, error.message) == ("FAILED", type_, f"1 of 1 item failed; m[0]: {message}")


def test_an_end_that_cancels_finally_fails_nothing(world):
    """With an error or without: what ran before it completed."""
    stop = {"kind": "end", "status": "CANCELLED", "error": "enough"}
    w = world({"nodes": {"a": T}, "finally": {"stop": stop}}).start()
    w.done("a")
    assert (w.ended, w.execution.error) == ("COMPLETED", None)


def test_end_inside_a_body_ends_the_body(world):
    body = {"x": T, "stop": {"kind": "end", "status": "COMPLETED", "output": "early", "when": "item == 1"}}
    w = world({"nodes": {"m": {"kind": "map", "items": [1, 2], "nodes": body}}}).start()
    assert running(w) == ["m[1]/x"]
    w.done("m[1]/x", output="late")
    assert w.output[0] == "early"


# -- compensate and finally


def saga(world, **more):
    undo = {"task": "undo", "params": {"id": "${{ nodes.a.output }}"}}
    nodes = {
        "a": {**T, "compensate": undo},
        "b": {**T, "depends_on": ["a"], "compensate": {"task": "undo", "params": {"id": "${{ nodes.b.output }}"}}},
        "c": {**T, "depends_on": ["b"]},
    }
    return world({"nodes": nodes, **more}).start()


def test_what_completed_is_undone_in_reverse_order(world):
    w = saga(world)
    w.done("a", output=1)
    w.done("b", output=2)
    w.fail_for_good("c")
    assert (w.ended, w.execution.ending, running(w)) == ("RUNNING", "FAILED", ["b~compensate"])
    assert w.params("b~compensate") == {"id": 2}
    w.fail("b~compensate")
    w.verdict("b~compensate", 0)
    w.due("b~compensate")
    w.done("b~compensate")
    assert w.params("a~compensate") == {"id": 1}
    w.done("a~compensate")
    assert (w.ended, w.execution.error.node) == ("FAILED", "c")


def test_a_cancel_undoes_too(world):
    w = saga(world)
    w.done("a", output=1)
    w.cancel()
    assert running(w) == ["a~compensate"]
    w.done("a~compensate")
    assert w.ended == "CANCELLED"


@pytest.mark.parametrize("said", [None, {"type": "OutOfStock", "message": "none left"}])
def test_a_failed_compensation_is_why_a_cancelled_execution_failed(world, said):
    """Whatever the `end` node said of the status that it wanted: that is a cause at most."""
    stop = {"kind": "end", "depends_on": ["a"], "status": "CANCELLED", **({"error": said} if said else {})}
    w = world({"nodes": {"a": {**T, "compensate": {"task": "undo"}}, "stop": stop}}).start()
    w.done("a")
    assert w.execution.ending == "CANCELLED"
    w.fail_for_good("a~compensate")
    error = w.execution.error
    assert (w.ended, error.type, error.node) == ("FAILED", "Oops", "a~compensate")
    assert [cause.type for cause in error.causes] == ([said["type"]] if said else [])
    assert len(w.history("execution.failing")) == 1


def test_a_second_cancel_ends_the_clean_up(world):
    w = saga(world, **{"finally": {"f": T}})
    w.done("a", output=1)
    w.cancel()
    w.cancel(command="again")
    assert (w.ended, w.status("a~compensate"), w.status("f")) == ("CANCELLED", "CANCELLED", "CANCELLED")


def test_nothing_is_undone_when_all_completed(world):
    w = saga(world)
    for node in ("a", "b", "c"):
        w.done(node)
    assert w.ended == "COMPLETED"


@pytest.mark.parametrize("how", ["COMPLETED", "FAILED", "CANCELLED"])
def test_finally_runs_however_it_ended(world, how):
    params = {"status": "${{ execution.status }}", "error": "${{ execution.error }}", "a": "${{ nodes.a.status }}"}
    final = {"f": {"task": "t", "params": params}, "g": {**T, "depends_on": ["f"]}}
    w = world({"nodes": {"a": T}, "finally": final}).start()
    assert w.status("f") == "PENDING"
    {"COMPLETED": lambda: w.done("a"), "FAILED": lambda: w.fail_for_good("a"), "CANCELLED": w.cancel}[how]()
    assert (w.ended, w.execution.ending) == ("RUNNING", how)
    assert w.params("f")["status"] == how
    assert (w.params("f")["error"] is None) == (how != "FAILED")
    w.done("f", "g")
    assert w.ended == how


def test_a_failure_of_finally_turns_completed_into_failed(world):
    w = world({"nodes": {"a": T}, "finally": {"f": T}}).start()
    w.done("a")
    w.fail_for_good("f")
    assert (w.ended, w.execution.error.node) == ("FAILED", "f")


def test_a_failure_of_finally_undoes_nothing(world):
    """The work completed: it and the output stay, and a retry runs `finally` alone."""
    w = world({"nodes": {"a": {**T, "compensate": {"task": "undo"}}}, "finally": {"f": T}}).start()
    w.done("a", output=1)
    w.fail_for_good("f")
    assert (w.ended, w.output, set(w.statuses)) == ("FAILED", 1, {"a", "f"})
    w.retry()
    assert w.statuses == {"a": "COMPLETED", "f": "QUEUED"}
    w.done("f")
    assert (w.ended, w.output) == ("COMPLETED", 1)


def test_a_deadline_still_runs_finally(world):
    w = world({"nodes": {"a": T}, "finally": {"f": T}, "timeout": "1s"}).start()
    w.deadline()
    assert (w.status("a"), w.execution.ending) == ("CANCELLED", "FAILED")
    w.done("f")
    assert (w.ended, w.execution.error.type) == ("FAILED", "TimeoutError")


def test_a_cancel_before_the_start_runs_nothing(world):
    w = world({"nodes": {"a": T}, "finally": {"f": T}}).create()
    w.cancel()
    assert (w.ended, w.status("f")) == ("CANCELLED", "CANCELLED")


def test_a_node_of_a_map_is_undone(world):
    body = {"one": {**T, "compensate": {"task": "undo", "params": {"v": "${{ item }}"}}}}
    w = world({"nodes": {"m": {"kind": "map", "items": [7], "nodes": body}, "x": {**T, "depends_on": ["m"]}}}).start()
    w.done("m[0]/one")
    w.fail_for_good("x")
    assert w.params("m[0]/one~compensate") == {"v": 7}
    w.done("m[0]/one~compensate")
    assert w.ended == "FAILED"
