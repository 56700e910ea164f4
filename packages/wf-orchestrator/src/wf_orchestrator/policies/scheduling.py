"""The built-in scheduling policies: in which order the ready nodes of one execution are sent.

| policy | order |
|---|---|
| `fifo` | what became ready first; of what becomes ready together, as the document lists it |
| `priority` | higher priority first; among equals as the document lists them |
| `critical_path` | higher priority first; among equals those with the longest path behind them |
"""

from __future__ import annotations

from collections.abc import Sequence

from wf_core.policies import ReadyNode


class Fifo:
    """In the order in which the document lists the nodes. Asked only about those that become ready together."""

    def order(self, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
        """All of `ready`, by index."""
        return sorted(ready, key=lambda node: node.index)


class Priority:
    """Higher priority first; among equals, in the order in which the document lists the nodes."""

    def order(self, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
        """All of `ready`, by priority descending, then index."""
        return sorted(ready, key=self.key)

    def key(self, node: ReadyNode) -> tuple[int, ...]:
        """What it sorts by."""
        return (-node.priority, node.index)


class CriticalPath:
    """Higher priority first; then the longest path to a leaf, in nodes: what the end of the execution waits for.

    Where slots are scarce, a long chain beside many short branches is then not left for last.
    """

    def order(self, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
        """All of `ready`, by priority descending, height descending, then index."""
        return sorted(ready, key=self.key)

    def key(self, node: ReadyNode) -> tuple[int, ...]:
        """What it sorts by."""
        return (-node.priority, -node.height, node.index)
