"""What is submitted, and how each must end."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A document and its right end. `counts` (nodes by status) is None where it depends on the moment."""

    document: Document
    status: str
    output: Any = None
    counts: dict[str, int] | None = None
    error: str | None = None
    """Type of the execution's error; None when it has none or any will do."""
    signals: tuple[str, ...] = ()
    """What its client sends, each with its own name as the payload."""

    @property
    def name(self) -> str:
        """The document's name."""
        return str(self.document["name"])


def _step(depends_on: list[str] | None = None, **params: Any) -> Document:
    return {"task": "chaos.step", "depends_on": depends_on or [], "params": params}


def chain(length: int = 6) -> Shape:
    """Nodes in a row, each adding one to the output of the one before."""
    nodes = {"n0": _step(value=0)}
    for n in range(1, length):
        nodes[f"n{n}"] = _step(value=f"${{{{ nodes.n{n - 1}.output + 1 }}}}", seconds=0.1 * (n % 3))
    last = length - 1
    document = {"name": "chain", "nodes": nodes, "output": f"${{{{ nodes.n{last}.output }}}}"}
    return Shape(document, "COMPLETED", last, {"COMPLETED": length})


def diamond() -> Shape:
    """One, three, one; a side is skipped, the others take a moment."""
    nodes = {
        "a": _step(value=20),
        "b": _step(value="${{ nodes.a.output + 1 }}", seconds=0.2),
        "c": {"task": "chaos.thread", "params": {"value": "${{ nodes.a.output + 2 }}", "seconds": 0.3}},
        "no": {**_step(["a"], value="never"), "when": "nodes.a.output < 0"},
        "d": {**_step(["no"], value="${{ nodes.b.output + nodes.c.output }}"), "join": "none_failed"},
    }
    document = {"name": "diamond", "nodes": nodes, "output": "${{ nodes.d.output }}"}
    return Shape(document, "COMPLETED", 43, {"COMPLETED": 4, "SKIPPED": 1})


def fan(width: int = 8) -> Shape:
    """One root, many leaves, one join; at most five at once."""
    nodes = {"root": _step(value=1)}
    for n in range(width):
        nodes[f"leaf{n}"] = _step(["root"], value=n, seconds=0.05)
    total = " + ".join(f"nodes.leaf{n}.output" for n in range(width))
    nodes["join"] = _step(value=f"${{{{ {total} }}}}")
    document = {"name": "fan", "nodes": nodes, "output": "${{ nodes.join.output }}", "max_parallel": 5}
    return Shape(document, "COMPLETED", sum(range(width)), {"COMPLETED": width + 2})


def flaky() -> Shape:
    """A node that fails twice, between two that do not."""
    nodes = {
        "before": _step(value="late"),
        "flaky": _step(value="${{ nodes.before.output }}", fail_times=2),
        "after": _step(value="${{ nodes.flaky.output }}"),
        "once": _step(["before"], fail_times=1),
    }
    document = {
        "name": "flaky",
        "defaults": {"retry": {"delay": "100ms", "max_retries": 3}},
        "nodes": nodes,
        "output": "${{ nodes.after.output }}",
    }
    return Shape(document, "COMPLETED", "late", {"COMPLETED": 4})


def sleepers() -> Shape:
    """Attempts that last long enough to be caught by a fault, on each executor."""
    nodes = {
        "long": _step(value=1, seconds=2.5),
        "thread": {"task": "chaos.thread", "params": {"value": 2, "seconds": 1.5}},
        "process": {"task": "chaos.process", "params": {"value": 3, "seconds": 1.0}},
        "join": _step(value="${{ nodes.long.output + nodes.thread.output + nodes.process.output }}", seconds=0.5),
    }
    document = {"name": "sleepers", "nodes": nodes, "output": "${{ nodes.join.output }}"}
    return Shape(document, "COMPLETED", 6, {"COMPLETED": 4})


def continues() -> Shape:
    """A node fails for good; what does not need it goes on."""
    nodes = {
        "a": _step(value=1),
        "bad": _step(["a"], fatal=True),
        "never": _step(["bad"]),
        "b": _step(["a"], value=2, seconds=0.3),
        "c": _step(["b"], value=3),
    }
    document = {"name": "continues", "on_failure": "continue", "nodes": nodes}
    return Shape(document, "FAILED", None, {"COMPLETED": 3, "FAILED": 1, "UPSTREAM_FAILED": 1}, "Fatal")


def halts() -> Shape:
    """A node fails for good, and nothing new starts."""
    nodes = {"a": _step(value=1), "bad": _step(["a"], fatal=True), "b": _step(["bad"]), "c": _step(["b"])}
    return Shape({"name": "halts", "nodes": nodes}, "FAILED", error="Fatal")


def overdue() -> Shape:
    """The execution's time is over long before its task would end."""
    nodes = {"a": _step(value=1), "hours": _step(["a"], seconds=7200), "b": _step(["hours"])}
    return Shape({"name": "overdue", "timeout": "3s", "nodes": nodes}, "FAILED", error="TimeoutError")


def slow_first() -> Shape:
    """The first attempt of a node takes longer than it may, the second does not."""
    slow = {**_step(["a"], value=7, first_seconds=600), "timeout": "1s", "retry": {"delay": "100ms", "max_retries": 2}}
    nodes = {"a": _step(value=1), "slow": slow, "b": _step(value="${{ nodes.slow.output }}")}
    document = {"name": "slow-first", "nodes": nodes, "output": "${{ nodes.b.output }}"}
    return Shape(document, "COMPLETED", 7, {"COMPLETED": 3})


def nested() -> Shape:
    """A loop in a map in a loop, with a switch, and a node of `finally`."""
    inner = {
        "kind": "loop",
        "until": "iteration == 2",
        "max_iterations": 5,
        "nodes": {"turn": _step(value="${{ item + iteration }}", seconds=0.05)},
    }
    middle = {"kind": "map", "items": [10, 20, 30], "max_parallel": 2, "nodes": {"inner": inner}}
    nodes = {
        "outer": {
            "kind": "loop",
            "while": "iteration < 2",
            "max_iterations": 5,
            "keep_last": 1,
            "nodes": {"middle": middle},
        },
        "which": {
            "kind": "switch",
            "depends_on": ["outer"],
            "cases": [{"when": "size(nodes.outer.output) == 3", "to": ["yes"]}],
            "default": ["no"],
        },
        "yes": _step(value="${{ nodes.outer.output }}"),
        "no": _step(value=0),
    }
    document = {
        "name": "nested",
        "nodes": nodes,
        "finally": {"tidy": _step(value=1)},
        "output": "${{ nodes.yes.output }}",
    }
    counts = {"COMPLETED": 4 + 1 + 3 + 9, "SKIPPED": 1}
    return Shape(document, "COMPLETED", [12, 22, 32], counts)


def saga() -> Shape:
    """What completed is undone when a later node fails; a failure that is caught does not count."""
    undo = {"task": "chaos.step", "params": {"value": 0}}
    nodes = {
        "book": {**_step(value=1), "compensate": undo},
        "pay": {**_step(["book"], value=2), "compensate": undo},
        "bad": {**_step(["pay"], fatal=True), "catch": [{"to": "rescue", "as": "problem"}]},
        "rescue": _step(value="${{ problem.type }}"),
        "worse": _step(["rescue"], fatal=True),
    }
    document = {"name": "saga", "nodes": nodes, "finally": {"tidy": _step(value=1)}}
    counts = {"COMPLETED": 3 + 2 + 1, "FAILED": 2}
    return Shape(document, "FAILED", None, counts, "Fatal")


def children() -> Shape:
    """Children of a map, a child of a child, and one that is left alone when its parent has ended."""
    own = {"kind": "workflow", "nodes": {"deep": _step(value=5, seconds=0.2)}}
    inner = {"a": _step(value="${{ input.n + 1 }}", seconds=0.1), "own": own}
    each = {
        "kind": "workflow",
        "input": {"n": "${{ item }}"},
        "nodes": inner,
        "output": "${{ nodes.a.output + nodes.own.output }}",
    }
    nodes = {
        "each": {"kind": "map", "items": [1, 2, 3], "nodes": {"child": each}},
        "left": {
            "kind": "workflow",
            "nodes": {"rest": {"kind": "wait", "duration": "10s"}},
            "on_parent_close": "abandon",
            "timeout": "1s",
            "on_error": "continue",
        },
        "end": _step(["left"], value="${{ nodes.each.output }}"),
    }
    document = {"name": "children", "nodes": nodes, "output": "${{ nodes.end.output }}"}
    return Shape(document, "COMPLETED", [7, 8, 9], {"COMPLETED": 2 + 3, "FAILED": 1})


def waits() -> Shape:
    """Signals, early ones too, and times; nothing of it takes a slot."""
    nodes = {
        "a": _step(value=1),
        "go": {"kind": "wait", "depends_on": ["a"], "signal": "go"},
        "both": {"kind": "wait", "depends_on": ["go"], "all": [{"signal": "early"}, {"duration": "1s"}]},
        "never": {"kind": "wait", "signal": "never", "timeout": "2s", "on_timeout": "skip"},
        "end": {**_step(["never"], value="${{ [nodes.go.output, nodes.both.output.early] }}"), "join": "none_failed"},
    }
    document = {"name": "waits", "nodes": nodes, "output": "${{ nodes.end.output }}"}
    counts = {"COMPLETED": 4, "SKIPPED": 1}
    return Shape(document, "COMPLETED", ["go", "early"], counts, signals=("early", "go"))


def exclusive() -> Shape:
    """One at a time, whatever happens to the one that runs."""
    nodes = {"a": _step(value=1, seconds=0.3), "b": _step(["a"], value=2), "c": _step(["b"], value=3)}
    document = {"name": "exclusive", "nodes": nodes, "concurrency": {"key": "exclusive", "limit": 1}}
    return Shape(document, "COMPLETED", 3, {"COMPLETED": 3})


_CHOICE = (
    (chain(), 5),
    (diamond(), 5),
    (fan(), 3),
    (flaky(), 4),
    (sleepers(), 4),
    (continues(), 2),
    (halts(), 1),
    (overdue(), 1),
    (slow_first(), 1),
    (nested(), 3),
    (saga(), 2),
    (children(), 3),
    (waits(), 3),
    (exclusive(), 2),
)


def choose(chance: random.Random) -> Shape:
    """A shape, common ones more often."""
    return chance.choices([shape for shape, _ in _CHOICE], [weight for _, weight in _CHOICE])[0]
