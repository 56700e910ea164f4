"""One execution: its view with nodes, and its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.states import NodeStatus
from wf_core.store.codec import unpack_nodes
from wf_core.store.reads import snapshot as snapshots
from wf_core.store.reads.documents import NodeTable
from wf_core.store.reads.nodes import facts, raw, read_attempts
from wf_core.store.reads.snapshot import Execution, Snapshot
from wf_core.store.reads.views import (
    ExecutionSummary,
    ExecutionView,
    NodeSummary,
    ResultsView,
    error_view,
    moment,
)

MOST_NODES = 1000
_CHUNK = 1000


async def read_execution(
    redis: Redis, namespace: str, execution_id: str, *, nodes: bool = True
) -> ExecutionView | None:
    """An execution; None when there is none. At most three round trips, one less without its nodes."""
    snapshot = await snapshots.take(redis, namespace, execution_id)
    if snapshot is None:
        return None
    view = _view(snapshot)
    if not nodes and view.counts:
        return view
    table = await snapshots.table_of(redis, namespace, snapshot)
    if not view.counts:
        view = msgspec.structs.replace(view, counts=_present({NodeStatus.PENDING.value: len(table.names)}))
    if not nodes:
        return view
    shown = await _summaries(redis, namespace, snapshot, table)
    return msgspec.structs.replace(view, nodes=shown, nodes_omitted=len(table.names) - len(shown))


async def read_results(redis: Redis, namespace: str, execution_id: str) -> ResultsView | None:
    """The outputs of all nodes that have completed; None when there is no such execution."""
    snapshot = await snapshots.take(redis, namespace, execution_id)
    keys = snapshots.keys_of(namespace, execution_id)
    if snapshot is None or keys is None:
        return None
    table = await snapshots.table_of(redis, namespace, snapshot)
    cells = unpack_nodes(snapshot.cells, len(table.names))
    completed = [name for name, cell in zip(table.names, cells, strict=True) if cell[0] is NodeStatus.COMPLETED]
    outputs = await _outputs(redis, keys.results(execution_id), completed)
    execution = snapshot.execution
    return ResultsView(
        execution_id=execution_id, status=execution.status, output=raw(execution.output), results=outputs
    )


def summary(execution_id: str, execution: Execution) -> ExecutionSummary:
    """An execution as lists show it."""
    created = moment(execution.created_at)
    return ExecutionSummary(
        execution_id=execution_id,
        name=execution.name,
        version=execution.version,
        status=execution.status,
        labels=execution.labels,
        counts=_present(execution.counts),
        error=error_view(execution.error),
        created_at=cast("Any", created),
        started_at=moment(execution.started_at),
        ended_at=moment(execution.ended_at),
    )


def _view(snapshot: Snapshot) -> ExecutionView:
    execution = snapshot.execution
    fields = msgspec.structs.asdict(summary(snapshot.execution_id, execution))
    fields["counts"] = _running(execution.counts, len(snapshot.claims))
    return ExecutionView(**fields, input=msgspec.Raw(execution.input), output=raw(execution.output))


def _running(counts: dict[str, int], claimed: int) -> dict[str, int]:
    """Counts with what workers have claimed as RUNNING: a claim lives exactly as long as its node is QUEUED."""
    queued, running = NodeStatus.QUEUED.value, NodeStatus.RUNNING.value
    claimed = min(claimed, counts.get(queued, 0))
    return _present({**counts, queued: counts.get(queued, 0) - claimed, running: counts.get(running, 0) + claimed})


def _present(counts: dict[str, int]) -> dict[str, int]:
    return {status: count for status, count in counts.items() if count}


async def _summaries(redis: Redis, namespace: str, snapshot: Snapshot, table: NodeTable) -> dict[str, NodeSummary]:
    names = table.names[:MOST_NODES]
    cells = snapshot.nodes(table)
    tried = [name for name, cell in zip(names, cells, strict=False) if cell[1]]
    history = await read_attempts(redis, namespace, snapshot.execution_id, tried)
    shown = {}
    for name, cell in zip(names, cells, strict=False):
        known = facts(snapshot, name, cell, history.get(name, []))
        shown[name] = NodeSummary(
            status=known.status,
            attempts=known.attempts,
            started_at=known.started_at,
            ended_at=known.ended_at,
            error=known.error,
        )
    return shown


async def _outputs(redis: Redis, key: str, nodes: Sequence[str]) -> dict[str, msgspec.Raw]:
    """Outputs by node, in one round trip of bounded commands."""
    async with redis.pipeline(transaction=False) as pipe:
        for start in range(0, len(nodes), _CHUNK):
            pipe.hmget(key, [f"o:{node}" for node in nodes[start : start + _CHUNK]])
        values = [value for chunk in await pipe.execute() for value in chunk]
    return {node: msgspec.Raw(value) for node, value in zip(nodes, values, strict=True) if value is not None}
