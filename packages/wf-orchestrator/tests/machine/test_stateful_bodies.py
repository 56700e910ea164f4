"""Random histories of documents whose nodes are of every kind, inside each other.

`World.send` checks after each event that what was written gives back the very state, and that counts, timers and the
in-flight set agree with it.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from wf_core import wire
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import PartitionState

SEEDS = 150
JOINS = ("all_success", "all_done", "none_failed", "any_success", "any_failed")
DEEPEST = 2


class Writer:
    """Draws a document; ids are used once in it, so that nothing hides anything."""

    def __init__(self, chance: random.Random) -> None:
        self.random = chance
        self.ids = itertools.count()

    def chance(self, of: int) -> bool:
        return self.random.randint(1, of) == 1

    def nodes(self, depth: int, most: int = 3) -> dict[str, Any]:
        """A body of a few nodes in any order."""
        ids = [f"n{next(self.ids)}" for _ in range(self.random.randint(1, most))]
        nodes: dict[str, Any] = {}
        for place, node_id in enumerate(ids):
            before = set(self.random.choices(ids[:place], k=self.random.randint(0, 2))) if place else set()
            nodes[node_id] = self.node(depth) | {"depends_on": sorted(before)}
            if self.chance(3):
                nodes[node_id]["join"] = self.random.choice(JOINS)
        if len(ids) > 1 and self.chance(3):
            self.choose(nodes, ids)
        return nodes

    def choose(self, nodes: dict[str, Any], ids: list[str]) -> None:
        """A switch or a catch that names the last node."""
        last = ids[-1]
        if self.chance(2):
            when = self.random.choice(["true", "false", "input.missing"])
            switch = {"kind": "switch", "cases": [{"when": when, "to": [last]}], "default": [ids[-2]]}
            nodes[f"s{next(self.ids)}"] = switch
        elif nodes[ids[0]].get("kind") != "end":
            nodes[last].pop("join", None)
            nodes[last]["depends_on"] = []
            nodes[ids[0]]["catch"] = [{"to": last}]

    def node(self, depth: int) -> dict[str, Any]:
        kinds = ["task", "task", "end"] if depth else ["task", "task"]
        kind = self.random.choice([*kinds, *(["map", "loop"] if depth < DEEPEST else [])])
        node: dict[str, Any] = {"task": self.task, "end": self.end, "map": self.map, "loop": self.loop}[kind](depth)
        if self.chance(8):
            node["when"] = "false"
        if self.chance(6) and kind != "end":
            node["on_error"] = "continue"
        if kind in ("map", "loop") and self.chance(3):
            node["retry"] = {"max_retries": 1}
        return node

    def task(self, _depth: int) -> dict[str, Any]:
        node: dict[str, Any] = {"task": "t"}
        if self.chance(4):
            node["compensate"] = {"task": "undo"}
        return node

    def end(self, _depth: int) -> dict[str, Any]:
        return {"kind": "end", "status": (self.random.choice(["COMPLETED", "FAILED", "CANCELLED"]))}

    def map(self, depth: int) -> dict[str, Any]:
        node: dict[str, Any] = {"kind": "map", "items": list(range(self.random.randint(0, 3)))}
        node |= {"nodes": self.nodes(depth + 1)} if self.chance(2) else {"task": "t"}
        if self.chance(2):
            node["max_parallel"] = self.random.randint(1, 2)
        if self.chance(3):
            node["tolerate"] = 1
        return node

    def loop(self, depth: int) -> dict[str, Any]:
        node: dict[str, Any] = {"kind": "loop", "max_iterations": 3, "nodes": self.nodes(depth + 1)}
        node |= self.random.choice([{"until": "iteration == 1"}, {"while": "iteration < 2"}])
        if self.chance(2) and "compensate" not in str(node):
            node["keep_last"] = self.random.randint(1, 2)
        if self.chance(3):
            node["delay"] = "1s"
        return node

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"nodes": self.nodes(0, 4)}
        document["on_failure"] = self.random.choice(["halt", "halt", "cancel", "continue"])
        if self.chance(3):
            document["finally"] = self.nodes(DEEPEST, 2)
        if self.chance(3):
            document["max_parallel"] = 2
        if self.chance(4):
            document["timeout"] = "1h"
        return document


def stale(chance: random.Random, w: Any) -> Any:
    """A record about some node that may be late, or a copy."""
    node = chance.choice(sorted(w.statuses))
    attempt = w.attempt(node) + (chance.choice([0, -1, 1]))
    timers = [(wire.Timer, {"timer": kind}) for kind in ("retry", "pass", "timeout", "nonsense")]
    lost = (wire.Lost, {"reason": "dead", "worker": "w1"})
    kind, values = chance.choice([*timers, lost])
    return w.record(kind, node=node, attempt=attempt, **values)


def step(chance: random.Random, w: Any) -> None:
    """One thing that may happen now."""
    choice = chance.randint(0, 19)
    if choice == 0:
        w.send(chance.choice(w.log))
    elif choice in (1, 2):
        w.send(stale(chance, w))
    elif choice == 3 and chance.randint(0, 4) == 0:
        w.cancel(command=f"k{len(w.log)}")
    elif choice == 4:
        w.pause(command=f"p{len(w.log)}")
    elif choice in (5, 6):
        w.resume(command=f"r{len(w.log)}")
    else:
        go_on(chance, w)


def go_on(chance: random.Random, w: Any, *, fails: bool = True) -> None:
    """One of the things that are under way comes to its end."""
    kinds = ("decide", "retry", "pass")
    timers = [tuple(timer.split("|")) for timer in w.timers() if timer.split("|")[0] in kinds]
    queued = [("queued", node) for node, status in w.statuses.items() if status == "QUEUED"]
    if not (timers or queued):
        w.resume(command=f"r{len(w.log)}")
        return
    kind, what = chance.choice(sorted([*timers, *queued]))
    if kind == "queued":
        bad = fails and chance.randint(0, 3) == 0
        w.fail(what) if bad else w.done(what, output=(chance.choice([None, 1, [1]])))
        return
    node = what.split("/", 1)[1].rsplit("/", 1)[0]
    if kind == "decide":
        again = w.attempt(node) < 3 and (chance.random() < 0.5)
        w.verdict(node, 0 if again else None)
    else:
        w.timer(kind, node)


def finish(chance: random.Random, w: Any) -> None:
    """Lets everything come to its end."""
    for _ in range(2000):
        if w.execution.status.is_terminal:
            return
        go_on(chance, w, fails=False)
    raise AssertionError(f"never ends: {w.statuses}")


def lived(world: Any, seed: int) -> Any:
    """A document's whole life."""
    chance = random.Random(seed)
    w = world(Writer(chance).document(), settings=wire.FrozenSettings(max_platform_retries=1)).start({})
    for life in range(chance.choice([1, 1, 2, 3])):
        if life:
            w.retry(*chance.sample(sorted(w.statuses), chance.choice([0, 0, 1, 2]) if len(w.statuses) > 1 else 0))
        for _ in range(chance.randint(0, 40)):
            step(chance, w)
        finish(chance, w)
    return w


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_written_is_what_is_known(world, seed):
    """At every cut; every execution can end; and folding the log in batches of any size gives the same bytes."""
    w = lived(world, seed)
    chance = random.Random(-seed)
    other = type(w.store)()
    partition, offset = PartitionState(), 0
    while offset < len(w.log):
        batch = w.log[offset : offset + chance.randint(1, 10)]
        retries = [i for i, event in enumerate(batch) if i and isinstance(event, wire.Retried)]
        batch = batch[: retries[0]] if retries else batch
        x = other.load(w.log[0].execution, w.plan, whole=isinstance(batch[0], wire.Retried))
        outcomes = []
        for event in batch:
            outcomes.append(decide(partition, x, event, offset, w.plan))
            x = outcomes[-1].execution
            offset += 1
        other.apply(to_ops(w.keys, outcomes))
    assert other.keys == w.store.keys
