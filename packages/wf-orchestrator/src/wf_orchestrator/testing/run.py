"""What a test looks at: an execution as its store shows it, at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from wf_core.states import NodeStatus, ScopeState
from wf_core.store.codec import AttemptRecord, history_lines, unpack_attempts
from wf_core.suggest import did_you_mean
from wf_core.wire import Failure
from wf_orchestrator.machine.state import Execution
from wf_orchestrator.testing.world import KEYS, World, decoded

Sent = list[tuple[str, str]]
"""Execution and path of each attempt that was sent."""
IsRunning = Callable[[str], bool]
"""Whether a worker has begun the attempt of this token."""


@dataclass(frozen=True, slots=True)
class NodeRun:
    """One node. `attempts` are those that ended, each with its times, error, decision and reason."""

    path: str
    status: str
    attempt: int
    """The number of the newest attempt; 0 before the first."""
    attempts: list[AttemptRecord]
    input: Any
    output: Any
    error: Failure | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history, as `GET …/events` shows it."""

    kind: str
    node: str
    attempt: int
    status: str
    at: timedelta
    """Virtual time since the execution was created."""
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """An execution. It does not change any more when the harness goes on."""

    execution_id: str
    status: str
    output: Any
    error: Failure | None
    nodes: Mapping[str, NodeRun]
    """By path, those of bodies (`price[3]/one`) too."""
    history: list[Entry]
    dispatched: list[str]
    """Paths of the attempts, in the order in which they were sent to workers."""
    created_ms: int
    """When it was created, in virtual Unix ms."""
    elapsed: timedelta
    """Virtual time from its creation to its end, or to now."""
    results: Mapping[str, Any]
    """Node id → output, of nodes of the document that have completed."""
    children: Mapping[str, Run]
    """By path of the `workflow` node."""
    crashes: list[str]
    """Tracebacks of errors inside the engine; please report them."""

    def node(self, path: str) -> NodeRun:
        """The node with this path. Raises KeyError with the nearest known paths."""
        try:
            return self.nodes[path]
        except KeyError:
            hint = did_you_mean(path, self.nodes) or f"; there are: {', '.join(self.nodes)}"
            raise KeyError(f"the run has no node {path!r}{hint}") from None

    def statuses(self) -> dict[str, str]:
        """Node path → status."""
        return {path: node.status for path, node in self.nodes.items()}

    def kinds(self, node: str | None = None) -> list[str]:
        """The kinds of the history's entries, in order; those of one node when `node` is its path."""
        return [entry.kind for entry in self.history if node is None or entry.node == node]


def run_of(world: World, execution_id: str, dispatched: Sent, is_running: IsRunning) -> Run:
    """The execution as it stands now."""
    x = world.executions[execution_id]
    results = world.model.named(KEYS.results(execution_id))
    nodes = _nodes(x, results, is_running)
    ended = world.now_ms if x.ended_at is None else x.ended_at
    return Run(
        execution_id=execution_id,
        status=str(x.status),
        output=decoded(x.output),
        error=x.error,
        nodes=nodes,
        history=_history(world, x),
        dispatched=[node for execution, node in dispatched if execution == execution_id],
        created_ms=x.created_at,
        elapsed=timedelta(milliseconds=ended - x.created_at),
        results={p: n.output for p, n in nodes.items() if n.status == NodeStatus.COMPLETED and not set("/[#") & set(p)},
        children=_children(world, execution_id, dispatched, is_running),
        crashes=list(world.crashes),
    )


def _nodes(x: Execution, results: Mapping[str, bytes], is_running: IsRunning) -> dict[str, NodeRun]:
    shown = {}
    for index, cell in enumerate(x.cells):
        if x.owner[index].state is ScopeState.DORMANT:  # a retry has dropped it
            continue
        path = x.path(index)
        attempts = unpack_attempts(results.get("a:" + path))
        status = NodeStatus.RUNNING if is_running(x.token(index)) else cell.status
        shown[path] = NodeRun(
            path=path,
            status=str(status),
            attempt=cell.attempt,
            attempts=attempts,
            input=decoded(results.get("i:" + path)),
            output=decoded(results.get("o:" + path)) if cell.status is NodeStatus.COMPLETED else None,
            error=attempts[-1].error if attempts and cell.status is NodeStatus.FAILED else None,
        )
    return shown


def _history(world: World, x: Execution) -> list[Entry]:
    return [
        Entry(
            kind=line.kind,
            node=line.node,
            attempt=line.attempt,
            status=line.status,
            at=timedelta(milliseconds=line.ts - x.created_at),
            data=decoded(line.data or None) or {},
        )
        for entry, fields in world.stored(KEYS.history(x.id)) or []
        for line in history_lines(entry, fields)
    ]


def _children(world: World, parent: str, dispatched: Sent, is_running: IsRunning) -> dict[str, Run]:
    found: dict[str, Run] = {}
    for x in list(world.executions.values()):
        above = x.parent
        if above is not None and above.execution == parent:
            found[above.node] = run_of(world, x.id, dispatched, is_running)
    return found
