"""What the shell reads from Redis. The only module of the shell that sends plain commands; scripts do the writing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis

from wf_core.store.keys import InstallationKeys, PartitionKeys

CHUNK = 1000
"""Arguments of one command; keeps single replies short."""


class StoredExecution(NamedTuple):
    """An execution as APPLY wrote it: the hash and the node cells."""

    fields: dict[str, bytes]
    cells: bytes


class OutboxEntry(NamedTuple):
    """A message that waits to be sent. Lower scores go first."""

    score: float
    token: str
    queue: str
    message: bytes


class Owner(NamedTuple):
    """Who holds a partition, until when (Unix ms)."""

    nonce: str
    lease: int


class Claims(NamedTuple):
    """Who says to run what, and how often each worker was heard. `holders`: token → worker, or `condemned`."""

    holders: dict[str, str]
    beats: dict[str, str]


class Queries:
    """Reads, and the few writes outside of partitions: this orchestrator's own heartbeat, the cancel channel."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace
        self._keys = InstallationKeys(namespace)

    async def sync(self, clock: Any) -> None:
        """Corrects the clock to that of Redis."""
        await clock.sync(self._redis)

    async def beat(self, orchestrator: str, now_ms: int, alive_ms: int) -> int:
        """Registers this orchestrator; the number of those heard within `alive_ms`, itself included."""
        pipe = self._pipeline()
        pipe.zadd(self._keys.orchestrators, {orchestrator: now_ms})
        pipe.zremrangebyscore(self._keys.orchestrators, "-inf", now_ms - 10 * alive_ms)
        pipe.zcount(self._keys.orchestrators, now_ms - alive_ms, "+inf")
        return max(1, int((await pipe.execute())[2]))

    async def leave(self, orchestrator: str) -> None:
        """Takes this orchestrator off the list."""
        await self._redis.zrem(self._keys.orchestrators, orchestrator)

    async def owners(self, partitions: Iterable[int]) -> dict[int, Owner]:
        """Who holds each partition, as far as Redis knows; LEASE judges."""
        numbers = list(partitions)
        pipe = self._pipeline()
        for number in numbers:
            pipe.hmget(PartitionKeys.of(self._namespace, number).meta, ["own", "lease"])
        found = await pipe.execute() if numbers else []
        return {
            n: Owner((own or b"").decode(), int(lease or 0)) for n, (own, lease) in zip(numbers, found, strict=True)
        }

    async def executions(self, keys: PartitionKeys, ids: Sequence[str]) -> dict[str, StoredExecution]:
        """Those of the executions that exist."""
        pipe = self._pipeline()
        for execution_id in ids:
            pipe.hgetall(keys.execution(execution_id))
            pipe.get(keys.nodes(execution_id))
        found = await pipe.execute() if ids else []
        return {
            execution_id: StoredExecution(_named(fields), cells or b"")
            for execution_id, fields, cells in zip(ids, found[::2], found[1::2], strict=True)
            if fields
        }

    async def results(self, keys: PartitionKeys, wanted: Mapping[str, Sequence[str]]) -> dict[str, dict[str, bytes]]:
        """For each execution those of the result fields that exist, in one round trip."""
        asked = [
            (execution_id, list(names[start : start + CHUNK]))
            for execution_id, names in wanted.items()
            for start in range(0, len(names), CHUNK)
        ]
        pipe = self._pipeline()
        for execution_id, names in asked:
            pipe.hmget(keys.results(execution_id), names)
        results: dict[str, dict[str, bytes]] = {execution_id: {} for execution_id in wanted}
        for (execution_id, names), values in zip(asked, await pipe.execute() if asked else [], strict=True):
            results[execution_id].update((n, v) for n, v in zip(names, values, strict=True) if v is not None)
        return results

    async def document(self, keys: PartitionKeys, document_hash: str) -> dict[str, bytes]:
        """The parts of a document that this partition holds, by number, and `parts`, how many there are."""
        return _named(await cast("Any", self._redis.hgetall(keys.document(document_hash))))

    async def outbox(self, keys: PartitionKeys, most: int) -> tuple[list[OutboxEntry], bool]:
        """The first `most` entries of each queue's outbox, and whether there are more."""
        queues = sorted(q.decode() for q in await cast("Any", self._redis.smembers(keys.queues)))
        pipe = self._pipeline()
        for queue in queues:
            pipe.zrange(keys.outbox(queue), 0, most, withscores=True)
        found = await pipe.execute() if queues else []
        listed = [(score, t.decode(), q) for q, part in zip(queues, found, strict=True) for t, score in part[:most]]
        messages = await self._fields(keys.messages, [token for _, token, _ in listed])
        entries = [
            OutboxEntry(score, token, queue, message)
            for (score, token, queue), message in zip(listed, messages, strict=True)
            if message is not None
        ]
        return entries, any(len(part) > most for part in found)

    async def timers(self, keys: PartitionKeys, until_ms: int, most: int) -> list[tuple[str, int]]:
        """The first `most` timers `(kind|token, due)` that fall due by `until_ms`."""
        found = await self._redis.zrangebyscore(keys.timers, "-inf", until_ms, start=0, num=most, withscores=True)
        return [(member.decode(), round(due)) for member, due in cast("Any", found)]

    async def sent(self, keys: PartitionKeys) -> dict[str, str]:
        """Where the newest copy of each token in flight was sent."""
        found = _named(await cast("Any", self._redis.hgetall(keys.sent)))
        return {token: where.decode() for token, where in found.items()}

    async def claims(self, partitions: Sequence[PartitionKeys]) -> list[Claims]:
        """Claims and heartbeats of partitions, in their order, in one round trip."""
        pipe = self._pipeline()
        for keys in partitions:
            pipe.hgetall(keys.claims)
            pipe.hgetall(keys.heartbeats)
        found = await pipe.execute() if partitions else []
        return [
            Claims(
                {token: claim.rpartition(b"|")[0].decode() for token, claim in _named(found[2 * i]).items()},
                {worker: count.decode() for worker, count in _named(found[2 * i + 1]).items()},
            )
            for i in range(len(partitions))
        ]

    async def claimed(self, keys: PartitionKeys, tokens: Sequence[str]) -> set[str]:
        """Those of `tokens` that someone holds, or that are condemned."""
        found = await self._fields(keys.claims, tokens)
        return {token for token, claim in zip(tokens, found, strict=True) if claim is not None}

    async def accepted(self, keys: PartitionKeys) -> dict[str, bytes]:
        """Commands that were answered but not folded."""
        return _named(await cast("Any", self._redis.hgetall(keys.accepted)))

    async def task_offsets(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, str]]:
        """The committed offset of each `(queue, partition)` and the log's incarnation that it belongs to ("": unknown).

        Read before the claims that are judged by it: CLAIM precedes the commit.
        """
        pipe = self._pipeline()
        for queue, number in partitions:
            pipe.hmget(self._keys.task_lease(queue, number), ["off", "inc"])
        found = await pipe.execute() if partitions else []
        return {
            place: (int(off or 0), (inc or b"").decode()) for place, (off, inc) in zip(partitions, found, strict=True)
        }

    async def queues(self, partitions: int) -> set[str]:
        """Every queue that an outbox ever had an entry for."""
        pipe = self._pipeline()
        for number in range(partitions):
            pipe.smembers(PartitionKeys.of(self._namespace, number).queues)
        return {queue.decode() for found in await pipe.execute() for queue in found}

    async def publish_cancelled(self, tokens: Sequence[str]) -> None:
        """Tells workers at once which attempts are over; BEAT tells them in any case."""
        pipe = self._pipeline()
        for token in tokens:
            pipe.publish(self._keys.cancel_channel, token)
        await pipe.execute()

    async def _fields(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        pipe = self._pipeline()
        for start in range(0, len(fields), CHUNK):
            pipe.hmget(key, list(fields[start : start + CHUNK]))
        found: list[list[bytes | None]] = await pipe.execute() if fields else []
        return [value for part in found for value in part]

    def _pipeline(self) -> Any:
        return self._redis.pipeline(transaction=False)


def _named(found: dict[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in found.items()}
