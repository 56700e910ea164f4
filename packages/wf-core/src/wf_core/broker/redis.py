"""The log on Redis streams: for `wf dev`, tests and installations without Kafka.

A partition is a stream whose ids are `<offset>-1`, and a hash with its `start` and `end`. Log and state of a partition
are one append-only file and roll back together.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError

from wf_core.broker.group_commit import Append, GroupCommit, split
from wf_core.broker.protocol import (
    Batch,
    LogUnavailableError,
    OffsetOutOfRangeError,
    TopicPartition,
    TopicProblem,
    missing_topic,
    wrong_partitions,
)
from wf_core.errors import SetupError, UnavailableError
from wf_core.settings import Settings
from wf_core.store.client import ANSWER_SECONDS, dedicated, describe, redis_errors, wait_for_redis
from wf_core.store.cluster import ClusterClient
from wf_core.store.keys import InstallationKeys

# An append that was sent again after a lost answer appends twice, which the protocol allows.
_APPEND = """
local first = redis.call('HINCRBY', KEYS[2], 'end', #ARGV) - #ARGV
for i, record in ipairs(ARGV) do
  redis.call('XADD', KEYS[1], string.format('%.0f-1', first + i - 1), 'r', record)
end
return first
"""
_TRIM = """
local bounds = redis.call('HMGET', KEYS[2], 'start', 'end')
local before = math.min(tonumber(ARGV[1]), tonumber(bounds[2] or '0'))
if before > tonumber(bounds[1] or '0') then
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', before))
  redis.call('HSET', KEYS[2], 'start', string.format('%.0f', before))
end
"""
# One script call holds Redis for about a millisecond at these sizes.
_CHUNK_RECORDS = 500
_CHUNK_BYTES = 1024 * 1024
_SECONDS = 2 * ANSWER_SECONDS
# How often a cluster is asked for new records: soon after some came, less and less often while nothing does.
_FASTEST, _SLOWEST, _SLOWER = 0.002, 0.02, 1.3
_AWAY: tuple[type[Exception], ...] = (*redis_errors, ResponseError, TimeoutError)


class RedisLog:
    """Driver `redis` of the group `wf.brokers`."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._keys = InstallationKeys(settings.namespace)
        self._append_hash = hashlib.sha1(_APPEND.encode(), usedforsecurity=False).hexdigest()
        self._lane = GroupCommit(self._send)

    async def start(self) -> None:
        """Waits until Redis answers. Raises LogUnavailableError after `connect_seconds`."""
        try:
            await wait_for_redis(self._redis, self._settings)
        except UnavailableError as error:
            raise LogUnavailableError(str(error)) from error

    async def close(self) -> None:
        """Waits for the appends that are on their way; the client stays open."""
        await self._lane.close()

    async def ensure_topics(self, topics: Mapping[str, int]) -> None:
        """Notes the number of partitions of new topics. Raises SetupError when a topic has another one."""
        pipeline = self._redis.pipeline(transaction=False)
        for topic, partitions in topics.items():
            pipeline.hsetnx(self._keys.topics, topic, str(partitions))
            pipeline.hget(self._keys.topics, topic)
        replies = await self._answer(pipeline.execute())
        for (topic, partitions), stored in zip(topics.items(), replies[1::2], strict=True):
            if int(stored) != partitions:
                raise SetupError(str(wrong_partitions(topic, int(stored), partitions)))

    async def examine_topics(self, topics: Mapping[str, int]) -> list[TopicProblem]:
        """Those that are missing or have another number of partitions."""
        if not topics:
            return []
        counts = await self._answer(self._redis.hmget(self._keys.topics, list(topics)))
        found = zip(topics.items(), counts, strict=True)
        return [
            missing_topic(topic) if stored is None else wrong_partitions(topic, int(stored), wanted)
            for (topic, wanted), stored in found
            if stored is None or int(stored) != wanted
        ]

    async def append(self, source: TopicPartition, records: Sequence[bytes], key: bytes | None = None) -> list[int]:
        """Appends in order and returns the offsets. `key` means nothing here."""
        return await self._lane.append(source, records, key)

    def reader(self) -> RedisReader:
        """A new reader with a connection of its own."""
        kind = ClusterReader if isinstance(self._redis, ClusterClient) else RedisReader
        return kind(self._redis, self._keys, describe(self._settings))

    async def begin(self, source: TopicPartition) -> int:
        """The offset of the oldest record that the log still has."""
        stored = await self._answer(self._redis.hget(self._keys.log_bounds(*source), "start"))
        return int(stored or 0)

    async def end(self, source: TopicPartition) -> int:
        """The offset that the next record will have."""
        stored = await self._answer(self._redis.hget(self._keys.log_bounds(*source), "end"))
        return int(stored or 0)

    async def trim(self, source: TopicPartition, before: int) -> None:
        """Deletes the records below `before`."""
        keys = (self._keys.log(*source), self._keys.log_bounds(*source))
        await self._answer(self._redis.eval(_TRIM, 2, *keys, str(before)))

    async def _send(self, group: Sequence[Append]) -> list[list[int]]:
        by_source: dict[TopicPartition, list[Append]] = {}
        for append in group:
            by_source.setdefault(append.source, []).append(append)
        chunks = [
            (source, chunk)
            for source, appends in by_source.items()
            for chunk in _chunks([record for append in appends for record in append.records])
        ]
        offsets: dict[TopicPartition, list[int]] = {source: [] for source in by_source}
        for (source, chunk), first in zip(chunks, await self._answer(self._append(chunks)), strict=True):
            offsets[source].extend(range(first, first + len(chunk)))
        shares = {
            id(append): own
            for source, appends in by_source.items()
            for append, own in zip(appends, split(appends, offsets[source]), strict=True)
        }
        return [shares[id(append)] for append in group]

    async def _append(self, chunks: Sequence[tuple[TopicPartition, Sequence[bytes]]]) -> list[int]:
        """The offset of each chunk's first record.

        Redis knows the script by its hash. When it does not, all chunks are sent again with it: the ones that follow
        the first of a partition must not stand before it.
        """
        pipeline: Any = self._redis.pipeline(transaction=False)  # annotated as if it took no bytes
        for call, script in ((pipeline.evalsha, self._append_hash), (pipeline.eval, _APPEND)):
            for source, chunk in chunks:
                call(script, 2, self._keys.log(*source), self._keys.log_bounds(*source), *chunk)
            try:
                return cast("list[int]", await pipeline.execute())
            except NoScriptError:
                continue
        raise AssertionError("EVAL needs no script that Redis knows")

    async def _answer(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(_SECONDS):
                return await call
        except _AWAY as error:
            raise _unavailable(describe(self._settings), error) from error


class RedisReader:
    """Waits with XREAD on a connection that nobody else uses, so that waiting never takes one from the shared pool."""

    def __init__(self, redis: Redis, keys: InstallationKeys, where: str) -> None:
        self._redis = _own_client(redis)
        self._keys = keys
        self._where = where
        self._positions: dict[TopicPartition, int] = {}
        self._sources: dict[bytes, TopicPartition] = {}
        self._epoch = 0
        self._checked = False

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these partitions from the next read on."""
        self._positions = dict(positions)
        self._sources = {self._keys.log(*source).encode(): source for source in positions}
        self._epoch += 1
        self._checked = False

    async def read(self, max_wait: float, max_records: int = 500) -> list[Batch]:
        """What has come; waits up to `max_wait` seconds for the first record."""
        if not self._positions:
            await asyncio.sleep(max_wait)
            return []
        epoch = self._epoch
        try:
            async with asyncio.timeout(max_wait + ANSWER_SECONDS):
                if not self._checked:
                    await self._check()
                replies = await self._xread(max_wait, max_records)
                if not replies:
                    await self._check()
        except _AWAY as error:
            self._checked = False
            raise _unavailable(self._where, error) from error
        if epoch != self._epoch:
            return []
        batches = [self._batch(self._sources[key], entries) for key, entries in replies]
        for batch in batches:
            self._positions[batch.source] = batch.next
        return batches

    async def close(self) -> None:
        """Closes the connection."""
        await self._redis.aclose()

    async def _xread(self, max_wait: float, max_records: int) -> list[Any]:
        block = ("BLOCK", max(1, int(max_wait * 1000))) if max_wait > 0 else ()
        streams = list(self._sources)
        after = [f"{self._positions[source]}-0" for source in self._sources.values()]
        command = ("XREAD", "COUNT", max_records, *block, "STREAMS", *streams, *after)
        execute: Any = self._redis.execute_command  # not annotated
        return await execute(*command) or []

    async def _check(self) -> None:
        """An assigned position outside its log is never answered by XREAD: it would wait for ever, or skip."""
        epoch, positions = self._epoch, self._positions
        pipeline = self._redis.pipeline(transaction=False)
        for source in positions:
            pipeline.hmget(self._keys.log_bounds(*source), "start", "end")
        bounds = await pipeline.execute()
        for (source, position), (start, end) in zip(positions.items(), bounds, strict=True):
            if not int(start or 0) <= position <= int(end or 0):
                raise OffsetOutOfRangeError(source, position)
        self._checked = epoch == self._epoch

    def _batch(self, source: TopicPartition, entries: Sequence[Any]) -> Batch:
        """Ids rise and are whole numbers, so first and last say whether one is missing: then it was trimmed away."""
        position = self._positions[source]
        first, last = (int(entry[0].removesuffix(b"-1")) for entry in (entries[0], entries[-1]))
        if first != position or last != position + len(entries) - 1:
            raise OffsetOutOfRangeError(source, position)
        return Batch(source, position, [fields[1] for _, fields in entries])


class ClusterReader(RedisReader):
    """Asks again and again: in a cluster one XREAD waits for one slot only, so many would take as many connections."""

    async def _xread(self, max_wait: float, max_records: int) -> list[Any]:
        clock = asyncio.get_running_loop().time
        until, pause = clock() + max_wait, _FASTEST
        while True:
            pipeline: Any = self._redis.pipeline(transaction=False)
            for key, source in self._sources.items():
                pipeline.execute_command("XREAD", "COUNT", max_records, "STREAMS", key, f"{self._positions[source]}-0")
            found = [stream for reply in await pipeline.execute() for stream in reply or ()]
            left = until - clock()
            if found or left <= 0:
                return found
            await asyncio.sleep(min(pause, left))
            pause = min(pause * _SLOWER, _SLOWEST)


def _own_client(shared: Redis) -> Redis:
    client = dedicated(
        shared,
        protocol=2,
        socket_timeout=None,  # `read` bounds the wait
        health_check_interval=0,
        retry=Retry(NoBackoff(), 1),  # the connection that a restarted server closed
    )
    client.set_response_callback("XREAD", cast("Any", lambda reply, **_: reply))  # as it comes: dicts would cost more
    return client


def _chunks(records: Sequence[bytes]) -> list[list[bytes]]:
    chunks: list[list[bytes]] = []
    rest = iter(records)
    while chunk := list(islice(rest, _CHUNK_RECORDS)):
        size = 0
        part: list[bytes] = []
        for record in chunk:
            if part and size + len(record) > _CHUNK_BYTES:
                chunks.append(part)
                size, part = 0, []
            part.append(record)
            size += len(record)
        chunks.append(part)
    return chunks


def _unavailable(where: str, error: BaseException) -> LogUnavailableError:
    reason = str(error) or type(error).__name__
    return LogUnavailableError(f"the log on Redis at {where} did not answer: {reason}")
