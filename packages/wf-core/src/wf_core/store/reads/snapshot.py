"""One consistent look at an execution: what was folded, what was only accepted, and what workers have claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from redis.asyncio import Redis

from wf_core import wire
from wf_core.ids import is_execution_id, partition_of, split_token, token
from wf_core.states import ExecutionStatus, NodeStatus
from wf_core.store.codec import NODE_BYTES, NodeCell, ScopeRecord, unpack_failure, unpack_nodes, unpack_scope
from wf_core.store.commands import unpack_command
from wf_core.store.keys import PartitionKeys
from wf_core.store.reads import documents
from wf_core.store.reads.documents import NodeTable
from wf_core.store.reads.layout import Layout, Place
from wf_core.wire import Failure

SUMMARY_FIELDS = (
    "status",
    "document",
    "name",
    "version",
    "labels",
    "counts",
    "error",
    "created_at",
    "started_at",
    "ended_at",
)
_FIELDS = (*SUMMARY_FIELDS, "input", "output", "parent", "ending", "halting")

_labels = msgspec.json.Decoder(dict[str, str])
_counts = msgspec.json.Decoder(dict[str, int])
_parent = msgspec.msgpack.Decoder(wire.Parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The fields of an execution; times are Unix ms."""

    status: ExecutionStatus
    document: str
    name: str
    version: str | None
    labels: dict[str, str]
    counts: dict[str, int]
    """By stored status, so what runs is QUEUED; empty when nothing was folded yet."""
    error: Failure | None
    created_at: int
    started_at: int | None
    ended_at: int | None
    input: bytes = b"{}"
    output: bytes | None = None
    parent: wire.Parent | None = None
    """The node of another execution that it runs for."""
    ending: str = ""
    """The status that it will end in, while compensations and `finally` run."""
    halting: str = ""
    """`halt` or `cancel` while a failure keeps it from starting anything but clean-up."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker runs an attempt since `since` (Unix ms); `progress` is the JSON that the task reported last."""

    worker: str
    since: int
    progress: bytes | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An execution at one moment."""

    execution_id: str
    execution: Execution
    cells: bytes
    claims: dict[str, Claim]
    """By token; only those of this execution."""
    accepted: tuple[wire.Event, ...] = ()
    """The records of its creation when nothing of it was folded yet."""
    scopes: dict[str, ScopeRecord] = field(default_factory=dict)
    """By key, the insides of its containers."""

    def nodes(self, table: NodeTable) -> list[NodeCell]:
        """Every node's cell; a queued node that a worker claimed is RUNNING since then."""
        cells = unpack_nodes(self.cells, len(table.names))
        for claimed, claim in self.claims.items():
            _, node, attempt = split_token(claimed)
            index = table.index.get(node, -1)
            if index >= 0 and cells[index][:2] == (NodeStatus.QUEUED, attempt):
                cells[index] = (NodeStatus.RUNNING, attempt, cells[index][2], claim.since)
        return cells

    def cell(self, place: Place) -> NodeCell:
        """One node's cell, as `nodes` gives it."""
        start = place.at * NODE_BYTES
        cell = unpack_nodes(self.cells[start : start + NODE_BYTES], 1)[0]
        claim = self.claim(place.path, cell[1]) if cell[0] is NodeStatus.QUEUED else None
        return (NodeStatus.RUNNING, cell[1], cell[2], claim.since) if claim else cell

    def claim(self, node: str, attempt: int) -> Claim | None:
        """The claim of an attempt."""
        return self.claims.get(token(self.execution_id, node, attempt))


def keys_of(namespace: str, execution_id: str) -> PartitionKeys | None:
    """The keys of an execution's partition; None when the id has not the form of one."""
    return PartitionKeys.of(namespace, partition_of(execution_id)) if is_execution_id(execution_id) else None


async def take(redis: Redis, namespace: str, execution_id: str, *, deep: bool = True) -> Snapshot | None:
    """Reads an execution at one moment, in one round trip; None when there is none.

    Not `deep`: without the scopes inside its containers, of which there may be a hundred thousand.
    """
    keys = keys_of(namespace, execution_id)
    if keys is None:
        return None
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hget(keys.accepted, f"{execution_id}/create")
        pipe.hmget(keys.execution(execution_id), _FIELDS)
        pipe.get(keys.nodes(execution_id))
        pipe.hgetall(keys.claims)  # as many as workers have slots, however many nodes are queued
        pipe.hgetall(keys.progress)
        if deep:
            pipe.hgetall(keys.scopes(execution_id))
        accepted, fields, cells, claims, progress, *scopes = await pipe.execute()
    if fields[0] is not None:
        inside = {key.decode(): unpack_scope(scope) for found in scopes for key, scope in found.items()}
        return Snapshot(
            execution_id, parse(fields), cells or b"", _claims(execution_id, claims, progress), scopes=inside
        )
    if accepted is None:
        return None
    execution, records = parse_accepted(accepted)
    return Snapshot(execution_id, execution, b"", {}, records)


@dataclass(frozen=True, slots=True)
class Located:
    """A snapshot, and where its nodes are."""

    snapshot: Snapshot
    layout: Layout


async def read_layout(redis: Redis, namespace: str, execution_id: str) -> Located | None:
    """A snapshot with the places of its nodes; None when there is no such execution. Two round trips at most."""
    snapshot = await take(redis, namespace, execution_id)
    return None if snapshot is None else Located(snapshot, await layout_of(redis, namespace, snapshot))


async def layout_of(redis: Redis, namespace: str, snapshot: Snapshot) -> Layout:
    """Where the snapshot's nodes are, those inside containers too; as `table_of`."""
    return Layout(await table_of(redis, namespace, snapshot), snapshot.scopes)


async def table_of(redis: Redis, namespace: str, snapshot: Snapshot) -> NodeTable:
    """The nodes of the snapshot's document; one round trip, or none when the document was read before.

    No nodes when the document is not there: such an execution has FAILED, and must still be shown.
    """
    document_hash = snapshot.execution.document
    table = documents.tables.get(document_hash)
    if table is not None:
        return table
    canonical = await canonical_of(redis, namespace, snapshot)
    if canonical is None:
        return documents.NO_NODES
    return documents.tables.keep(document_hash, documents.node_table(canonical))


async def canonical_of(redis: Redis, namespace: str, snapshot: Snapshot) -> bytes | None:
    """The snapshot's canonical document; None when it is not there. One round trip."""
    records = [record for record in snapshot.accepted if isinstance(record, wire.Document)]
    canonical = documents.join_records(records)
    if canonical is None:
        partition = partition_of(snapshot.execution_id)
        canonical = await documents.read_document(redis, namespace, partition, snapshot.execution.document)
    return canonical


def parse(fields: Sequence[bytes | None]) -> Execution:
    """An execution from the values of `SUMMARY_FIELDS`, or of these and the others that a snapshot reads."""
    status, document, name, version, labels, counts, error, created, started, ended, *rest = fields
    given, output, parent, ending, halting = rest or (None,) * 5
    return Execution(
        status=ExecutionStatus(_text(status)),
        document=_text(document),
        name=_text(name),
        version=_text(version) if version is not None else None,
        labels=_labels.decode(labels) if labels else {},
        counts=_counts.decode(counts) if counts else {},
        error=unpack_failure(error),
        created_at=int(created or 0),
        started_at=int(started) if started else None,
        ended_at=int(ended) if ended else None,
        input=given or b"{}",
        output=output or None,
        parent=_parent.decode(parent) if parent else None,
        ending=_text(ending),
        halting=_text(halting),
    )


def parse_accepted(command: bytes) -> tuple[Execution, tuple[wire.Event, ...]]:
    """An execution of which nothing was folded yet, from its accepted creation: it is PENDING."""
    records = tuple(wire.decode_event(record) for record in unpack_command(command).record)
    created = next(record for record in records if isinstance(record, wire.Created))
    execution = Execution(
        status=ExecutionStatus.PENDING,
        document=created.document,
        name=created.name,
        version=created.version,
        labels=created.labels,
        counts={},
        error=None,
        created_at=created.ts,
        started_at=None,
        ended_at=None,
        input=created.input,
        parent=created.parent,
    )
    return execution, records


def _claims(execution_id: str, claims: dict[bytes, bytes], progress: dict[bytes, bytes]) -> dict[str, Claim]:
    prefix = f"{execution_id}/".encode()
    found = {}
    for claimed, value in claims.items():
        worker, _, since = value.decode().rpartition("|")
        if claimed.startswith(prefix) and worker != "condemned":
            found[claimed.decode()] = Claim(worker, int(since), progress.get(claimed))
    return found


def _text(value: bytes | None) -> str:
    return value.decode() if value else ""
