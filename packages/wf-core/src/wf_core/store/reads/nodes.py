"""Nodes of an execution: pages with filters, and one node with its attempts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from wf_core.ids import COMPENSATION
from wf_core.states import NodeStatus, ScopeState
from wf_core.store.codec import AttemptRecord, NodeCell, unpack_attempts
from wf_core.store.reads import snapshot as snapshots
from wf_core.store.reads.layout import Layout, Order, Place
from wf_core.store.reads.snapshot import Snapshot
from wf_core.store.reads.views import (
    ChildView,
    NodeDetail,
    NodeErrorView,
    NodePage,
    NodeView,
    ProgressView,
    attempt_view,
    moment,
)

_CURSOR = re.compile(r"\d{1,20}(-\d{1,20}){0,80}", re.ASCII)
_items = msgspec.json.Decoder(list[msgspec.Raw])


class Facts(NamedTuple):
    """What a cell, its attempts and its claim say together."""

    status: NodeStatus
    attempts: int
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: NodeErrorView | None


class Record(NamedTuple):
    """What the results hold about a node: its ended attempts, and of a map that was begun the number of its items."""

    attempts: Sequence[AttemptRecord] = ()
    items: int | None = None


def facts(snapshot: Snapshot, place: Place, cell: NodeCell, history: Sequence[AttemptRecord]) -> Facts:
    """A node's times span all its attempts; its error is that of the last one, unless it completed in the end."""
    status, attempt, _, changed = cell
    claim = snapshot.claim(place.path, attempt) if status is NodeStatus.RUNNING else None
    started = next((record.started_at for record in history if record.started_at), claim.since if claim else None)
    last = history[-1] if history else None
    if started is None and is_open(place, cell, history):
        started = changed
    worker = claim.worker if claim else (last.worker if last else "")
    error = last.error if last and status is not NodeStatus.COMPLETED else None
    return Facts(
        status,
        max(attempt - place.floor, 0),
        worker or None,
        moment(started),
        moment(changed) if status.is_terminal else None,
        NodeErrorView(type=error.type, message=error.message) if error else None,
    )


def is_open(place: Place, cell: NodeCell, history: Sequence[AttemptRecord]) -> bool:
    """Whether a WAITING node's attempt runs: its children, its timer. Else the node waits until it may start one."""
    return cell[0] is NodeStatus.WAITING and cell[1] > (history[-1].attempt if history else place.floor)


def was_tried(place: Place, cell: NodeCell) -> bool:
    """Whether an attempt of the node began."""
    return cell[1] > place.floor


async def read_records(redis: Redis, namespace: str, execution_id: str, places: Sequence[Place]) -> dict[str, Record]:
    """What the results hold about some nodes that were tried, in one round trip."""
    keys = snapshots.keys_of(namespace, execution_id)
    if keys is None or not places:
        return {}
    maps = [place.path for place in places if place.kind == "map"]
    fields = [f"a:{place.path}" for place in places] + [f"i:{path}" for path in maps]
    values: list[bytes | None] = await cast("Any", redis.hmget(keys.results(execution_id), fields))
    counts = {path: len(_items.decode(given)) for path, given in zip(maps, values[len(places) :], strict=True) if given}
    return {
        place.path: Record(unpack_attempts(attempts), counts.get(place.path))
        for place, attempts in zip(places, values, strict=False)
    }


def progress_of(
    snapshot: Snapshot, layout: Layout, place: Place, cell: NodeCell, record: Record
) -> ProgressView | msgspec.Raw | None:
    """What a running task reported, or how far a container that was begun is."""
    if cell[0] is NodeStatus.RUNNING:
        claim = snapshot.claim(place.path, cell[1])
        return raw(claim.progress) if claim else None
    if place.kind not in ("map", "loop") or not was_tried(place, cell):
        return None
    scopes = layout.items_of(place.at)
    batch = place.table.batches.get(place.local, 1)
    is_map = place.kind == "map"
    total = place.table.most_passes.get(place.local)
    if is_map:
        total = None if record.items is None else -(-record.items // batch)
    return ProgressView(
        total=total,
        opened=len(scopes),
        ended=sum(scope.state is not ScopeState.OPEN for scope in scopes),
        failed=sum(scope.state is ScopeState.FAILED for scope in scopes),
        pass_=None if is_map or not scopes else scopes[-1].number,
    )


async def read_nodes(  # noqa: PLR0913 - the execution, three filters and the page
    redis: Redis,
    namespace: str,
    execution_id: str,
    *,
    under: str | None = None,
    statuses: Collection[str] = (),
    task: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> NodePage | None:
    """A page of nodes in the document's order; None when there is no such execution.

    Those of the top level, each followed by its compensation where that has begun; or with `under` (the path of a node,
    the key of a scope: `price`, `price[3]`) those inside it at any depth.

    `statuses` may name RUNNING. Raises ValueError for a cursor that no page gave, UnknownNodeError
    when there is nothing at `under`.
    """
    start = _start(cursor)
    snapshot = await snapshots.take(redis, namespace, execution_id)
    if snapshot is None:
        return None
    layout = await snapshots.layout_of(redis, namespace, snapshot)
    found = top_cells(snapshot, layout, start) if under is None else _inside(snapshot, layout, under, start)
    chosen = (
        (place, cell)
        for place, cell in found
        if (not statuses or cell[0] in statuses) and task in (None, place.table.tasks[place.local])
    )
    page = list(islice(chosen, limit + 1))
    rest = page[limit:]
    del page[limit:]
    records = await read_records(
        redis, namespace, execution_id, [place for place, cell in page if was_tried(place, cell)]
    )
    items = [node_view(snapshot, layout, place, cell, records.get(place.path, Record())) for place, cell in page]
    return NodePage(items=items, next_cursor="-".join(map(str, rest[0][0].order)) if rest else None)


async def read_node(redis: Redis, namespace: str, execution_id: str, node: str) -> NodeDetail | None:
    """One node with its input, output and attempts; None when there is no such execution. Raises UnknownNodeError."""
    snapshot = await snapshots.take(redis, namespace, execution_id)
    keys = snapshots.keys_of(namespace, execution_id)
    if snapshot is None or keys is None:
        return None
    layout = await snapshots.layout_of(redis, namespace, snapshot)
    place = layout.place(node)
    undo = layout.find(node + COMPENSATION) if place.local in place.table.undoing else None
    fields = [f"a:{node}", f"i:{node}", f"o:{node}", f"ch:{node}", f"a:{node}{COMPENSATION}"]
    attempts, given, output, child, undone = await cast("Any", redis.hmget(keys.results(execution_id), fields))
    history = unpack_attempts(attempts)
    items = len(_items.decode(given)) if given and place.kind == "map" else None
    view = node_view(snapshot, layout, place, snapshot.cell(place), Record(history, items))
    return NodeDetail(
        **msgspec.structs.asdict(view),
        input=raw(given),
        output=raw(output),
        child=ChildView(execution_id=msgspec.json.decode(child, type=str)) if child else None,
        compensation=undo and node_view(snapshot, layout, undo, snapshot.cell(undo), Record(unpack_attempts(undone))),
        history=[attempt_view(record) for record in history],
    )


def raw(data: bytes | None) -> msgspec.Raw | None:
    """Stored JSON as a value of a view."""
    return msgspec.Raw(data) if data else None


def node_view(snapshot: Snapshot, layout: Layout, place: Place, cell: NodeCell, record: Record) -> NodeView:
    """A node as lists show it."""
    known = facts(snapshot, place, cell, record.attempts)
    is_task = place.kind == "task"
    return NodeView(
        node=place.path,
        kind=place.kind,
        task=place.table.tasks[place.local] if is_task else None,
        status=known.status,
        attempts=known.attempts,
        queue=place.table.queues[place.local] if is_task else None,
        worker=known.worker,
        started_at=known.started_at,
        ended_at=known.ended_at,
        error=known.error,
        progress=progress_of(snapshot, layout, place, cell, record),
    )


def top_cells(snapshot: Snapshot, layout: Layout, start: Order = ()) -> Iterator[tuple[Place, NodeCell]]:
    """The nodes of the top level and their compensations, from `start` on, with their cells."""
    cells = snapshot.nodes(layout.root)
    for place in layout.outer(start):
        yield place, cells[place.at] if place.table is layout.root else snapshot.cell(place)


def _inside(snapshot: Snapshot, layout: Layout, under: str, start: Order) -> Iterator[tuple[Place, NodeCell]]:
    for place in layout.walk(under, start):
        yield place, snapshot.cell(place)


def _start(cursor: str | None) -> Order:
    if cursor is None:
        return ()
    if not _CURSOR.fullmatch(cursor):
        raise ValueError(f"{cursor!r} is no cursor of a page of nodes")
    return tuple(map(int, cursor.split("-")))
