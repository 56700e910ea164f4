"""What an orchestrator at work reads from Redis. No other module of it sends plain commands; scripts do the writing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from wf_core.states import ExecutionStatus
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_orchestrator.backlogs import Backlogs

CHUNK = 1000
"""Arguments of one command; keeps single replies short."""


class StoredExecution(NamedTuple):
    """An execution as APPLY wrote it: the hash, the node cells, the scopes by key."""

    fields: dict[str, bytes]
    cells: bytes
    scopes: dict[str, bytes]


class OutboxEntry(NamedTuple):
    """A message that waits to be sent. Lower scores go first."""

    score: float
    token: str
    queue: str
    message: bytes
    queued_at: int = 0
    """When it was dispatched, in Unix ms."""


class Owner(NamedTuple):
    """Who holds a partition, until when (Unix ms)."""

    nonce: str
    lease: int


class Claims(NamedTuple):
    """Who says to run what, and how often each worker was heard. `holders`: token → worker, or `condemned`."""

    holders: dict[str, str]
    beats: dict[str, str]


class _Queued(msgspec.Struct, frozen=True):
    """Of a task message: when it was dispatched."""

    queued_at: int = 0


_queued = msgspec.msgpack.Decoder(_Queued)


class Queries:
    """Reads, and the few writes outside of partitions: this orchestrator's own heartbeat, cancels, catalogues."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace
        self._keys = InstallationKeys(namespace)
        self.backlogs = Backlogs(redis, namespace)

    async def sync(self, clock: Any) -> None:
        """Corrects the clock to that of Redis."""
        await clock.sync(self._redis)

    async def beat(self, orchestrator: str, now_ms: int, alive_ms: int, given_up: Collection[int]) -> None:
        """Registers this orchestrator with the partitions that it cannot serve.

        Forgets those that were silent for ten times `alive_ms`.
        """
        keys, pipe = self._keys, self._pipeline()
        pipe.zadd(keys.orchestrators, {orchestrator: now_ms})
        pipe.zremrangebyscore(keys.orchestrators, "-inf", now_ms - 10 * alive_ms)
        if given_up:
            pipe.hset(keys.given_up, orchestrator, " ".join(map(str, sorted(given_up))))
        else:
            pipe.hdel(keys.given_up, orchestrator)
        pipe.hkeys(keys.given_up)  # read first: who is in it and not yet in the list must not be taken for gone
        pipe.zrange(keys.orchestrators, 0, -1)
        *_, listed, known = await pipe.execute()
        if gone := set(listed) - set(known):
            await cast("Any", self._redis).hdel(keys.given_up, *gone)

    async def alive(self, orchestrator: str, since_ms: int) -> tuple[list[int], set[int]]:
        """When each of the other orchestrators that were heard after `since_ms` was heard last, in Unix ms.

        And the partitions that one or more of them cannot serve.
        """
        pipe = self._pipeline()
        pipe.zrangebyscore(self._keys.orchestrators, f"({since_ms}", "+inf", withscores=True)
        pipe.hgetall(self._keys.given_up)
        found, given_up = await pipe.execute()
        heard = {name: round(ms) for name, ms in found if name.decode() != orchestrator}
        return [*heard.values()], {int(n) for name in heard for n in given_up.get(name, b"").split()}

    async def leave(self, orchestrator: str) -> None:
        """Takes this orchestrator off the list."""
        pipe = self._pipeline()
        pipe.zrem(self._keys.orchestrators, orchestrator)
        pipe.hdel(self._keys.given_up, orchestrator)
        pipe.hdel(self._keys.backlogs, orchestrator)
        await pipe.execute()

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
        """Those of the executions that exist. Most that are asked for do not: they are about to be created."""
        pipe = self._pipeline()
        for execution_id in ids:
            pipe.hgetall(keys.execution(execution_id))
        known = {i: fields for i, fields in zip(ids, await pipe.execute() if ids else [], strict=True) if fields}
        pipe = self._pipeline()
        for execution_id in known:
            pipe.get(keys.nodes(execution_id))
            pipe.hgetall(keys.scopes(execution_id))
        rest = await pipe.execute() if known else []
        return {
            execution_id: StoredExecution(_named(fields), cells or b"", _named(scopes))
            for (execution_id, fields), cells, scopes in zip(known.items(), rest[::2], rest[1::2], strict=True)
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

    async def all_results(self, keys: PartitionKeys, ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """All result fields of executions."""
        pipe = self._pipeline()
        for execution_id in ids:
            pipe.hgetall(keys.results(execution_id))
        return {i: _named(found) for i, found in zip(ids, await pipe.execute() if ids else [], strict=True)}

    async def concurrency(self, keys: PartitionKeys, names: Sequence[str]) -> dict[str, bytes]:
        """Those of the concurrency keys that somebody holds or waits for."""
        found = await self._fields(keys.concurrency, names)
        return {name: value for name, value in zip(names, found, strict=True) if value is not None}

    async def cached(self, key: str) -> bytes | None:
        """What the cache of outputs holds under a key."""
        return cast("bytes | None", await self._redis.get(key))

    async def keep_cached(self, key: str, output: bytes, ttl_ms: int) -> None:
        """Keeps an output in the cache for `ttl_ms`."""
        await self._redis.set(key, output, px=ttl_ms)

    async def document(self, keys: PartitionKeys, document_hash: str) -> dict[str, bytes]:
        """The parts of a document that this partition holds, by number, and `parts`, how many there are."""
        return _named(await cast("Any", self._redis.hgetall(keys.document(document_hash))))

    async def outbox(self, keys: PartitionKeys, most: int) -> tuple[list[OutboxEntry], dict[str, float]]:
        """The first `most` entries of each queue's outbox, and where it has more the score of the last one of these."""
        queues = sorted(q.decode() for q in await cast("Any", self._redis.smembers(keys.queues)))
        pipe = self._pipeline()
        for queue in queues:
            pipe.zrange(keys.outbox(queue), 0, most, withscores=True)
        found = await pipe.execute() if queues else []
        listed = [(score, t.decode(), q) for q, part in zip(queues, found, strict=True) for t, score in part[:most]]
        messages = await self._fields(keys.messages, [token for _, token, _ in listed])
        entries = [
            OutboxEntry(score, token, queue, message, _queued.decode(message).queued_at)
            for (score, token, queue), message in zip(listed, messages, strict=True)
            if message is not None
        ]
        return entries, {q: part[most - 1][1] for q, part in zip(queues, found, strict=True) if len(part) > most}

    async def outbox_counts(self, keys: PartitionKeys, horizons: Mapping[str, float]) -> dict[str, int]:
        """How many entries each queue's outbox has up to this score."""
        pipe = self._pipeline()
        for queue, score in horizons.items():
            pipe.zcount(keys.outbox(queue), "-inf", score)
        return dict(zip(horizons, await pipe.execute() if horizons else [], strict=True))

    async def timers(self, keys: PartitionKeys, until_ms: int, most: int) -> list[tuple[str, int]]:
        """The first `most` timers `(kind|token, due)` that fall due by `until_ms`."""
        found = await self._redis.zrangebyscore(keys.timers, "-inf", until_ms, start=0, num=most, withscores=True)
        return [(member.decode(), round(due)) for member, due in cast("Any", found)]

    async def sent(self, keys: PartitionKeys) -> dict[str, str]:
        """Where the newest copy of each token in flight was sent."""
        found = _named(await cast("Any", self._redis.hgetall(keys.sent)))
        return {token: where.decode() for token, where in found.items()}

    async def begun(self, keys: PartitionKeys) -> set[str]:
        """Tokens in flight without a message: their workers began them by themselves."""
        pipe = self._pipeline()
        pipe.hkeys(keys.in_flight)
        pipe.hkeys(keys.messages)
        in_flight, messages = await pipe.execute()
        return {token.decode() for token in set(in_flight).difference(messages)}

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

    async def waiting(self, keys: PartitionKeys) -> list[str]:
        """The fields of commands that were answered but not folded."""
        return [field.decode() for field in await cast("Any", self._redis.hkeys(keys.accepted))]

    async def commands(self, keys: PartitionKeys, fields: Sequence[str]) -> dict[str, bytes]:
        """Those of the commands that still wait."""
        found = await self._fields(keys.accepted, fields)
        return {field: command for field, command in zip(fields, found, strict=True) if command is not None}

    async def expired(self, keys: PartitionKeys) -> int:
        """The newest end, in Unix ms, of an execution that was deleted; 0 when none was."""
        return int(await self._redis.get(keys.expired) or 0)

    async def retained(self, keys: PartitionKeys, until_ms: int, most: int) -> tuple[int, dict[str, int]]:
        """How many executions have ended, and of those that had by `until_ms` the first `most` with their end."""
        pipe = self._pipeline()
        pipe.zcard(keys.index("ended"))
        pipe.zrangebyscore(keys.index("ended"), "-inf", until_ms, start=0, num=most, withscores=True)
        number, found = await pipe.execute()
        return int(number), {execution_id.decode(): round(ended) for execution_id, ended in found}

    async def motionless(self, keys: PartitionKeys) -> dict[str, str]:
        """Running executions without an attempt in flight or a timer (1,000 at most), with their last history id.

        Reads step by step all that lives in the partition: what moves meanwhile may be among them.
        """
        redis: Any = self._redis
        running = {execution async for execution, _ in redis.zscan_iter(keys.index("s:RUNNING"), count=CHUNK)}
        moving = {token.partition(b"/")[0] async for token, _ in redis.hscan_iter(keys.in_flight, count=CHUNK)}
        async for timer, _ in redis.zscan_iter(keys.timers, count=CHUNK):
            moving.add(timer.partition(b"|")[2].partition(b"/")[0])
        still = [execution.decode() for execution in sorted(running - moving)[:CHUNK]]
        pipe = self._pipeline()
        for execution in still:
            pipe.xrevrange(keys.history(execution), count=1)
        found = await pipe.execute() if still else []
        return {e: entries[0][0].decode() if entries else "" for e, entries in zip(still, found, strict=True)}

    async def unlisted(self, keys: PartitionKeys) -> AsyncIterator[dict[str, str]]:
        """Executions that have ended and are not in the index of ends, with their end; a thousand at a time."""
        ended = keys.index("ended")
        indexes = [keys.index("s", status) for status in ExecutionStatus if status.is_terminal]
        pipe = self._pipeline()
        for index in (ended, *indexes):
            pipe.zcard(index)
        listed, *numbers = await pipe.execute()
        if listed >= sum(numbers):
            return
        for index, number in zip(indexes, numbers, strict=True):
            for start in range(0, number, CHUNK):
                ids: list[bytes] = cast("Any", await self._redis.zrange(index, start, start + CHUNK - 1))
                scores = await self._redis.zmscore(ended, cast("Any", ids)) if ids else []
                missing = [name.decode() for name, score in zip(ids, scores, strict=True) if score is None]
                pipe = self._pipeline()
                for execution_id in missing:
                    pipe.hget(keys.execution(execution_id), "ended_at")
                ends = dict(zip(missing, await pipe.execute() if missing else [], strict=True))
                if found := {execution_id: end.decode() for execution_id, end in ends.items() if end}:
                    yield found

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

    async def offsets(self, partitions: int) -> list[int]:
        """The stored offset of each of the installation's partitions."""
        pipe = self._pipeline()
        for number in range(partitions):
            pipe.hget(PartitionKeys.of(self._namespace, number).meta, "off")
        return [int(offset or 0) for offset in await pipe.execute()]

    async def queues(self, partitions: int) -> set[str]:
        """Every queue that an outbox ever had an entry for."""
        pipe = self._pipeline()
        for number in range(partitions):
            pipe.smembers(PartitionKeys.of(self._namespace, number).queues)
        return {queue.decode() for found in await pipe.execute() for queue in found}

    async def prune_catalogues(self) -> None:
        """Deletes the catalogues that no worker's entry names.

        The catalogues are listed first, and a worker writes its entry before its catalogue: none that is new goes. One
        that another worker wanted in this moment is written again with its next heartbeat.
        """
        redis: Any = self._redis
        listed = set(await redis.hkeys(self._keys.catalogues))
        workers = await redis.zrange(self._keys.workers, 0, -1)
        pipe = self._pipeline()
        for worker in workers:
            pipe.get(self._keys.worker(worker.decode()))
        try:
            used = {msgspec.json.decode(one).get("catalogue", "").encode() for one in await pipe.execute() if one}
        except msgspec.MsgspecError:  # who can say what it uses
            return
        if unused := listed - used:
            await redis.hdel(self._keys.catalogues, *unused)

    async def publish_cancelled(self, words: Sequence[str]) -> None:
        """Tells workers at once which attempts (tokens) are over, and of which executions they begin nothing more."""
        pipe = self._pipeline()
        for word in words:
            pipe.publish(self._keys.cancel_channel, word)
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
