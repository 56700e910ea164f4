"""Switches, maps, loops and what is nested in them."""

from __future__ import annotations

import json

import pytest

T = {"task": "t"}


def running(w):
    return sorted(path for path, status in w.statuses.items() if status == "QUEUED")


def all_done(w, output=None):
    """Completes whatever runs until nothing does."""
    while queued := running(w):
        for node in queued:
            if w.status(node) == "QUEUED":
                w.done(node, output=output)


# -- switch


def switched(world, value):
    cases = [{"when": "input.n > 10", "to": ["big"]}, {"when": "input.n > 5", "to": ["middle", "both"]}]
    nodes = {
        "s": {"kind": "switch", "cases": cases, "default": ["small", "both"]},
        "big": T,
        "middle": T,
        "small": T,
        "both": T,
        "after": {"task": "t", "depends_on": ["big", "middle", "small"], "join": "any_success"},
    }
    return world({"nodes": nodes}).start({"n": value})


@pytest.mark.parametrize(
    ("value", "index", "taken"),
    [(20, 0, ["big"]), (7, 1, ["both", "middle"]), (1, -1, ["both", "small"])],
)
def test_switch_takes_the_first_case_that_holds(world, value, index, taken):
    w = switched(world, value)
    assert running(w) == taken
    assert json.loads(w.store.get(w.keys.results(w.execution.id))["o:s"]) == index
    skipped = {"big", "middle", "small", "both"} - set(taken)
    assert all(w.status(node) == "SKIPPED" for node in skipped)
    all_done(w)
    assert w.ended == "COMPLETED"
    assert w.status("after") == "COMPLETED"


def test_unchosen_nodes_are_skipped_whatever_their_join(world):
    cases = [{"when": "true", "to": ["yes"]}]
    nodes = {
        "s": {"kind": "switch", "cases": cases, "default": ["no"]},
        "yes": T,
        "no": {"task": "t", "join": "all_done"},
    }
    w = world({"nodes": nodes}).start()
    assert w.status("no") == "SKIPPED"


@pytest.mark.parametrize("order", [("a", "p", "b"), ("p", "a", "b"), ("a", "b", "p"), ("b", "p", "a")])
@pytest.mark.parametrize("chosen", [True, False])
def test_a_switch_is_heard_before_a_join_that_starts_early(world, order, chosen):
    """In whatever order its upstream ends: a node that was not chosen is skipped, one that was starts by its join."""
    switch = {"kind": "switch", "depends_on": ["p"], "cases": [{"when": str(chosen).lower(), "to": ["x"]}]}
    nodes = {
        **dict.fromkeys(order, T),
        "s": {**switch, "default": ["other"]},
        "x": {**T, "depends_on": ["a", "b"], "join": "any_success"},
        "other": T,
    }
    w = world({"nodes": nodes}).start()
    for node in order:
        assert w.status("x") == ("QUEUED" if chosen and w.status("s") == "COMPLETED" else "PENDING")
        w.done(node)
    assert w.status("x") == ("QUEUED" if chosen else "SKIPPED")


def test_a_switch_whose_case_fails_to_evaluate_fails(world):
    nodes = {"s": {"kind": "switch", "cases": [{"when": "input.nope == 1", "to": ["a"]}], "default": ["a"]}, "a": T}
    w = world({"nodes": nodes}).start()
    assert (w.ended, w.status("s"), w.status("a")) == ("FAILED", "FAILED", "UPSTREAM_FAILED")


# -- map


def mapped(world, items, **fields):
    node = {"kind": "map", "items": "${{ input.items }}", "nodes": {"one": T}, **fields}
    return world({"nodes": {"m": node}}).start({"items": items})


def test_a_map_gives_outputs_in_the_order_of_the_items(world):
    params = {"task": "t", "params": {"v": "${{ item }}", "i": "${{ index }}"}}
    w = mapped(world, ["a", "b", "c"], nodes={"one": params})
    assert running(w) == ["m[0]/one", "m[1]/one", "m[2]/one"]
    assert w.params("m[1]/one") == {"v": "b", "i": 1}
    w.done("m[2]/one", output="C")
    w.done("m[0]/one", output="A")
    assert w.status("m") == "WAITING"
    w.done("m[1]/one", output="B")
    assert (w.ended, w.output) == ("COMPLETED", ["A", "B", "C"])


def test_short_form_of_a_map(world):
    nodes = {"m": {"kind": "map", "items": [1, 2], "as": "x", "task": "t", "params": {"x": "${{ x }}"}}}
    w = world({"nodes": nodes}).start()
    assert running(w) == ["m[0]", "m[1]"]
    assert w.params("m[1]") == {"x": 2}
    w.done("m[0]", "m[1]", output=5)
    assert w.output == [5, 5]


def test_an_empty_list_completes_at_once(world):
    w = mapped(world, [])
    assert (w.ended, w.output) == ("COMPLETED", [])


def test_items_that_are_no_list_fail_the_map_and_name_the_type(world):
    w = mapped(world, {"a": 1})
    assert w.ended == "FAILED"
    assert "an object" in w.execution.error.message


def test_max_parallel_opens_the_next_item_when_one_ends(world):
    w = mapped(world, list(range(5)), max_parallel=2)
    assert running(w) == ["m[0]/one", "m[1]/one"]
    w.done("m[1]/one", output=1)
    assert running(w) == ["m[0]/one", "m[2]/one"]
    all_done(w, 1)
    assert w.output == [1] * 5


def test_sequential_is_one_at_a_time(world):
    w = mapped(world, [1, 2], order="sequential")
    assert running(w) == ["m[0]/one"]
    all_done(w)
    assert w.ended == "COMPLETED"


def test_a_failed_item_stops_new_ones_and_fails_the_map(world):
    w = mapped(world, list(range(4)), max_parallel=2)
    w.fail_for_good("m[0]/one")
    assert w.status("m") == "WAITING"  # what runs finishes
    w.done("m[1]/one")
    assert (w.ended, w.status("m")) == ("FAILED", "FAILED")
    assert w.execution.error.node == "m[0]/one"
    assert "m[2]/one" not in w.statuses


def test_tolerated_failures_are_null(world):
    w = mapped(world, list(range(4)), tolerate="25%", max_parallel=2)
    w.fail_for_good("m[0]/one")
    all_done(w, 7)
    assert (w.ended, w.output) == ("COMPLETED", [None, 7, 7, 7])


def test_skipped_items_are_null(world):
    one = {"task": "t", "when": "item != 2"}
    w = mapped(world, [1, 2, 3], nodes={"one": one})
    all_done(w, "x")
    assert w.output == ["x", None, "x"]


def test_batches(world):
    one = {"task": "t", "params": {"v": "${{ item }}"}}
    w = mapped(world, [1, 2, 3], nodes={"one": one}, batch=2)
    assert running(w) == ["m[0]/one", "m[1]/one"]
    assert w.params("m[0]/one") == {"v": [1, 2]}
    w.done("m[0]/one", output=["a", "b"])
    w.done("m[1]/one", output=["c"])
    assert w.output == ["a", "b", "c"]


def test_a_batch_that_gives_no_list_fails(world):
    w = mapped(world, [1, 2], batch=2)
    w.done("m[0]/one", output=5)
    assert w.ended == "FAILED"
    assert w.execution.error.message.endswith("m[0] had 2 items and gave a number")


def test_a_batch_that_gives_too_much_fails(world):
    w = mapped(world, [1], batch=2)
    w.done("m[0]/one", output=[5, 6])
    assert w.execution.error.message.endswith("m[0] had 1 item and gave a list of 2")


@pytest.mark.parametrize(
    ("items", "tolerate", "told"),
    [([1, 2], 1, "2 of 2 items failed, 1 is tolerated; m[0]: "), ([1], 0, "1 of 1 item failed; m[0]: ")],
)
def test_a_failed_map_says_how_many_failed(world, items, tolerate, told):
    w = mapped(world, items, tolerate=tolerate)
    for item in range(len(items)):
        w.fail_for_good(f"m[{item}]/one")
    assert w.execution.error.message.startswith(told)


def test_outer_nodes_are_seen_from_inside(world):
    nodes = {
        "a": T,
        "m": {"kind": "map", "items": [1], "nodes": {"one": {"task": "t", "params": {"v": "${{ nodes.a.output }}"}}}},
    }
    w = world({"nodes": nodes}).start()
    assert w.status("m") == "PENDING"
    w.done("a", output=9)
    assert w.params("m[0]/one") == {"v": 9}


def test_a_map_tried_again_opens_its_items_anew(world):
    retry = {"max_retries": 1}
    w = mapped(world, [1, 2], retry=retry)
    w.fail_for_good("m[0]/one")
    w.done("m[1]/one")
    assert w.status("m") == "RETRYING"
    w.verdict("m", 0)
    w.due("m")
    assert w.attempt("m") == 2
    assert w.attempt("m[1]/one") == 2  # numbers go on
    all_done(w, 3)
    assert w.output == [3, 3]
    assert [a["status"] for a in w.attempts("m[0]/one")] == ["FAILED", "COMPLETED"]


def test_cancel_reaches_what_is_inside(world):
    w = mapped(world, [1, 2])
    w.cancel()
    assert w.ended == "CANCELLED"
    assert set(w.statuses.values()) == {"CANCELLED"}


def test_halt_lets_items_finish_and_opens_no_more(world):
    node = {"kind": "map", "items": [1, 2, 3], "max_parallel": 1, "nodes": {"a": T, "b": {**T, "depends_on": ["a"]}}}
    w = world({"nodes": {"m": node, "x": T}}).start()
    w.fail_for_good("x")
    assert w.status("m") == "WAITING"
    w.done("m[0]/a")
    assert w.status("m[0]/b") == "CANCELLED"
    assert (w.ended, w.status("m")) == ("FAILED", "CANCELLED")


# -- loop


def looped(world, **fields):
    node = {"kind": "loop", "max_iterations": 10, "nodes": {"step": T}, **fields}
    return world({"nodes": {"l": node}}).start({})


def test_until_sees_the_nodes_of_its_pass(world):
    w = looped(world, until="nodes.step.output >= 3")
    for n in range(4):
        assert running(w) == [f"l#{n}/step"]
        w.done(f"l#{n}/step", output=n)
    assert (w.ended, w.output) == ("COMPLETED", 3)


def test_while_is_tested_before_each_pass(world):
    step = {"task": "t", "params": {"n": "${{ iteration }}", "last": "${{ last }}"}}
    w = looped(world, **{"while": "iteration < 2"}, nodes={"step": step})
    assert w.params("l#0/step") == {"n": 0, "last": None}
    w.done("l#0/step", output="a")
    assert w.params("l#1/step") == {"n": 1, "last": "a"}
    w.done("l#1/step", output="b")
    assert (w.ended, w.output) == ("COMPLETED", "b")


def test_no_pass_at_all_gives_null(world):
    w = looped(world, **{"while": "false"})
    assert (w.ended, w.output) == ("COMPLETED", None)


def test_too_many_passes_fail(world):
    w = looped(world, until="false", max_iterations=2)
    all_done(w)
    assert (w.ended, w.execution.error.type) == ("FAILED", "LoopLimitError")


def test_delay_waits_for_a_timer(world):
    w = looped(world, until="iteration == 1", delay="1s")
    w.done("l#0/step")
    assert running(w) == []
    assert [kind.split("|")[0] for kind in w.timers()] == ["pass"]
    w.timer("pass", "l")
    w.done("l#1/step")
    assert w.ended == "COMPLETED"


def test_keep_last_takes_over_cells(world):
    w = looped(world, until="iteration == 9", keep_last=2)
    all_done(w, 4)
    assert sorted(w.statuses) == ["l", "l#8/step", "l#9/step"]
    assert w.execution.size == 3
    fields = w.store.get(w.keys.results(w.execution.id))
    assert sorted(fields) == ["a:l", "a:l#8/step", "a:l#9/step", "i:l", "i:l#8/step", "i:l#9/step", "o:l", "o:l#8",
                              "o:l#8/step", "o:l#9", "o:l#9/step"]  # fmt: skip


def test_a_failed_pass_fails_the_loop(world):
    w = looped(world, until="false")
    w.done("l#0/step")
    w.fail_for_good("l#1/step")
    assert (w.ended, w.execution.error.node) == ("FAILED", "l#1/step")


@pytest.mark.parametrize("keep", [{}, {"keep_last": 1}])
def test_a_loop_tried_again_never_uses_a_token_twice(world, keep):
    w = looped(world, until="iteration == 2", retry={"max_retries": 1}, **keep)
    w.done("l#0/step", "l#1/step")
    w.fail_for_good("l#2/step")
    w.verdict("l", 0)
    w.due("l")
    assert w.attempt("l#0/step") == 2
    all_done(w)
    assert w.ended == "COMPLETED"


def test_a_thousand_empty_passes(world):
    switch = {"kind": "switch", "cases": [{"when": "false", "to": ["x"]}], "default": ["x"]}
    body = {"s": switch, "x": {**T, "when": "false"}}
    loop = {"kind": "loop", "until": "iteration == 999", "max_iterations": 1000, "nodes": body}
    w = world({"nodes": {"l": loop}}, check=False).start()
    while w.ended == "RUNNING":
        w.timer("pass", "l")
    assert w.ended == "COMPLETED"


# -- nesting


def test_a_loop_in_a_map_in_a_loop(world):
    inner = {"kind": "loop", "until": "iteration == 1", "max_iterations": 3, "nodes": {"leaf": {
        "task": "t", "params": {"item": "${{ item }}", "i": "${{ iteration }}"}}}}  # fmt: skip
    middle = {"kind": "map", "items": [10, 20], "nodes": {"inner": inner}}
    outer = {"kind": "loop", "until": "iteration == 1", "max_iterations": 3, "nodes": {"middle": middle}}
    w = world({"nodes": {"outer": outer}}).start()
    assert running(w) == ["outer#0/middle[0]/inner#0/leaf", "outer#0/middle[1]/inner#0/leaf"]
    assert w.params("outer#0/middle[1]/inner#0/leaf") == {"item": 20, "i": 0}
    all_done(w, 6)
    assert (w.ended, w.output) == ("COMPLETED", [6, 6])
    assert len([path for path in w.statuses if path.endswith("leaf")]) == 8


def test_thirty_two_levels(world):
    node = T
    for level in range(31, 0, -1):
        node = {"kind": "map", "items": [1], "nodes": {f"n{level}": node}}
    w = world({"nodes": {"n0": node}}).start()
    (leaf,) = running(w)
    assert leaf == "[0]/".join(f"n{level}" for level in range(32))
    w.done(leaf, output=0)
    assert w.ended == "COMPLETED"


def test_keep_last_around_other_containers(world):
    middle = {"kind": "map", "items": [1, 2], "nodes": {"one": T}}
    outer = {"kind": "loop", "until": "iteration == 4", "max_iterations": 9, "keep_last": 1, "nodes": {"m": middle}}
    w = world({"nodes": {"outer": outer, "z": T}}).start()
    while [n for n in running(w) if n != "z"]:
        w.done(*[n for n in running(w) if n != "z"])
    w.done("z")
    assert w.ended == "COMPLETED"
    assert sorted(w.statuses) == ["outer", "outer#4/m", "outer#4/m[0]/one", "outer#4/m[1]/one", "z"]
