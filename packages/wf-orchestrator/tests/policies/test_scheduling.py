"""Scheduling policies: which ready node of an execution is sent first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from wf_core.policies import ReadyNode
from wf_orchestrator.policies.scheduling import CriticalPath, Fifo, Priority
from wf_orchestrator.policy_book import PolicyBook
from wf_orchestrator.ready import Order
from wf_orchestrator.scheduling import order_of
from wf_orchestrator.testing import run, stub

READY = [ReadyNode("c", 2, 9, 0, 0), ReadyNode("a", 0, 5, 0, 3), ReadyNode("d", 3, 9, 1, 0), ReadyNode("b", 1, 0, 2, 1)]


def test_fifo():
    """`fifo` sends in listing order."""
    assert [node.node for node in Fifo().order(READY)] == ["a", "b", "c", "d"]


def test_priority():
    """`priority` sends the highest priority first, equals in listing order."""
    assert [node.node for node in Priority().order(READY)] == ["c", "d", "a", "b"]


def test_critical_path():
    """`critical_path` sends the highest priority first, then what has the longest path behind it, then as listed."""
    ready = [*READY, ReadyNode("e", 4, 9, 0, 2), ReadyNode("f", 5, 5, 0, 3)]
    assert [node.node for node in CriticalPath().order(ready)] == ["e", "c", "d", "a", "f", "b"]


def test_nothing_is_lost():
    """A policy returns all that it was given, also nothing."""
    for policy in (Fifo(), Priority(), CriticalPath()):
        assert sorted(policy.order(READY), key=lambda n: n.index) == sorted(READY, key=lambda n: n.index)
        assert list(policy.order([])) == []


@dataclass
class Keyed:
    """A policy whose key is what it is told to be; it cannot order."""

    of: Callable[[ReadyNode], Any]

    def key(self, node: ReadyNode) -> Any:
        return self.of(node)

    def order(self, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
        raise LookupError(ready)


class Unkeyed(CriticalPath):
    """A policy with an order of its own: the key that it inherits does not fit it."""

    def order(self, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
        return ready[::-1]


def order_by(policy: Any) -> Order | None:
    """What the owner of a partition makes of a policy."""
    execution = SimpleNamespace(id="x", plan=SimpleNamespace(scheduling="mine"))
    return order_of(PolicyBook({}, {} if policy is None else {"mine": policy}), execution)


def test_the_key_of_a_policy():
    """It is asked for where there is one; a node whose key fails, or gives other things than numbers, comes last."""
    keys = [order_by(Keyed(key)).key for key in (lambda n: (n.height, n.index), lambda _: ("a",), lambda n: n.nothing)]
    assert [key(READY[1]) for key in keys] == [(3, 0), (math.inf,), (math.inf,)]
    assert order_by(CriticalPath()).key(READY[1]) == (-5, -3, 0)
    assert (order_by(Unkeyed()).key, order_by(Unkeyed()).sort(READY)) == (None, READY[::-1])
    assert (order_by(None).key, order_by(None).sort(READY)) == (None, READY)


SECOND = {"t": stub(1, takes="1s")}
"""Every node takes a second."""


def chain(length: int, name: str = "link") -> dict[str, Any]:
    """Nodes in a row."""
    return {f"{name}{i}": {"task": "t", **({"depends_on": [f"{name}{i - 1}"]} if i else {})} for i in range(length)}


@pytest.mark.parametrize(("scheduling", "seconds"), [("fifo", 17), ("priority", 17), ("critical_path", 10)])
def test_a_long_chain_beside_many_leaves(scheduling, seconds):
    """Four slots, 30 leaves and a chain of 10: who begins a link as soon as it is ready needs no longer than the chain.

    First come, first served leaves each link behind all the leaves, which have waited longer.
    """
    leaves = {f"leaf{i}": {"task": "t"} for i in range(30)}
    found = run({"scheduling": scheduling, "nodes": {**leaves, **chain(10)}}, tasks=SECOND, slots=4)
    assert (found.status, found.elapsed) == ("COMPLETED", timedelta(seconds=seconds))


@pytest.mark.parametrize(("scheduling", "seconds"), [("fifo", 21), ("critical_path", 17)])
def test_what_stands_in_a_container_has_the_path_behind_the_container_too(scheduling, seconds):
    """A map whose items come before a chain is more critical than the leaves beside it: no slot is idle at the end."""
    nodes = {
        **{f"leaf{i}": {"task": "t"} for i in range(20)},
        "each": {"kind": "map", "items": [1, 2, 3], "nodes": chain(2, "step")},
        **chain(8),
    }
    nodes["link0"]["depends_on"] = ["each"]
    found = run({"scheduling": scheduling, "nodes": nodes}, tasks=SECOND, slots=2)
    assert (found.status, found.elapsed) == ("COMPLETED", timedelta(seconds=seconds))


def test_priorities_come_before_paths():
    """What the document calls urgent is not kept waiting by a long chain."""
    nodes = {**chain(5), **{f"urgent{i}": {"task": "t", "priority": 9} for i in range(4)}}
    found = run({"scheduling": "critical_path", "nodes": nodes}, tasks=SECOND, slots=1)
    assert [name[:4] for name in began(found)] == ["urge"] * 4 + ["link"] * 5


def began(found: Any) -> list[str]:
    """Nodes in the order in which their results came."""
    return [entry.node for entry in found.history if entry.kind == "node.completed"]
