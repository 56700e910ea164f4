"""The built-in scheduling policies: in which order the ready nodes of one execution are sent."""

from __future__ import annotations

from collections.abc import Sequence

from wf_core.policies import ReadyNode


class Fifo:
    """In the order in which the document lists the nodes."""

    def order(self, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
        """All of `ready`, by index."""
        return sorted(ready, key=lambda node: node.index)


class Priority:
    """Higher priority first; among equals, in the order in which the document lists the nodes."""

    def order(self, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
        """All of `ready`, by priority descending, then index."""
        return sorted(ready, key=lambda node: (-node.priority, node.index))
