"""Size: one event costs what it changes, and waves are linear. Times are bounds far above what is measured."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from wf_core import wire
from wf_core.store import ops as operations
from wf_orchestrator.machine.kinds import map as map_kind
from wf_orchestrator.machine.restore import fill, result_fields, skeleton
from wf_orchestrator.machine.snapshot import to_ops


def fold(w, nodes):
    """Completes the nodes in order; returns microseconds per event."""
    events = [w.result(node, 1, output=b"null") for node in nodes]
    start = time.perf_counter()
    for event in events:
        w.send(event)
    return (time.perf_counter() - start) / len(events) * 1e6


def report(record_property, name, value):
    record_property(name, round(value, 1))


def test_a_long_chain(world, record_property):
    """A chain of 10,000 nodes folds in time that does not depend on its length."""
    nodes = {f"n{i}": {"task": "t", "depends_on": [f"n{i - 1}"] if i else []} for i in range(10_000)}
    w = world({"nodes": nodes}, check=False).start()
    spent = fold(w, nodes)
    report(record_property, "µs_per_event", spent)
    assert w.ended == "COMPLETED"
    assert spent < 500


def test_a_wide_fan(world, record_property):
    """A fan of 20,000 nodes that all read one large output, and a node that waits for all of them."""
    wide = {f"n{i}": {"task": "t", "params": {"x": "${{ nodes.root.output.k }}"}} for i in range(20_000)}
    nodes = {"root": {"task": "t"}, **wide, "sink": {"task": "t", "depends_on": list(wide)}}
    w = world({"nodes": nodes}, check=False).start()
    start = time.perf_counter()
    w.done("root", output={"k": 1, "rest": "x" * 200_000})
    report(record_property, "fan_out_s", time.perf_counter() - start)
    assert time.perf_counter() - start < 10
    spent = fold(w, wide)
    report(record_property, "µs_per_event", spent)
    assert w.status("sink") == "QUEUED"
    w.done("sink")
    assert w.ended == "COMPLETED"
    assert spent < 500


def test_a_deep_wave(world):
    """A skip and an upstream failure travel down 100,000 nodes without recursion, in linear time."""
    nodes = {f"n{i}": {"task": "t", "depends_on": [f"n{i - 1}"]} for i in range(1, 100_000)}
    plan = world({"nodes": {"n0": {"task": "t", "when": "input.go"}, **nodes}, "on_failure": "continue"}).plan
    for go, end in ((False, "SKIPPED"), (True, "UPSTREAM_FAILED")):
        w = world(plan, check=False)
        start = time.perf_counter()
        w.start({"go": go})
        if go:
            w.fail_for_good("n0")
        ops = list(operations.split(to_ops(w.keys, [w.last])))
        assert time.perf_counter() - start < 20
        assert w.status("n99999") == end
        assert sum(op[0] == "SETRANGE" for op in ops) == 1


def test_a_limit_over_many(world, record_property):
    """20,000 nodes behind `max_parallel: 10` cost no more an event than without."""
    nodes = {f"n{i}": {"task": "t"} for i in range(20_000)}
    w = world({"nodes": nodes, "max_parallel": 10}, check=False).start()
    assert w.execution.counts["WAITING"] == 19_990
    spent = fold(w, nodes)
    report(record_property, "µs_per_event", spent)
    assert w.ended == "COMPLETED"
    assert spent < 500


def test_a_halt_of_many_is_linear(world):
    """A failure and a cancel over 10,000 nodes in flight take one step each."""
    nodes = {f"n{i}": {"task": "t"} for i in range(10_000)}
    for how in ("halt", "cancel"):
        w = world({"nodes": nodes, "on_failure": how}, check=False).start()
        start = time.perf_counter()
        w.fail_for_good("n0")
        w.cancel()
        assert time.perf_counter() - start < 10
        assert w.ended in ("FAILED", "CANCELLED")


def test_finished_nodes_cost_no_memory(world):
    """What only live nodes need is gone when they end."""
    nodes = {f"n{i}": {"task": "t", "depends_on": [f"n{i - 1}"] if i else []} for i in range(300)}
    w = world({"nodes": nodes}, check=False).start()
    tracemalloc.start()
    for node in list(nodes)[:250]:
        w.send(w.result(node, 1, output=b'"' + b"x" * 50_000 + b'"'))
        w.log.clear()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(w.execution.attempts), len(w.execution.inputs), len(w.execution.outputs)) == (0, 1, 0)
    assert held < 2_000_000


def test_loading_is_quick(world, record_property):
    """Loading 20,000 nodes takes a fraction of a second and needs only what is live."""
    nodes = {f"n{i}": {"task": "t"} for i in range(20_000)}
    w = world({"nodes": {**nodes, "sink": {"task": "t", "depends_on": list(nodes)}}}, check=False)
    w.create()
    w.store.apply(to_ops(w.keys, [w.last]))
    w.trigger()
    w.store.apply(to_ops(w.keys, [w.last]))
    fields = w.store.get(w.keys.execution(w.execution.id))
    cells = bytes(w.store.get(w.keys.nodes(w.execution.id)))
    results = w.store.get(w.keys.results(w.execution.id))
    start = time.perf_counter()
    x = skeleton(w.execution.id, w.plan, fields, cells, {})
    loaded = fill(x, {name: results[name] for name in result_fields(x) if name in results})
    spent = time.perf_counter() - start
    report(record_property, "load_ms", spent * 1000)
    assert loaded == w.execution
    assert spent < 2


def spent_on(w, what, nodes):
    """Seconds for one thing done to all of the nodes."""
    start = time.perf_counter()
    for node in nodes:
        what(node)
    return time.perf_counter() - start


def test_items_that_fail_behind_a_limit(world):
    """A failed item costs nothing for the others that wait for a slot."""
    body = {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}
    node = {"kind": "map", "items": list(range(5000)), "tolerate": "100%", "nodes": body}
    w = world({"nodes": {"m": node}, "max_parallel": 10}, check=False).start()
    assert spent_on(w, w.fail_for_good, [f"m[{i}]/a" for i in range(5000)]) < 10
    assert w.ended == "COMPLETED"


def test_what_is_undone_costs_nothing_for_the_rest(world):
    """Thousands of compensations are found in their order without looking at all of them each time."""
    nodes = {f"n{i}": {"task": "t", "compensate": {"task": "u"}} for i in range(8000)}
    w = world({"nodes": {**nodes, "z": {"task": "t"}}}, check=False).start()
    assert spent_on(w, w.done, nodes) < 5
    w.fail_for_good("z")
    assert spent_on(w, lambda node: w.done(f"{node}~compensate"), reversed(nodes)) < 5
    assert w.ended == "FAILED"


def test_bodies_are_forgotten_without_a_look_at_all_others(world):
    """Loops in a map that keep their last pass only, or are tried again, cost what is inside them."""
    inner = {"i": {"kind": "map", "items": [1], "nodes": {"a": {"task": "t"}}}}
    loop = {"kind": "loop", "until": "iteration == 3", "max_iterations": 4, "keep_last": 1, "nodes": inner}
    node = {"kind": "map", "items": list(range(1500)), "nodes": {"l": {**loop, "retry": {"max_retries": 1}}}}
    w = world({"nodes": {"m": node}}, check=False).start()
    tasks = [f"m[{i}]/l#{n}/i[0]/a" for n in range(4) for i in range(1500)]
    assert spent_on(w, w.done, tasks) < 10
    assert w.ended == "COMPLETED"


def test_a_resume_of_many_that_are_held(world):
    """Held nodes of other kinds than tasks are all begun by a resume."""
    nodes = {f"n{i}": {"kind": "workflow", "workflow": "x", "retry": {"max_retries": 1}} for i in range(5000)}
    w = world({"nodes": nodes}, check=False).start()
    w.pause()
    failed = {"child": "c", "status": "FAILED", "error": wire.Failure(type="A", message="b")}
    for node in nodes:
        w.send(w.record(wire.ChildEnded, node=node, attempt=1, **failed))
        w.verdict(node, 0)
        w.due(node)
    assert spent_on(w, lambda _: w.resume(), [""]) < 1
    assert w.execution.counts["WAITING"] == 5000


def test_a_list_of_items_is_decoded_once(world):
    """A list that is larger than what is kept decoded stays while items of it are asked for."""
    params = {"k": "${{ item.k }}", "o": "${{ nodes.a.output.z }}"}
    body = {"a": {"task": "t"}, "b": {"task": "t", "params": params}}
    node = {"kind": "map", "items": "${{ nodes.src.output }}", "nodes": body}
    w = world({"nodes": {"src": {"task": "t"}, "m": node}}, check=False).start()
    w.done("src", output=[{"k": i, "v": "x" * 100_000} for i in range(400)])
    assert spent_on(w, lambda one: w.done(one, output={"z": 1}), [f"m[{i}]/a" for i in range(400)]) < 5


def test_a_map_of_very_many_is_opened_in_steps(world):
    """No step is as long as a lease, however many items there are and whatever else happens meanwhile."""
    node = {"kind": "map", "items": list(range(25_000)), "nodes": {"a": {"task": "t"}}}
    w = world({"nodes": {"m": node}}, check=False).start()
    opened = [w.execution.counts["QUEUED"]]
    w.pause()
    w.timer("pass", "m")
    w.resume()
    opened.append(w.execution.counts["QUEUED"])
    w.timer("pass", "m")
    opened.append(w.execution.counts["QUEUED"])
    assert opened == [10_000, 20_000, 25_000]
    w.timer("pass", "m")
    for i in range(25_000):
        w.done(f"m[{i}]/a")
    assert w.ended == "COMPLETED"


@pytest.mark.parametrize("how", ["end", "cancel", "halt"])
def test_a_map_of_bodies_that_end_at_once_is_opened_in_steps(world, monkeypatch, how):
    """All items of one step may have ended before the next one: the map has not."""
    monkeypatch.setattr(map_kind, "MOST_AT_ONCE", 3)
    inner = {"i": {"kind": "map", "items": [1, 2], "nodes": {"a": {"kind": "end", "status": "COMPLETED"}}}}
    w = world({"nodes": {"m": {"kind": "map", "items": [1, 2, 3, 4, 5], "nodes": inner}, "b": {"task": "t"}}}).start()
    if how == "cancel":
        w.cancel()
    elif how == "halt":
        w.fail_for_good("b")
    for _ in range(9):
        for timer in [timer for timer in w.timers() if timer.startswith("pass")]:
            w.timer("pass", timer.split("/", 1)[1].rsplit("/", 1)[0])
    if how == "end":
        assert w.status("m") == "COMPLETED"
        w.done("b")
    assert w.execution.status.is_terminal
