"""`max_parallel`: how many attempts of an execution are in flight."""

from __future__ import annotations


def test_nodes_wait_for_a_slot(world):
    """No more than `max_parallel` attempts are in flight; the others start by priority, then in listing order."""
    priorities = {"a": 1, "b": 5, "c": 9, "d": 5, "e": 9}
    nodes = {name: {"task": "t", "priority": priority} for name, priority in priorities.items()}
    w = world({"nodes": nodes, "max_parallel": 2}).start()
    assert w.statuses == {"a": "WAITING", "b": "WAITING", "c": "QUEUED", "d": "WAITING", "e": "QUEUED"}
    order = []
    while w.ended == "RUNNING":
        running = [name for name, status in w.statuses.items() if status == "QUEUED"]
        assert len(running) <= 2
        order.append(running[0])
        w.done(running[0])
    assert [token.split("/")[1] for token in w.dispatched] == ["c", "e", "b", "d", "a"]
    assert w.ended == "COMPLETED"


def test_a_node_of_higher_priority_overtakes(world):
    """A node that becomes ready later goes before those that wait, when its priority is higher."""
    nodes = {
        "a": {"task": "t", "priority": 9},
        "b": {"task": "t"},
        "c": {"task": "t", "depends_on": ["a"], "priority": 8},
    }
    w = world({"nodes": nodes, "max_parallel": 1}).start()
    w.done("a")
    assert w.statuses == {"a": "COMPLETED", "b": "WAITING", "c": "QUEUED"}


def test_a_retry_waits_for_a_slot_too(world):
    """A node that waits for its retry holds no slot, and when the retry is due it waits for one."""
    w = world({"nodes": {"a": {"task": "t"}, "b": {"task": "t"}}, "max_parallel": 1}).start()
    w.fail("a")
    assert w.statuses == {"a": "RETRYING", "b": "QUEUED"}
    w.verdict("a", 10)
    w.due("a")
    assert w.statuses == {"a": "WAITING", "b": "QUEUED"}
    assert not w.due("a").effects
    w.done("b")
    assert (w.status("a"), w.attempt("a")) == ("QUEUED", 2)
    w.done("a")
    assert w.ended == "COMPLETED"


def test_a_loss_keeps_its_slot(world):
    """The attempt that follows a lost one takes its slot, ahead of those that wait."""
    w = world(
        {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "priority": 9}, "c": {"task": "t"}}, "max_parallel": 1}
    ).start()
    w.lose("b")
    assert w.statuses == {"a": "WAITING", "b": "QUEUED", "c": "WAITING"}


def test_waiting_nodes_are_stopped_by_a_halt(world):
    """Nodes that wait for a slot when the execution fails are CANCELLED, clean-up among them still runs."""
    nodes = {"bad": {"task": "t", "priority": 9}, "x": {"task": "t"}, "clean": {"task": "t", "join": "always"}}
    w = world({"nodes": nodes, "max_parallel": 1}).start()
    w.fail_for_good("bad")
    w.done("x") if w.status("x") == "QUEUED" else w.done("clean")
    assert w.ended in ("FAILED", "RUNNING")


def test_a_halt_among_many_that_wait(world):
    """After a halt with one slot, only clean-up takes it."""
    nodes = {"bad": {"task": "t", "priority": 9}}
    nodes |= {f"x{i}": {"task": "t"} for i in range(5)}
    nodes |= {"clean": {"task": "t", "join": "always", "priority": 0}}
    w = world({"nodes": nodes, "max_parallel": 1, "on_failure": "cancel"}).start()
    w.fail_for_good("bad")
    assert w.status("clean") == "QUEUED"
    assert {w.status(f"x{i}") for i in range(5)} == {"CANCELLED"}
    w.done("clean")
    assert w.ended == "FAILED"


def test_parameters_of_waiting_nodes_are_evaluated_when_they_start(world):
    """A node that waits for a slot evaluates its parameters when it starts, and frees the slot when they fail."""
    nodes = {
        "a": {"task": "t", "priority": 9},
        "b": {"task": "t", "params": {"x": "${{ input.missing }}"}, "on_error": "continue"},
        "c": {"task": "t"},
    }
    w = world({"nodes": nodes, "max_parallel": 1}).start()
    assert w.statuses == {"a": "QUEUED", "b": "WAITING", "c": "WAITING"}
    w.done("a")
    assert w.statuses == {"a": "COMPLETED", "b": "FAILED", "c": "QUEUED"}
