"""Fixtures of the store's tests: scripts, an owned partition, and a writer of executions."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis

from wf_core import wire
from wf_core.ids import new_execution_id, token
from wf_core.states import ExecutionStatus, NodeStatus
from wf_core.store.codec import (
    AttemptRecord,
    ScopeRecord,
    pack_attempts,
    pack_failure,
    pack_history,
    pack_node,
    pack_scope,
)
from wf_core.store.commands import pack_command
from wf_core.store.keys import PartitionKeys
from wf_core.store.ops import Op
from wf_core.store.reads import documents
from wf_core.store.scripts import Scripts

LEASE_MS = 60_000
CREATED = 1_800_000_000_000


@pytest.fixture(autouse=True)
async def nothing_left_behind(redis: Redis, namespace: str) -> AsyncIterator[None]:
    """A test that writes a key outside its namespace fails."""
    before = {key async for key in redis.scan_iter(count=1000)}
    yield
    after = {key async for key in redis.scan_iter(count=1000)}
    strangers = [key for key in after - before if not key.startswith(f"{namespace}:".encode())]
    assert not strangers


@pytest.fixture(autouse=True)
def empty_memo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test reads documents anew."""
    monkeypatch.setattr(documents, "tables", documents.NodeTables())


@pytest.fixture
def scripts(redis: Redis) -> Scripts:
    """The typed scripts."""
    return Scripts(redis)


@pytest.fixture
def keys(namespace: str) -> PartitionKeys:
    """The keys of partition 3."""
    return PartitionKeys.of(namespace, 3)


@dataclass
class Owner:
    """Owns one partition under the nonce `owner` and writes to it as an orchestrator does."""

    scripts: Scripts
    keys: PartitionKeys
    nonce: str = "owner"
    offset: int = 0

    async def take(self, *, live: bool = True) -> Owner:
        """Leases the partition."""
        lease = await self.scripts.lease(self.keys, self.nonce, LEASE_MS)
        assert lease is not None
        self.offset = lease.offset
        await self.scripts.renew(self.keys, self.nonce, LEASE_MS, self.offset, live=live)
        return self

    async def write(self, *ops: Op) -> None:
        """Applies the outcome of one record."""
        batch = f"b{self.offset}"
        answer = await self.scripts.apply(
            self.keys, self.nonce, self.offset, self.offset + 1, batch, ops, seq=self.offset, ts=CREATED
        )
        assert answer == "OK"
        self.offset += 1

    async def dispatch(self, *tokens: str, queue: str = "default") -> None:
        """Puts tokens in flight and into the outbox."""
        await self.write(
            *(("HSET", self.keys.in_flight, name, CREATED) for name in tokens),
            *(("ZADD", self.keys.outbox(queue), index, name) for index, name in enumerate(tokens)),
            ("SADD", self.keys.queues, queue),
        )

    async def end(self, *tokens: str, queue: str = "default") -> None:
        """Takes tokens out of flight."""
        places = (self.keys.in_flight, self.keys.sent, self.keys.claims)
        await self.write(*(("HDEL", place, *tokens) for place in places), ("ZREM", self.keys.outbox(queue), *tokens))


@pytest.fixture
async def owner(scripts: Scripts, keys: PartitionKeys) -> Owner:
    """A live owner of partition 3."""
    return await Owner(scripts, keys).take()


@dataclass
class Written:
    """An execution in the making: what a fold would have written. Nodes are `id → task`."""

    owner: Owner
    partition: int
    nodes: Mapping[str, str]
    execution_id: str = ""
    name: str = "orders"
    created_at: int = CREATED
    labels: dict[str, str] = field(default_factory=dict)
    queue: str = "default"
    document: Mapping[str, object] | None = None
    """In place of one that is made of `nodes`; these then name its cells, those inside containers too."""

    def __post_init__(self) -> None:
        self.execution_id = self.execution_id or new_execution_id(self.partition, self.created_at)

    @property
    def keys(self) -> PartitionKeys:
        """The keys of its partition."""
        return self.owner.keys

    @property
    def canonical(self) -> bytes:
        """Its document."""
        if self.document is not None:
            return json.dumps({"name": self.name, **self.document}, separators=(",", ":")).encode()
        nodes = {node: {"task": task, "queue": self.queue} for node, task in self.nodes.items()}
        return json.dumps({"name": self.name, "nodes": nodes}, separators=(",", ":")).encode()

    @property
    def hash(self) -> str:
        """The name of its document."""
        return f"{zlib.crc32(self.canonical):08x}"

    def created(self) -> wire.Created:
        """The record of its creation."""
        return wire.Created(
            execution=self.execution_id,
            ts=self.created_at,
            source="api",
            id="c1",
            document=self.hash,
            name=self.name,
            labels=self.labels,
            input=b'{"day":"2026-01-01"}',
        )

    def command(self) -> bytes:
        """Its creation as ACCEPT keeps it, with the document in two parts."""
        packed = zlib.compress(self.canonical)
        parts = [
            wire.Document(
                execution=self.execution_id, ts=self.created_at, source="api", hash=self.hash, part=i, parts=2, data=d
            )
            for i, d in enumerate((packed[:10], packed[10:]))
        ]
        return pack_command(self.created_at, [wire.encode(record) for record in (*parts, self.created())], "r1")

    async def fold(self, *, status: ExecutionStatus = ExecutionStatus.RUNNING, **fields: str | bytes) -> Written:
        """Writes the execution with all its nodes PENDING, its document and its indexes."""
        packed = zlib.compress(self.canonical)
        document = self.keys.document(self.hash)
        values: dict[str, str | bytes] = {
            "status": status,
            "document": self.hash,
            "name": self.name,
            "labels": json.dumps(self.labels),
            "input": b'{"day":"2026-01-01"}',
            "created_at": str(self.created_at),
            "counts": json.dumps({"PENDING": len(self.nodes)}),
            **fields,
        }
        words = [("all",), ("s", status), ("n", self.name), *(("l", f"{k}={v}") for k, v in self.labels.items())]
        await self.owner.write(
            ("HSET", document, "0", packed[:10], "1", packed[10:], "parts", 2),
            ("HSET", self.keys.execution(self.execution_id), *(part for pair in values.items() for part in pair)),
            *(("ZADD", self.keys.index(*word), self.created_at, self.execution_id) for word in words),
            ("HDEL", self.keys.accepted, f"{self.execution_id}/create"),
        )
        return self

    async def set(
        self,
        node: str,
        status: NodeStatus,
        attempt: int = 1,
        *,
        at: int = CREATED + 9000,
        attempts: Sequence[AttemptRecord] = (),
        **results: bytes,
    ) -> None:
        """Writes a node's cell, attempts, and its `input` and `output`; a QUEUED one is dispatched."""
        index = list(self.nodes).index(node)
        ops: list[Op] = [
            ("SETRANGE", self.keys.nodes(self.execution_id), index * 10, pack_node(status, attempt, 0, at))
        ]
        short = {"input": "i", "output": "o", "child": "ch"}
        stored: dict[str, bytes] = {f"{short[name]}:{node}": value for name, value in results.items()}
        if attempts:
            stored[f"a:{node}"] = pack_attempts(attempts)
        if stored:
            pairs = (part for pair in stored.items() for part in pair)
            ops.append(("HSET", self.keys.results(self.execution_id), *pairs))
        await self.owner.write(*ops)
        if status is NodeStatus.QUEUED:
            await self.owner.dispatch(self.token(node, attempt), queue=self.queue)

    async def open(self, key: str, parent: str, first: str, **fields: object) -> None:
        """Writes a scope inside the node `parent`, whose first node is `first`."""
        names = list(self.nodes)
        scope = ScopeRecord(base=names.index(first), parent=names.index(parent), **fields)  # type: ignore[arg-type]
        await self.owner.write(("HSET", self.keys.scopes(self.execution_id), key, pack_scope(scope)))

    async def count(self, **counts: int) -> None:
        """Writes the counts."""
        await self.owner.write(("HSET", self.keys.execution(self.execution_id), "counts", json.dumps(counts)))

    async def fail(self, failure: wire.Failure) -> None:
        """Writes the first failure."""
        await self.owner.write(("HSET", self.keys.execution(self.execution_id), "error", pack_failure(failure)))

    async def happened(self, seq: str, kind: str, **fields: str | int | bytes) -> None:
        """Writes a line of the history."""
        position, number = map(int, seq.split("-"))
        line: Any = tuple(
            {"kind": kind, "node": "", "attempt": 0, "status": "", "ts": CREATED, "data": b"", **fields}.values()
        )
        packed = pack_history([(position, number, line)])
        await self.owner.write(("XADD", self.keys.history(self.execution_id), seq, "lines", packed))

    def token(self, node: str, attempt: int = 1) -> str:
        """The token of an attempt."""
        return token(self.execution_id, node, attempt)


@pytest.fixture
def write(scripts: Scripts, namespace: str):
    """Makes an execution that is not folded yet, and owns its partition."""
    owners: dict[int, Owner] = {}

    async def make(nodes: Mapping[str, str], partition: int = 3, **fields: object) -> Written:
        if partition not in owners:
            owners[partition] = await Owner(scripts, PartitionKeys.of(namespace, partition)).take()
        return Written(owners[partition], partition, nodes, **fields)  # type: ignore[arg-type]  # fields of Written

    return make
