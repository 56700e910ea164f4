"""What a watcher knows about an execution, folded from the server's answers. Pure: no clock, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from wf_core.ids import COMPENSATION
from wf_core.states import NodeStatus

if TYPE_CHECKING:
    from wf_core.client import Event, Execution, Failure, NodeItem, NodeSummary
    from wf_core.graph import Graph

CONTAINERS = frozenset({"map", "loop", "dynamic"})
LONGEST = 60
"""Characters of a task's progress."""
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
    kind: str = "task"
    progress: Any = None
    """What a task reported, or how far a container is."""
    inside: list[NodeView] = field(default_factory=list)
    """Some of what runs, waits for a retry or failed inside a container."""
    undo: NodeView | None = None
    """Its compensation, once that has begun."""

    @property
    def holds(self) -> bool:
        """Whether there are nodes inside it."""
        return self.kind in CONTAINERS

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
    totals: dict[str, int] = field(default_factory=dict)
    """All nodes by status, those inside containers too, as the server counts them."""

    def update(self, execution: Execution) -> None:
        """Takes over what the server says of the execution."""
        self.status = execution.status
        self.started, self.ended = execution.started_at, execution.ended_at
        self.error = execution.error
        self.totals = execution.counts

    def update_nodes(self, items: Iterable[NodeItem]) -> None:
        """Takes over what the server says of these nodes."""
        for item in items:
            node = self._find(item.node)
            if node is None:
                continue
            node.status, node.attempts, node.worker = item.status, item.attempts, item.worker
            node.started, node.ended, node.error = item.started_at, item.ended_at, item.error
            node.progress = item.progress

    def update_inside(self, name: str, items: Iterable[NodeItem]) -> None:
        """Takes over some of the nodes inside a container."""
        self.nodes[self.index[name]].inside = [
            NodeView(
                *(item.node, item.task or "", 0, (), item.status, item.attempts, item.worker),
                *(item.started_at, item.ended_at, item.error, item.kind, item.progress),
            )
            for item in items
        ]

    def open_containers(self) -> list[NodeView]:
        """Those that have begun and not ended."""
        return [node for node in self.nodes if node.holds and not node.over and node.attempts]

    def update_summaries(self, summaries: Mapping[str, NodeSummary]) -> None:
        """Takes over the nodes that the server lists with the execution, which are all that there are."""
        for node in self.nodes:
            if node.undo is not None and node.undo.name not in summaries:  # a retry has dropped it
                node.undo = None
        for name, summary in summaries.items():
            found = self._find(name)
            if found is not None:
                found.status, found.attempts = summary.status, summary.attempts
                found.started, found.ended, found.error = summary.started_at, summary.ended_at, summary.error
                found.progress = summary.progress

    def update_running(self, items: Sequence[NodeItem]) -> None:
        """Takes over which nodes run now; one that ran and is not among them waits, or has ended by an event."""
        present = {item.node for item in items}
        for node in self.nodes:
            if node.status == NodeStatus.RUNNING and node.name not in present:
                node.status = NodeStatus.QUEUED
        self.update_nodes(items)

    def apply(self, event: Event) -> None:
        """Takes over a change of a node. Events of the execution itself come with `update`."""
        node = None if event.node is None else self._find(event.node)
        if node is None or event.status is None or event.status not in set(NodeStatus):
            return
        node.status = event.status
        node.undo = None  # what was undone runs again
        node.attempts = max(node.attempts, event.attempt or 0)
        data = event.data if isinstance(event.data, dict) else {}
        if node.over:
            node.started, node.ended = _moment(data.get("started_at")) or node.started, event.ts

    def _find(self, name: str) -> NodeView | None:
        """The node of this name; a compensation is known as soon as it is heard of."""
        at = self.index.get(name)
        if at is not None:
            return self.nodes[at]
        at = self.index.get(name.removesuffix(COMPENSATION))
        if at is None:
            return None
        node = self.nodes[at]
        if node.undo is None:
            node.undo = NodeView(name, "", node.level, ())
        return node.undo

    def counts(self) -> dict[str, int]:
        """Nodes by status; those inside containers too, once the server counts more than the top level."""
        if sum(self.totals.values()) > len(self.nodes):
            return self.totals
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.status] = counts.get(node.status, 0) + 1
        return counts


def _moment(ms: Any) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if isinstance(ms, int) else None


def new_view(
    execution: Execution, tasks: Mapping[str, str], graph: Graph, kinds: Mapping[str, str] | None = None
) -> RunView:
    """A view of an execution whose nodes are all PENDING.

    `tasks` maps each node, in the graph's order, to its task, `kinds` those that are no tasks to their kind.
    """
    nodes = [
        NodeView(name, tasks[name], level, upstream, kind=(kinds or {}).get(name, "task"))
        for name, level, upstream in zip(graph.names, graph.levels, graph.upstream, strict=True)
    ]
    view = RunView(execution.execution_id, execution.name, execution.status, nodes)
    view.index = {node.name: at for at, node in enumerate(nodes)}
    view.update(execution)
    return view


def progress_text(kind: str, progress: Any) -> str:
    """`40/100  2 failed` of a map, `pass 3 of 5` of a loop, what a task reported as it stands; "" for nothing."""
    if progress is None:
        return ""
    if kind not in CONTAINERS or not isinstance(progress, dict):
        text = progress if isinstance(progress, str) else json.dumps(progress, ensure_ascii=False)
        return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    total = progress.get("total")
    if kind == "loop":
        number = progress.get("pass")
        return "" if number is None else f"pass {number + 1}" + (f" of at most {total}" if total else "")
    failed = f"  {progress['failed']} failed" if progress.get("failed") else ""
    return f"{progress.get('ended', 0)}/{'?' if total is None else total}{failed}"


def error_line(error: Any) -> str:
    """`Type: first line of the message`."""
    message = (error.message or "").strip().splitlines()
    return f"{error.type}: {message[0]}" if message else str(error.type)
