"""Documents as Redis keeps them, and the tables of nodes in them that reads need."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.store.keys import PartitionKeys
from wf_core.wire import Document

MOST_NODES_KEPT = 300_000
_CONTAINERS = frozenset({"map", "loop"})
"""Kinds whose `nodes` are bodies of the same execution; a dynamic node's come while it runs."""


async def read_document(redis: Redis, namespace: str, partition: int, document_hash: str) -> bytes | None:
    """The canonical JSON of a document that was folded in this partition; None when there is none."""
    keys = PartitionKeys.of(namespace, partition)
    return join_fields(await cast("Any", redis.hgetall(keys.document(document_hash))))


def join_fields(fields: dict[bytes, bytes]) -> bytes | None:
    """The document in the fields of its hash; None while parts are missing."""
    wanted = int(fields.get(b"parts", b"0"))
    parts = {int(name): data for name, data in fields.items() if name != b"parts"}
    return _join(parts, wanted)


def join_records(records: Iterable[Document]) -> bytes | None:
    """The document in its records; None while parts are missing."""
    listed = list(records)
    return _join({record.part: record.data for record in listed}, listed[0].parts if listed else 0)


def _join(parts: dict[int, bytes], wanted: int) -> bytes | None:
    if not wanted or len(parts) < wanted:
        return None
    return zlib.decompress(b"".join(parts[number] for number in sorted(parts)))


@dataclass(frozen=True, slots=True)
class NodeTable:
    """The nodes of a body, in the order of their cells: a document's, or those inside a container."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    tasks: tuple[str, ...]
    queues: tuple[str, ...]
    index: dict[str, int]
    inner: dict[int, NodeTable] = field(default_factory=dict)
    """Bodies of the maps and loops in it, by index."""
    undoing: dict[int, NodeTable] = field(default_factory=dict)
    """Compensations of its nodes, by index."""
    batches: dict[int, int] = field(default_factory=dict)
    """Items that one scope of a map takes, where that is not one."""
    most_passes: dict[int, int] = field(default_factory=dict)
    single: bool = False
    """Its one node has the path of the scope: an item of a map without `nodes`, a compensation."""

    @property
    def size(self) -> int:
        """Nodes in it and in the bodies inside."""
        return len(self.names) + sum(table.size for table in (*self.inner.values(), *self.undoing.values()))


NO_NODES = NodeTable((), (), (), (), {})


class _Undo(msgspec.Struct, frozen=True):
    task: str = ""


class _Node(msgspec.Struct, frozen=True):
    kind: str = "task"
    task: str = ""
    queue: str = "default"
    nodes: msgspec.Raw = msgspec.Raw()
    compensate: _Undo | None = None
    batch: int | None = None
    max_iterations: int | None = None


class _Document(msgspec.Struct, frozen=True):
    nodes: dict[str, _Node]
    finally_: dict[str, _Node] = msgspec.field(default={}, name="finally")


_decoder = msgspec.json.Decoder(_Document)
_body_decoder = msgspec.json.Decoder(dict[str, _Node])


def node_table(canonical: bytes) -> NodeTable:
    """The table of a canonical document: its nodes, then those of `finally`."""
    document = _decoder.decode(canonical)
    return _table(document.nodes | document.finally_)


def _table(nodes: Mapping[str, _Node]) -> NodeTable:
    """Recurses into bodies, which nest 32 deep at most."""
    names = tuple(nodes)
    listed = tuple(nodes.values())
    return NodeTable(
        names,
        tuple(node.kind for node in listed),
        # A map's `task` is that of its items.
        tuple(node.task if node.kind == "task" else "" for node in listed),
        tuple(node.queue for node in listed),
        {name: at for at, name in enumerate(names)},
        {at: _inside(node) for at, node in enumerate(listed) if node.kind in _CONTAINERS},
        {at: _single(node.compensate.task, node.queue) for at, node in enumerate(listed) if node.compensate},
        {at: node.batch for at, node in enumerate(listed) if node.batch},
        {at: node.max_iterations for at, node in enumerate(listed) if node.max_iterations},
    )


def _inside(node: _Node) -> NodeTable:
    """The body of a map or loop."""
    return _table(_body_decoder.decode(node.nodes)) if node.nodes else _single(node.task, node.queue)


def _single(task: str, queue: str) -> NodeTable:
    return NodeTable(("",), ("task",), (task,), (queue,), {"": 0}, single=True)


class NodeTables:
    """Keeps the tables that were used last, up to MOST_NODES_KEPT nodes in all. A hash names one content for ever."""

    def __init__(self, limit: int = MOST_NODES_KEPT) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, NodeTable] = OrderedDict()
        self._nodes = 0

    def get(self, document_hash: str) -> NodeTable | None:
        """A table that was kept."""
        if document_hash in self._kept:
            self._kept.move_to_end(document_hash)
        return self._kept.get(document_hash)

    def keep(self, document_hash: str, table: NodeTable) -> NodeTable:
        """Keeps a table in place of those that nobody used for longest."""
        if document_hash not in self._kept:
            self._kept[document_hash] = table
            self._nodes += table.size
        while self._nodes > self._limit and len(self._kept) > 1:
            self._nodes -= self._kept.popitem(last=False)[1].size
        return table


tables = NodeTables()  # a memo by content, as functools.cache would keep it if filling it took no I/O
