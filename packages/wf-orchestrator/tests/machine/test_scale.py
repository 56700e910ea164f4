"""Size: one event costs what it changes, and waves are linear. Times are bounds far above what is measured."""

from __future__ import annotations

import time
import tracemalloc

from wf_core.store import ops as operations
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
