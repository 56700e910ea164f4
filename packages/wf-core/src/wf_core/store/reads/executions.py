"""One execution: its view with nodes, and its results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.states import ExecutionStatus, NodeStatus
from wf_core.store.codec import unpack_nodes
from wf_core.store.reads import snapshot as snapshots
from wf_core.store.reads.layout import Layout
from wf_core.store.reads.nodes import Record, facts, progress_of, raw, read_records, top_cells, was_tried
from wf_core.store.reads.snapshot import Execution, Snapshot
from wf_core.store.reads.views import (
    ExecutionSummary,
    ExecutionView,
    NodeSummary,
    ParentView,
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
    snapshot = await snapshots.take(redis, namespace, execution_id, deep=nodes)
    if snapshot is None:
        return None
    view = _view(snapshot)
    if not nodes and view.counts:
        return view
    layout = await snapshots.layout_of(redis, namespace, snapshot)
    if not view.counts:
        pending = {NodeStatus.PENDING.value: len(layout.root.names)}
        view = msgspec.structs.replace(view, counts=_present(pending))
    if not nodes:
        return view
    shown = await _summaries(redis, namespace, snapshot, layout)
    return msgspec.structs.replace(view, nodes=shown, nodes_omitted=layout.outer_size - len(shown))


async def read_results(redis: Redis, namespace: str, execution_id: str) -> ResultsView | None:
    """The outputs of the nodes of the top level that have completed; None when there is no such execution."""
    snapshot = await snapshots.take(redis, namespace, execution_id, deep=False)
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
    parent = execution.parent
    return ExecutionView(
        **fields,
        input=msgspec.Raw(execution.input),
        output=raw(execution.output),
        parent=ParentView(execution_id=parent.execution, node=parent.node) if parent else None,
        ending=ExecutionStatus(execution.ending) if execution.ending else None,
        halting=execution.halting or None,
    )


def _running(counts: dict[str, int], claimed: int) -> dict[str, int]:
    """Counts with what workers have claimed as RUNNING: a claim lives exactly as long as its node is QUEUED."""
    queued, running = NodeStatus.QUEUED.value, NodeStatus.RUNNING.value
    claimed = min(claimed, counts.get(queued, 0))
    return _present({**counts, queued: counts.get(queued, 0) - claimed, running: counts.get(running, 0) + claimed})


def _present(counts: dict[str, int]) -> dict[str, int]:
    return {status: count for status, count in counts.items() if count}


async def _summaries(redis: Redis, namespace: str, snapshot: Snapshot, layout: Layout) -> dict[str, NodeSummary]:
    cells = list(islice(top_cells(snapshot, layout), MOST_NODES))
    tried = [place for place, cell in cells if was_tried(place, cell)]
    records = await read_records(redis, namespace, snapshot.execution_id, tried)
    shown = {}
    for place, cell in cells:
        record = records.get(place.path, Record())
        known = facts(snapshot, place, cell, record.attempts)
        shown[place.path] = NodeSummary(
            status=known.status,
            attempts=known.attempts,
            started_at=known.started_at,
            ended_at=known.ended_at,
            error=known.error,
            kind=place.kind,
            progress=progress_of(snapshot, layout, place, cell, record),
        )
    return shown


async def _outputs(redis: Redis, key: str, nodes: Sequence[str]) -> dict[str, msgspec.Raw]:
    """Outputs by node, in one round trip of bounded commands."""
    async with redis.pipeline(transaction=False) as pipe:
        for start in range(0, len(nodes), _CHUNK):
            pipe.hmget(key, [f"o:{node}" for node in nodes[start : start + _CHUNK]])
        values = [value for chunk in await pipe.execute() for value in chunk]
    return {node: msgspec.Raw(value) for node, value in zip(nodes, values, strict=True) if value is not None}
