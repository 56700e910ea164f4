"""Scheduling policies: which ready node of an execution is sent first."""

from __future__ import annotations

from wf_core.policies import ReadyNode
from wf_orchestrator.policies.scheduling import Fifo, Priority

READY = [ReadyNode("c", 2, 9, 0, 0), ReadyNode("a", 0, 5, 0, 3), ReadyNode("d", 3, 9, 1, 0), ReadyNode("b", 1, 0, 2, 1)]


def test_fifo():
    """`fifo` sends in listing order."""
    assert [node.node for node in Fifo().order(READY)] == ["a", "b", "c", "d"]


def test_priority():
    """`priority` sends the highest priority first, equals in listing order."""
    assert [node.node for node in Priority().order(READY)] == ["c", "d", "a", "b"]


def test_nothing_is_lost():
    """A policy returns all that it was given, also nothing."""
    for policy in (Fifo(), Priority()):
        assert sorted(policy.order(READY), key=lambda n: n.index) == sorted(READY, key=lambda n: n.index)
        assert list(policy.order([])) == []
