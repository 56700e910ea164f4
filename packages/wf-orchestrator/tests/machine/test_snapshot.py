"""What is written to Redis, to the byte and to the key."""

from __future__ import annotations

from typing import cast

import pytest

from wf_core import wire
from wf_core.store import ops as operations
from wf_core.store.codec import MOST_LINES, history_lines, unpack_nodes
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import Dispatch
from wf_orchestrator.machine.restore import fill, skeleton
from wf_orchestrator.machine.snapshot import outbox_score, to_ops

NODES = {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"], "queue": "slow"}}


def test_the_keys_of_a_creation(world):
    """A creation writes the execution, its indexes and its history, and takes its command out of the accepted ones."""
    w = world({"nodes": NODES}).create()
    ops = {(op[0], op[1]) for op in to_ops(w.keys, [w.last])}
    x = w.execution.id
    assert ops == {
        ("HSET", f"wf:{{0}}:x:{x}"),
        ("ZADD", "wf:{0}:ix:all"),
        ("ZADD", "wf:{0}:ix:n:test"),
        ("ZADD", "wf:{0}:ix:l:team=a"),
        ("ZADD", "wf:{0}:ix:s:PENDING"),
        ("XADD", f"wf:{{0}}:h:{x}"),
        ("HDEL", "wf:{0}:acc"),
    }


def test_a_batch_is_coalesced(world):
    """An attempt that came and went within one batch is not written, nor a status or cell that did not last."""
    w = world({"nodes": NODES}).create()
    outcomes = []
    for event in (
        w.record(wire.Triggered, id="t"),
        w.result("a", 1, output=b"1"),
        w.result("b", 1, output=b"2"),
    ):
        outcomes.append(decide(w.partition, w.x, event, 1 + len(outcomes), w.plan))
    ops = to_ops(w.keys, outcomes)
    assert {op[0] for op in ops} == {"HSET", "SETRANGE", "XADD", "ZREM", "ZADD", "HDEL", "SADD"}
    assert not [op for op in ops if op[1] in (w.keys.in_flight, w.keys.messages, w.keys.outbox("default"))]
    (cells,) = (op for op in ops if op[0] == "SETRANGE")
    assert [cell[0] for cell in unpack_nodes(cells[3], 2)] == ["COMPLETED", "COMPLETED"]
    statuses = [op for op in ops if "ix:s:" in op[1]]
    assert statuses == [
        ("ZREM", "wf:{0}:ix:s:PENDING", w.execution.id),
        ("ZADD", "wf:{0}:ix:s:COMPLETED", str(w.execution.created_at), w.execution.id),
    ]


def test_history_ids_grow_across_logs(world):
    """The place of a line is its position in the log, above all of the log before it, then a number."""
    w = world({"nodes": NODES}).create()
    created = w.last
    w.trigger()
    (entry,) = (op for op in to_ops(w.keys, [created, w.last], generation=3) if op[0] == "XADD")
    first = 3 * 2**44
    assert entry[2] == f"{first + 1}-2"
    lines = history_lines(str(entry[2]).encode(), {b"lines": cast("bytes", entry[4])})
    assert [line.seq for line in lines] == [f"{first}-1", f"{first + 1}-1", f"{first + 1}-2"]


def test_an_entry_of_the_history_holds_so_many_lines(world):
    """So that a page of it is read without a mass of others."""
    w = world({"nodes": {f"n{i}": {"task": "t"} for i in range(2 * MOST_LINES)}}).start()
    entries = [op for op in to_ops(w.keys, [w.last]) if op[0] == "XADD"]
    told = [len(history_lines(b"0-0", {b"lines": cast("bytes", entry[4])})) for entry in entries]
    assert told == [MOST_LINES, MOST_LINES, 1]


def test_the_outbox_orders_by_priority_then_dispatch(world):
    """Scores of the outbox: a higher priority comes first, whenever it was dispatched; else the order of dispatch."""
    nodes = {"a": {"task": "t", "priority": 0}, "b": {"task": "t", "priority": 9}, "c": {"task": "t", "priority": 9}}
    w = world({"nodes": nodes}).start()
    entries = [effect for effect in w.last.effects if isinstance(effect, Dispatch)]
    ranked = sorted(entries, key=lambda e: int(outbox_score(e)))
    assert [entry.ready.node for entry in ranked] == ["b", "c", "a"]
    last = max(int(outbox_score(e)) for e in entries)
    assert last < 2**53


def test_every_operation_is_one_that_apply_takes(world):
    """All operations pass the store's own check, also when they are long."""
    nodes = {f"n{i}": {"task": "t"} for i in range(1200)}
    w = world({"nodes": nodes}).start()
    w.cancel()
    assert all(len(op) <= operations.MOST_ARGUMENTS + 2 for op in operations.split(to_ops(w.keys, [w.last])))


def test_outcomes_without_changes_write_nothing(world):
    """A stale event leads to no operation at all."""
    w = world({"nodes": NODES}).start()
    w.send(w.result("a", 5, output=b"1"))
    assert to_ops(w.keys, [w.last]) == []


def test_an_execution_that_ended_loads_without_its_document(world):
    """An ended execution is loaded from its fields alone, and accepts commands without changing."""
    w = world({"nodes": NODES}).start()
    w.done("a", "b", output=1)
    x = fill(skeleton(w.execution.id, None, w.store.get(w.keys.execution(w.execution.id)), b"", {}), {})
    assert (x.status, x.output, x.commands) == (w.execution.status, b"1", w.execution.commands)
    outcome = decide(w.partition, x, w.record(wire.Cancelled, id="k"), 9)
    assert (outcome.crash, outcome.changed_fields, len(outcome.effects)) == ("", {}, 1)
    assert not decide(w.partition, x, w.record(wire.Lost, node="a", attempt=1, reason="dead"), 10).effects


def test_a_late_deadline_of_an_execution_that_ended_means_nothing(world):
    """Its timer may have fired twice: the execution, loaded without its document, takes no notice."""
    w = world({"nodes": NODES, "timeout": "1h"}).start()
    w.done("a", "b", output=1)
    x = fill(skeleton(w.execution.id, None, w.store.get(w.keys.execution(w.execution.id)), b"", {}), {})
    outcome = decide(w.partition, x, w.record(wire.Timer, timer="deadline"), 9)
    assert (outcome.crash, outcome.effects, outcome.history) == ("", [], [])


def test_a_live_execution_whose_document_is_gone_fails(world):
    """A live execution that is loaded without its document is FAILED by the next event about it."""
    w = world({"nodes": NODES}).start()
    x = fill(skeleton(w.execution.id, None, w.store.get(w.keys.execution(w.execution.id)), b"", {}), {})
    outcome = decide(w.partition, x, w.record(wire.Lost, node="a", attempt=1, reason="dead"), 9)
    assert w.plan.hash in outcome.crash
    assert x.error is not None
    assert (str(x.status), x.error.type) == ("FAILED", "InternalError")
    assert outcome.moved == ("RUNNING", "FAILED")


def test_fields_of_a_newer_version_are_ignored(world):
    """A field that this version does not know does not stop it from loading an execution."""
    w = world({"nodes": NODES}).start()
    w.store.hset(w.keys.execution(w.execution.id), "later", "x")
    assert w.store.load(w.execution.id, w.plan) == w.execution


def test_a_missing_field_is_an_error(world):
    """An execution without one of its fields is no execution."""
    with pytest.raises((KeyError, TypeError)):
        skeleton("x", None, {"status": b"RUNNING"}, b"", {})
