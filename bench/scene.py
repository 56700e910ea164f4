"""An installation of its own for each measurement, and what it used between two looks."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis
from wf_testservers.cluster import Cluster
from wf_testservers.engine import variables
from wf_testservers.kafka import KafkaServer, start_kafka
from wf_testservers.redis import RedisServer, start_redis

from bench.processes import cpu_seconds, family
from wf_core import ids, wire
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.documents import document_records
from wf_core.plan import rules_of
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document
from wf_core.settings import Settings
from wf_core.store.keys import PartitionKeys

PARTITIONS = 8
SLOTS = 1_000
_QUIET_SECONDS = 60.0
_LOOK = 0.05
_RECORDS = 500
"""That are appended at once."""


@dataclass(frozen=True)
class Size:
    """How many of everything an installation has. `lanes` are the partitions of each task topic."""

    partitions: int = PARTITIONS
    lanes: int = 8
    orchestrators: int = 1
    workers: int = 1


Prepare = Callable[[int, str], Awaitable[None]]
"""Writes into Redis before the engine starts, given its port and the namespace."""


@dataclass(frozen=True)
class Reading:
    """What was used and done until a moment. Seconds of processor time by process; commands as Redis counts them.

    Processes are `orchestrator`, `worker`, `tasks` (those in which workers run them), `api`, `Redis` and `Kafka`.
    """

    at: float
    cpu: dict[str, float]
    commands: int
    scripts: int
    """Calls of scripts, which are among the commands."""
    events: int


@dataclass(frozen=True)
class Cost:
    """What one event cost: microseconds of processor time by process, and Redis commands; or one second, of rest."""

    cpu: dict[str, float]
    commands: float


@dataclass
class Scene:
    """A running engine and what is asked of it."""

    server: RedisServer
    kafka: KafkaServer | None
    cluster: Cluster
    redis: Redis
    log: Log
    settings: Settings
    own_commands: int = 0
    """Commands that were sent to look."""

    @property
    def partitions(self) -> list[PartitionKeys]:
        """The keys of each partition."""
        return [PartitionKeys.of(self.settings.namespace, n) for n in range(self.settings.partitions)]

    async def start(self, document: dict[str, Any], number: int) -> None:
        """Asks for executions with the records that the API would append: spread over the partitions, triggered."""
        parsed = parse_document(document)
        canonical = canonical_bytes(parsed)
        name, now = document_hash(canonical), time.time_ns() // 1_000_000
        records: dict[int, list[bytes]] = {}
        for n in range(number):
            one = ids.new_execution_id(n % self.settings.partitions, now)
            common: dict[str, Any] = {"execution": one, "ts": now, "source": "bench"}
            if one_of := records.setdefault(n % self.settings.partitions, []):
                news: list[wire.Record] = []
            else:
                news = [*document_records(one, now, "bench", name, canonical)]
            news.append(wire.Created(**common, id=f"{one}-c", document=name, name=parsed.name, rules=rules_of(parsed)))
            news.append(wire.Triggered(**common, id=f"{one}-t"))
            one_of += map(wire.encode, news)
        await asyncio.gather(*(self.append(partition, some) for partition, some in records.items()))

    async def append(self, partition: int, records: list[bytes]) -> None:
        """Appends records to the events of a partition."""
        target = TopicPartition(topics.events(self.settings.namespace), partition)
        for start in range(0, len(records), _RECORDS):
            await self.log.append(target, records[start : start + _RECORDS])

    async def ended(self) -> int:
        """Executions that have ended."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for keys in self.partitions:
                pipe.zcard(keys.index("ended"))
            self.own_commands += len(self.partitions)
            return sum(await pipe.execute())

    async def events(self) -> int:
        """Records that are folded."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for keys in self.partitions:
                pipe.hget(keys.meta, "off")
            self.own_commands += len(self.partitions)
            return sum(int(offset or 0) for offset in await pipe.execute())

    async def until_ended(self, number: int) -> None:
        """Waits until so many executions have ended. Raises TimeoutError when nothing is folded any more."""
        last, since = -1, time.monotonic()
        while await self.ended() < number:
            if (now := await self.events()) != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > _QUIET_SECONDS:
                raise TimeoutError(f"{await self.ended()} of {number} executions have ended\n{self.cluster.logs()}")
            await asyncio.sleep(_LOOK)

    async def read(self) -> Reading:
        """What was used until now."""
        events = await self.events()
        stats: dict[str, dict[str, int]] = await cast("Any", self.redis.info("commandstats"))
        self.own_commands += 1
        calls = {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
        commands = sum(calls.values()) - self.own_commands
        return Reading(time.monotonic(), self._cpu(), commands, calls.get("evalsha", 0) + calls.get("eval", 0), events)

    def _cpu(self) -> dict[str, float]:
        cpu: dict[str, float] = {"Redis": cpu_seconds([self.server.process.pid])}
        if self.kafka is not None:
            cpu["Kafka"] = cpu_seconds(family(self.kafka.node.process.pid))
        for process in self.cluster.processes:
            own, *others = family(process.process.pid)
            cpu[process.kind] = cpu.get(process.kind, 0.0) + cpu_seconds([own])
            if others:
                cpu["tasks"] = cpu.get("tasks", 0.0) + cpu_seconds(others)
        return cpu

    async def run(self, document: dict[str, Any], number: int) -> Cost:
        """Runs executions to their end; what each event cost."""
        ended = await self.ended()
        before = await self.read()
        await self.start(document, number)
        await self.until_ended(ended + number)
        return per_event(before, await self.read())

    async def rest(self, seconds: float) -> Cost:
        """What a second costs in which nothing is asked."""
        before = await self.read()
        await asyncio.sleep(seconds)
        after = await self.read()
        return _per(before, after, after.at - before.at)


def per_event(before: Reading, after: Reading) -> Cost:
    """What each of the events between two readings cost."""
    return _per(before, after, after.events - before.events)


def _per(before: Reading, after: Reading, number: float) -> Cost:
    cpu = {kind: (used - before.cpu.get(kind, 0.0)) / number * 1e6 for kind, used in after.cpu.items()}
    return Cost(cpu, (after.commands - before.commands) / number)


@contextlib.asynccontextmanager
async def scene(size: Size = Size(), *, log: str = "redis", prepare: Prepare | None = None) -> AsyncIterator[Scene]:
    """An engine on servers of its own: an API, orchestrators and workers, on what `prepare` wrote into Redis."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(start_redis(folder / "redis"))
        more = {
            "APP_PARTITIONS": str(size.partitions),
            "APP_TASK_PARTITIONS": str(size.lanes),
            "APP_LOG_LEVEL": "WARNING",
            "APP_WORKER_GRACE": "0",
        }
        kafka = stack.enter_context(start_kafka(_made(folder / "kafka"))) if log == "kafka" else None
        environment = {**variables(server.port, kafka.bootstrap if kafka else None), **more}
        settings = Settings.model_validate({k.removeprefix("APP_").lower(): v for k, v in environment.items()})
        if prepare is not None:
            await prepare(server.port, settings.namespace)
        cluster = stack.enter_context(Cluster(environment, folder))
        cluster.start("api")
        for _ in range(size.orchestrators):
            cluster.start("orchestrator")
        for _ in range(size.workers):
            cluster.start("worker", "--slots", str(SLOTS))
        await cluster.ready(workers=size.workers, seconds=120)
        async with Redis(host=server.host, port=server.port, socket_timeout=60) as redis:
            broker = open_log(settings, redis)
            await broker.start()
            try:
                yield Scene(server, kafka, cluster, redis, broker, settings)
            finally:
                await broker.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
