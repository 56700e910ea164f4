"""Nodes of an execution: pages with filters, and one node with its attempts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from wf_core.states import NodeStatus
from wf_core.store.codec import AttemptRecord, NodeCell, unpack_attempts
from wf_core.store.reads import snapshot as snapshots
from wf_core.store.reads.documents import NodeTable
from wf_core.store.reads.snapshot import Snapshot
from wf_core.store.reads.views import NodeDetail, NodeErrorView, NodePage, NodeView, attempt_view, moment


class Facts(NamedTuple):
    """What a cell, its attempts and its claim say together."""

    status: NodeStatus
    attempts: int
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: NodeErrorView | None


def facts(snapshot: Snapshot, node: str, cell: NodeCell, history: Sequence[AttemptRecord]) -> Facts:
    """A node's times span all its attempts; its error is that of the last one, unless it completed in the end."""
    status, attempts, _, changed = cell
    claim = snapshot.claim(node, attempts) if status is NodeStatus.RUNNING else None
    started = next((record.started_at for record in history if record.started_at), claim.since if claim else None)
    last = history[-1] if history else None
    worker = claim.worker if claim else (last.worker if last else "")
    error = last.error if last and status is not NodeStatus.COMPLETED else None
    return Facts(
        status,
        attempts,
        worker or None,
        moment(started),
        moment(changed) if status.is_terminal else None,
        NodeErrorView(type=error.type, message=error.message) if error else None,
    )


async def read_attempts(
    redis: Redis, namespace: str, execution_id: str, nodes: Sequence[str]
) -> dict[str, list[AttemptRecord]]:
    """The ended attempts of some nodes, in one round trip."""
    keys = snapshots.keys_of(namespace, execution_id)
    if keys is None or not nodes:
        return {}
    fields = [f"a:{node}" for node in nodes]
    values: list[bytes | None] = await cast("Any", redis.hmget(keys.results(execution_id), fields))
    return {node: unpack_attempts(value) for node, value in zip(nodes, values, strict=True)}


async def read_nodes(  # noqa: PLR0913 - the execution, two filters and the page
    redis: Redis,
    namespace: str,
    execution_id: str,
    *,
    statuses: Collection[str] = (),
    task: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> NodePage | None:
    """A page of nodes in the document's order; None when there is no such execution.

    `statuses` may name RUNNING. Raises ValueError for a cursor that no page gave.
    """
    start = _start(cursor)
    snapshot = await snapshots.take(redis, namespace, execution_id)
    if snapshot is None:
        return None
    table = await snapshots.table_of(redis, namespace, snapshot)
    cells = snapshot.nodes(table)
    chosen = [
        index
        for index in range(start, len(cells))
        if (not statuses or cells[index][0] in statuses) and task in (None, table.tasks[index])
    ]
    page, rest = chosen[:limit], chosen[limit:]
    tried = [table.names[index] for index in page if cells[index][1]]
    history = await read_attempts(redis, namespace, execution_id, tried)
    items = [_view(snapshot, table, index, cells[index], history.get(table.names[index], [])) for index in page]
    return NodePage(items=items, next_cursor=str(rest[0]) if rest else None)


async def read_node(redis: Redis, namespace: str, execution_id: str, node: str) -> NodeDetail | None:
    """One node with its input, output and attempts; None when there is no such execution or node in it."""
    snapshot = await snapshots.take(redis, namespace, execution_id)
    keys = snapshots.keys_of(namespace, execution_id)
    if snapshot is None or keys is None:
        return None
    table = await snapshots.table_of(redis, namespace, snapshot)
    index = table.index.get(node)
    if index is None:
        return None
    fields = [f"a:{node}", f"i:{node}", f"o:{node}"]
    attempts, given, output = await cast("Any", redis.hmget(keys.results(execution_id), fields))
    history = unpack_attempts(attempts)
    view = _view(snapshot, table, index, snapshot.nodes(table)[index], history)
    return NodeDetail(
        **msgspec.structs.asdict(view),
        input=raw(given),
        output=raw(output),
        history=[attempt_view(record) for record in history],
    )


def raw(data: bytes | None) -> msgspec.Raw | None:
    """Stored JSON as a value of a view."""
    return msgspec.Raw(data) if data else None


def _start(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit()):
        raise ValueError(f"{cursor!r} is no cursor of a page of nodes")
    return int(cursor)


def _view(
    snapshot: Snapshot, table: NodeTable, index: int, cell: NodeCell, history: Sequence[AttemptRecord]
) -> NodeView:
    name = table.names[index]
    known = facts(snapshot, name, cell, history)
    return NodeView(
        node=name,
        task=table.tasks[index],
        status=known.status,
        attempts=known.attempts,
        queue=table.queues[index],
        worker=known.worker,
        started_at=known.started_at,
        ended_at=known.ended_at,
        error=known.error,
    )
