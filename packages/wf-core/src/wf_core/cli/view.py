"""What a watcher knows about an execution, folded from the server's answers. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from wf_core.states import NodeStatus

if TYPE_CHECKING:
    from wf_core.client import Event, Execution, Failure, NodeItem, NodeSummary
    from wf_core.graph import Graph

ENDED = frozenset(str(status) for status in NodeStatus if status.is_terminal)


@dataclass(slots=True)
class NodeView:
    """One node: where it stands in the graph, and how it is."""

    name: str
    task: str
    level: int
    upstream: tuple[int, ...]
    status: str = "PENDING"
    attempts: int = 0
    worker: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    error: Failure | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED


@dataclass(slots=True)
class RunView:
    """One execution as far as it is known."""

    execution_id: str
    name: str
    status: str
    nodes: list[NodeView]
    started: datetime | None = None
    ended: datetime | None = None
    error: Failure | None = None
    index: dict[str, int] = field(default_factory=dict)

    def update(self, execution: Execution) -> None:
        """Takes over what the server says of the execution."""
        self.status = execution.status
        self.started, self.ended = execution.started_at, execution.ended_at
        self.error = execution.error

    def update_nodes(self, items: Iterable[NodeItem]) -> None:
        """Takes over what the server says of these nodes."""
        for item in items:
            at = self.index.get(item.node)
            if at is None:
                continue
            node = self.nodes[at]
            node.status, node.attempts, node.worker = item.status, item.attempts, item.worker
            node.started, node.ended, node.error = item.started_at, item.ended_at, item.error

    def update_summaries(self, summaries: Mapping[str, NodeSummary]) -> None:
        """Takes over the nodes that the server lists with the execution."""
        for name, summary in summaries.items():
            at = self.index.get(name)
            if at is not None:
                node = self.nodes[at]
                node.status, node.attempts = summary.status, summary.attempts
                node.started, node.ended, node.error = summary.started_at, summary.ended_at, summary.error

    def update_running(self, items: Sequence[NodeItem]) -> None:
        """Takes over which nodes run now; one that ran and is not among them waits, or has ended by an event."""
        present = {item.node for item in items}
        for node in self.nodes:
            if node.status == NodeStatus.RUNNING and node.name not in present:
                node.status = NodeStatus.QUEUED
        self.update_nodes(items)

    def apply(self, event: Event) -> None:
        """Takes over a change of a node. Events of the execution itself come with `update`."""
        at = None if event.node is None else self.index.get(event.node)
        if at is None or event.status is None or event.status not in set(NodeStatus):
            return
        node = self.nodes[at]
        node.status = event.status
        node.attempts = max(node.attempts, event.attempt or 0)
        data = event.data if isinstance(event.data, dict) else {}
        if node.over:
            node.started, node.ended = _moment(data.get("started_at")) or node.started, event.ts

    def counts(self) -> dict[str, int]:
        """Nodes by status."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.status] = counts.get(node.status, 0) + 1
        return counts


def _moment(ms: Any) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if isinstance(ms, int) else None


def new_view(execution: Execution, tasks: Mapping[str, str], graph: Graph) -> RunView:
    """A view of an execution whose nodes are all PENDING. `tasks` maps each node, in the graph's order, to its task."""
    nodes = [
        NodeView(name, tasks[name], level, upstream)
        for name, level, upstream in zip(graph.names, graph.levels, graph.upstream, strict=True)
    ]
    view = RunView(execution.execution_id, execution.name, execution.status, nodes)
    view.index = {node.name: at for at, node in enumerate(nodes)}
    view.update(execution)
    return view


def error_line(error: Any) -> str:
    """`Type: first line of the message`."""
    message = (error.message or "").strip().splitlines()
    return f"{error.type}: {message[0]}" if message else str(error.type)
