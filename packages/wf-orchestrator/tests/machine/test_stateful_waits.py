"""Random histories of documents that wait, in bodies too. `World.send` compares memory and store after each event."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from wf_core import wire
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import PartitionState

QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
NAMES = ("a", "b")
TERMS = st.sampled_from([{"signal": "a"}, {"signal": "b", "match": "payload.n > 1"}, {"duration": "1s"}])
MANY = st.sampled_from(
    [
        [{"signal": "a"}, {"duration": "2s"}],
        [{"signal": "b"}, {"signal": "a", "match": "payload.n == 2"}],
        [{"until": "1970-01-01T00:20:00Z"}, {"signal": "a"}, {"signal": "b"}],
    ]
)
ENDS = st.fixed_dictionaries(
    {},
    optional={
        "timeout": st.just("3s"),
        "on_timeout": st.sampled_from(["fail", "skip", {"value": 1}]),
        "retry": st.just({"max_retries": 1}),
        "on_error": st.just("continue"),
    },
)


@st.composite
def bodies(draw: st.DrawFn, prefix: str, depth: int = 0) -> dict[str, Any]:
    """A few nodes, each perhaps after the one before it."""
    nodes: dict[str, Any] = {}
    for n in range(draw(st.integers(1, 3))):
        name = f"{prefix}{n}"
        kind = draw(st.sampled_from(["one", "any", "all", "approval", "task", *([] if depth else ["map", "loop"])]))
        if kind == "task":
            node: dict[str, Any] = {"task": "t"}
        elif kind == "map":
            node = {"kind": "map", "items": [1, 2], "nodes": draw(bodies(f"{name}x", 1))}
        elif kind == "loop":
            again = {"until": "iteration == 2", "max_iterations": 3, "keep_last": draw(st.sampled_from([1, 2]))}
            node = {"kind": "loop", **again, "nodes": draw(bodies(f"{name}x", 1))}
        elif kind == "approval":
            node = {"kind": "approval", **draw(ENDS)}
        else:
            terms = draw(TERMS) if kind == "one" else {kind: draw(MANY)}
            node = {"kind": "wait", **terms, **draw(ENDS)}
        if "on_timeout" in node and "timeout" not in node:
            del node["on_timeout"]
        if n and draw(st.booleans()):
            node["depends_on"] = [f"{prefix}{n - 1}"]
            node["join"] = draw(st.sampled_from(["all_success", "all_done", "none_failed"]))
        nodes[name] = node
    return nodes


def event(w: Any, draw: st.DrawFn) -> None:
    """One thing that may happen to the execution."""
    statuses = w.statuses
    waits = sorted(path for path, status in statuses.items() if status == "WAITING")
    choices = ["signal", "signal", "again", "wait", "answer", "work", "pause"]
    what = draw(st.sampled_from(choices if draw(st.integers(0, 15)) else ["cancel"]))
    if what == "signal":
        w.signal(draw(st.sampled_from(NAMES)), draw(st.sampled_from([{"n": 1}, {"n": 2}, {}])))
    elif what == "again":
        w.send(draw(st.sampled_from(w.log[1:])))
    elif what == "answer" and waits:
        w.answer(draw(st.sampled_from(waits)), 1, attempt=draw(st.integers(0, 2)))
    elif what == "pause":
        kind = wire.Resumed if w.ended == "PAUSED" else wire.Paused
        w.send(w.record(kind, id=f"{len(w.log)}"))
    elif what == "cancel":
        w.cancel()
    elif timers := sorted(w.timers()):
        member = draw(st.sampled_from(timers))
        kind, _, token = member.partition("|")
        node = token.partition("/")[2].rpartition("/")[0]
        if kind == "decide":
            w.verdict(node, draw(st.sampled_from([None, 100])))
        elif kind == "withdraw":
            w.lose(node, "withdrawn")
        elif kind in ("wait", "approval", "retry"):
            w.timer(kind, node)
    elif queued := sorted(path for path, status in statuses.items() if status == "QUEUED"):
        w.done(draw(st.sampled_from(queued)))


@QUIET
@given(data=st.data())
def test_what_is_stored_is_what_is_known_and_a_replay_gives_the_same_bytes(world, data):
    """Whatever comes in whatever order, copies too: the state is what Redis holds, and the log gives it again."""
    document = {"nodes": data.draw(bodies("n")), "on_failure": data.draw(st.sampled_from(["halt", "continue"]))}
    w = world(document).start()
    for _ in range(data.draw(st.integers(1, 25))):
        event(w, data.draw)
    partition, x, written = PartitionState(), None, []
    for offset, record in enumerate(w.log):
        outcome = decide(partition, x, record, offset, w.plan)
        x = outcome.execution
        written.append(to_ops(w.keys, [outcome]))
    store = type(w.store)()
    for ops in written:
        store.apply(ops)
    assert store.keys == w.store.keys


@QUIET
@given(data=st.data())
def test_signals_are_neither_lost_nor_doubled(world, data):
    """What was sent is what waits took and what is kept."""
    number = data.draw(st.integers(1, 4))
    nodes = {f"w{n}": {"kind": "wait", "signal": data.draw(st.sampled_from(NAMES))} for n in range(number)}
    nodes |= {f"v{n}": {"kind": "wait", "signal": "a", "depends_on": [f"w{n}"]} for n in range(number)}
    w = world({"nodes": nodes}).create()
    for n in range(data.draw(st.integers(0, 3))):
        w.signal("a", f"early {n}")
    w.trigger()
    for n in range(data.draw(st.integers(0, 8))):
        if w.ended == "RUNNING":
            w.signal(data.draw(st.sampled_from(NAMES)), f"late {n}")
            w.send(data.draw(st.sampled_from(w.log[1:])))
    sent = {record.payload.decode() for record in w.log if isinstance(record, wire.Signalled)}
    results = w.store.get(w.keys.results(w.execution.id)) or {}
    taken = [value.decode() for name, value in results.items() if name.startswith("o:")]
    kept = [signal.payload.decode() for signal in w.execution.signals]
    assert sorted(taken + kept) == sorted(sent)
