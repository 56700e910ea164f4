"""Documents as Redis keeps them, and the tables of nodes in them that reads need."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.store.keys import PartitionKeys
from wf_core.wire import Document

MOST_NODES_KEPT = 300_000


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
    """The nodes of a document, in the order of their cells."""

    names: tuple[str, ...]
    tasks: tuple[str, ...]
    queues: tuple[str, ...]
    index: dict[str, int]


NO_NODES = NodeTable((), (), (), {})


class _Node(msgspec.Struct, frozen=True):
    task: str = ""
    queue: str = "default"


class _Document(msgspec.Struct, frozen=True):
    nodes: dict[str, _Node]


_decoder = msgspec.json.Decoder(_Document)


def node_table(canonical: bytes) -> NodeTable:
    """The table of a canonical document."""
    nodes = _decoder.decode(canonical).nodes
    names = tuple(nodes)
    return NodeTable(
        names,
        tuple(node.task for node in nodes.values()),
        tuple(node.queue for node in nodes.values()),
        {name: index for index, name in enumerate(names)},
    )


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
            self._nodes += len(table.names)
        while self._nodes > self._limit and len(self._kept) > 1:
            self._nodes -= len(self._kept.popitem(last=False)[1].names)
        return table


tables = NodeTables()  # a memo by content, as functools.cache would keep it if filling it took no I/O
