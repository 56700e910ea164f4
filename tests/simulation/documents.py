"""The workflows that are run: branches, joins, limits, deadlines, what a failure does, bodies inside each other, what
waits for somebody, children, and executions that exclude each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wf_api.intake import Submission
from wf_api.reading import read
from wf_core import payload


@dataclass(frozen=True)
class Story:
    """A submission and what its users must do for it to end: send these signals, answer these approvals."""

    submission: Submission
    signals: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()
    first: str = ""
    """A node to start again from."""


def _node(*after: str, **fields: Any) -> dict[str, Any]:
    return {"task": "t", "depends_on": list(after), **fields}


def _kind(kind: str, *after: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "depends_on": list(after), **fields}


_QUICK = {"retry": {"delay": "200ms", "jitter": 0, "max_retries": 2}}
_FRAGILE = {"max_retries": 0}
_ONCE_MORE = {"delay": "200ms", "max_retries": 1, "jitter": 0}
_UNDO = {"task": "t"}
_GRAPH = {
    "a": _node(),
    "b": _node("a"),
    "c": _node("a", on_error="continue"),
    "d": _node("b", "c", params={"x": "${{ nodes.b.output }}"}),
    "e": _node("a", when="true"),
    "f": _node("e", join="all_done"),
    "g": _node("f", priority=8),
}
_LOOP = _kind("loop", until="iteration == 1", max_iterations=3, keep_last=1, nodes={"step": _node()})
_NESTED = {
    "which": _kind("switch", cases=[{"when": "true", "to": ["each"]}], default=["none"]),
    "each": _kind(
        "map",
        items=[1, 2, 3],
        max_parallel=2,
        tolerate=1,
        nodes={"turn": _LOOP, "then": _node("turn", compensate=_UNDO)},
        retry=_ONCE_MORE,
    ),
    "none": _node(),
    "risky": _node("each", "none", join="none_failed", retry=_FRAGILE, catch=[{"to": "rescue", "as": "problem"}]),
    "rescue": _node(params={"why": "${{ problem.message }}"}, retry=_FRAGILE),
    "late": _node("risky", "rescue", join="none_failed", compensate=_UNDO),
    "last": _node("late", retry=_FRAGILE),
}
_CHILDREN = {
    "first": _node(),
    "child": _kind(
        "workflow",
        "first",
        input={"x": "${{ nodes.first.output }}"},
        nodes={"one": _node(), "rest": _kind("wait", "one", duration="700ms"), "two": _node("rest", retry=_FRAGILE)},
        retry=_ONCE_MORE,
        timeout="9s",
    ),
    "left": _kind(
        "workflow",
        "first",
        nodes={"own": _kind("workflow", nodes={"deep": _node()}), "then": _node("own", on_error="continue")},
        on_parent_close="abandon",
        on_error="continue",
    ),
    "last": _node("child", "left", join="none_failed", retry=_FRAGILE),
}
_WAITS = {
    "begin": _node(),
    "go": _kind("wait", "begin", signal="go"),
    "either": _kind("wait", "begin", any=[{"signal": "maybe", "match": "payload == 7"}, {"duration": "3s"}]),
    "both": _kind("wait", "go", all=[{"signal": "this"}, {"signal": "that"}, {"duration": "200ms"}]),
    "soon": _kind("wait", "begin", signal="never", timeout="2s", on_timeout="skip"),
    "ask": _kind("approval", "begin", assignees=["somebody"], schema={"type": "integer"}),
    "late": _kind("approval", "begin", assignees=[], timeout="2s", on_timeout={"value": 3}),
    "last": _node("go", "either", "both", "soon", "ask", "late", join="none_failed", retry=_FRAGILE),
}
_TIMES = {
    "polls": _kind(
        "loop", until="iteration == 2", max_iterations=3, delay="300ms", nodes={"look": _node(on_error="continue")}
    ),
    "slow": _node(timeout="2s", total_timeout="12s"),
    "unclaimed": _node(queue_timeout="1s", on_error="continue"),
    "silent": _node("slow", heartbeat="1s", on_error="continue"),
    "hurry": _kind("loop", "slow", until="iteration == 4", max_iterations=9, timeout="3s", retry=_ONCE_MORE)
    | {"nodes": {"step": _node()}, "on_error": "continue"},
    "last": _node("polls", "unclaimed", "silent", "hurry"),
}
_LATER = {"x": _node(), "y": _node("x"), "z": _kind("map", "x", items=[1, 2], task="t")}
_FROZEN = {
    "known": _node(cache={"key": "${{ input.key }}"}),
    "more": _kind("dynamic", "known", nodes="${{ input.nodes }}", allow=["t"], retry=_ONCE_MORE),
    "same": _node("more", cache={"key": "${{ input.key }}", "ttl": "5s"}, retry=_FRAGILE),
}
_TAIL = {
    "a": _node(),
    "b": _node("a", params={"x": "${{ nodes.a.output }}"}),
    "c": _node("b"),
    "d": _node("a", "c", params={"x": ["${{ nodes.a.output }}", "${{ nodes.c.status }}", "${{ input }}"]}),
}
_ROW = {f"{n}": _node(*([f"{n - 1}"] if n else [])) for n in range(8)}
_FORKS = {
    **_TAIL,
    "e": _node("b"),
    "f": _node("e", retry=_FRAGILE),
    "g": _node("d", "f"),
    "h": _node("g"),
    "each": _kind(
        "map", "c", items=[1, 2], nodes={"i": _node(), "j": _node("i"), "k": _node("j", on_error="continue")}
    ),
    "turn": _kind(
        "loop", "d", until="iteration == 1", max_iterations=2, nodes={"l": _node(), "m": _node("l")}, retry=_ONCE_MORE
    ),
    "last": _node("each", "turn", "h", join="none_failed", retry=_FRAGILE),
}
_ONE = {"a": _node(compensate=_UNDO), "b": _node("a", retry=_FRAGILE)}
_KEY = {"key": "${{ input.key }}", "limit": 1}


def _submission(input_: Any = None, **document: Any) -> Submission:
    taken = read({"defaults": _QUICK, "nodes": _GRAPH, **document}, None)
    given = b"{}" if input_ is None else payload.encode(input_)
    return Submission(read=taken, inputs=(given,), labels={}, trigger=True)


_TIDY = {"tidy": _node(), "up": _node("tidy")}
TAILS: tuple[Story, ...] = (
    Story(_submission(name="tail", nodes=_TAIL), first="a"),
    Story(_submission(name="row", nodes=_ROW, on_failure="cancel"), first="3"),
    Story(_submission(name="forks", nodes=_FORKS), first="b"),
)
"""Workers go on by themselves in most of each."""
STORIES: tuple[Story, ...] = (
    Story(_submission(name="halts"), first="a"),
    Story(_submission(name="goes on", on_failure="continue"), first="b"),
    Story(_submission(name="stops", on_failure="cancel", max_parallel=2), first="c"),
    Story(_submission(name="in time", timeout="15s", scheduling="priority")),
    Story(_submission(name="nested", nodes=_NESTED, **{"finally": _TIDY}), first="risky"),
    Story(_submission(name="children", nodes=_CHILDREN), first="child"),
    Story(
        _submission(name="waits", nodes=_WAITS),
        signals=("go", "maybe", "this", "that"),
        approvals=("ask",),
        first="begin",
    ),
    Story(_submission(name="times", nodes=_TIMES), first="polls"),
    Story(_submission({"key": "k", "nodes": _LATER}, name="frozen", nodes=_FROZEN), first="more"),
    *TAILS,
    Story(_submission({"key": "one"}, name="one", nodes=_ONE, concurrency={**_KEY, "on_conflict": "queue"}), first="a"),
    Story(
        _submission({"key": "one"}, name="newest", nodes=_ONE, concurrency={**_KEY, "on_conflict": "cancel_running"})
    ),
)
EXCLUSIVE = STORIES[-2:]
"""Their executions want the same key."""
