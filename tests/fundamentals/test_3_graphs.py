"""How a graph decides what runs."""

from __future__ import annotations

import pytest


def echo(*after, value=None, **fields):
    """An echo node."""
    return {"task": "core.echo", "depends_on": list(after), "params": {"value": value}, **fields}


async def test_a_guard_skips_a_node_and_skips_travel_down(engine):
    """`when: false` is SKIPPED; so is what needs its success; `none_failed` goes on."""
    nodes = {
        "a": echo(value=1),
        "b": echo(value=2, when="nodes.a.output > 5"),
        "c": echo("b"),
        "d": echo("a", "b", join="none_failed", value="${{ nodes.b.output == null ? 0 : nodes.b.output }}"),
    }
    view = await engine.run({"name": "guards", "nodes": nodes, "output": "${{ nodes.d.output }}"})
    assert (view["status"], view["output"]) == ("COMPLETED", 0)
    assert {n: v["status"] for n, v in view["nodes"].items()} == {
        "a": "COMPLETED",
        "b": "SKIPPED",
        "c": "SKIPPED",
        "d": "COMPLETED",
    }


async def test_max_parallel_bounds_what_is_in_flight(engine):
    """Never more than `max_parallel` attempts of an execution run at once."""
    nodes = {f"n{i}": {"task": "core.sleep", "params": {"seconds": 0.1}} for i in range(9)}
    view = await engine.run({"name": "bounded", "max_parallel": 3, "nodes": nodes})
    assert view["counts"] == {"COMPLETED": 9}
    spans = sorted((n["started_at"], n["ended_at"]) for n in view["nodes"].values())
    most = max(sum(1 for s, e in spans if s <= start < e) for start, _ in spans)
    assert 1 < most <= 3


async def test_priorities_decide_who_goes_first(engine):
    """With one slot in the execution, higher priorities start earlier."""
    nodes = {f"p{p}": {"task": "core.echo", "priority": p, "params": {"value": p}} for p in (1, 9, 5)}
    document = {"name": "priorities", "max_parallel": 1, "scheduling": "priority", "nodes": nodes}
    view = await engine.run(document)
    assert [n for n, _ in sorted(view["nodes"].items(), key=lambda kv: kv[1]["started_at"])] == ["p9", "p5", "p1"]


@pytest.mark.timeout(180)
async def test_a_fan_out_and_fan_in_of_20000_nodes_completes(engine):
    """The engine takes large graphs; each node completes once."""
    nodes = {"first": {"task": "core.noop"}}
    nodes |= {f"n{i}": {"task": "core.noop", "depends_on": ["first"]} for i in range(20_000)}
    nodes["last"] = {"task": "core.noop", "depends_on": [f"n{i}" for i in range(20_000)]}
    view = await engine.run({"name": "wide", "nodes": nodes}, seconds=150)
    assert view["status"] == "COMPLETED"
    assert view["counts"] == {"COMPLETED": 20_002}


@pytest.mark.timeout(240)
async def test_a_chain_of_10000_nodes_completes(engine):
    """Depth costs nothing but time."""
    nodes = {f"n{i}": {"task": "core.noop", "depends_on": [f"n{i - 1}"] if i else []} for i in range(10_000)}
    view = await engine.run({"name": "deep", "nodes": nodes}, seconds=200)
    assert view["status"] == "COMPLETED"
    assert view["counts"] == {"COMPLETED": 10_000}
