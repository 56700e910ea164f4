"""What executions that wait cost: starts many that wait for a signal, measures, signals each, and sees all complete.

`python -m bench.waiting [--executions 100000] [--log redis|kafka] [--direct]` prints a table in Markdown. All goes
through the API, as clients do it, unless `--direct`: then the records that the API would write are appended to the log,
which is quicker and leaves out the API. On the redis log the records take memory of Redis too, until they are trimmed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from wf_testservers.cluster import Cluster
from wf_testservers.engine import variables
from wf_testservers.kafka import start_kafka
from wf_testservers.redis import start_redis

from wf_core import ids, wire
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.documents import document_records
from wf_core.ids import partition_of
from wf_core.plan import rules_of
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document
from wf_core.settings import Settings
from wf_core.store.keys import PartitionKeys

DOCUMENT: dict[str, Any] = {"name": "waiting", "nodes": {"w": {"kind": "wait", "signal": "go"}}}
_AT_ONCE = 32
_RECORDS = 500
"""That are appended at once."""
_TRIES = 20
_SAMPLE = 100
"""Executions whose keys are measured one by one."""
_QUIET_SECONDS = 300.0
"""Longest time without any progress."""


@dataclass(frozen=True)
class Figures:
    """One look at the installation, in bytes."""

    redis: int
    orchestrator: int
    api: int


@dataclass
class Scene:
    """A cluster on servers of its own, and its clients."""

    cluster: Cluster
    client: httpx.AsyncClient
    redis: Redis

    @property
    def partitions(self) -> list[PartitionKeys]:
        """The keys of each partition."""
        environment = self.cluster.environment
        return [PartitionKeys.of(environment["APP_NAMESPACE"], n) for n in range(int(environment["APP_PARTITIONS"]))]

    async def look(self) -> Figures:
        """What is used now."""
        used = (await self.redis.info("memory"))["used_memory"]
        return Figures(int(used), self._rss("orchestrator"), self._rss("api"))

    def _rss(self, kind: str) -> int:
        total = 0
        for process in self.cluster.of(kind):
            status = Path(f"/proc/{process.process.pid}/status").read_text()
            total += int(status.partition("VmRSS:")[2].split()[0]) * 1024
        return total

    async def count(self, status: str) -> int:
        """Executions of a status."""
        return sum([await self.redis.zcard(keys.index(f"s:{status}")) for keys in self.partitions])

    async def records(self) -> int:
        """Bytes of the log's records in Redis; 0 on Kafka."""
        total = 0
        async for key in self.redis.scan_iter(match="*:log", count=1000):
            total += await self.redis.memory_usage(key, samples=0) or 0
        return total

    async def keys_of(self, executions: Sequence[str]) -> tuple[float, float]:
        """Mean bytes of the keys of an execution, without its places in indexes; and of its history among them."""
        total = history = 0
        for execution in executions:
            keys = self.partitions[partition_of(execution)]
            for key_of in (keys.execution, keys.nodes, keys.results, keys.scopes):
                total += await self.redis.memory_usage(key_of(execution), samples=0) or 0
            history += await self.redis.memory_usage(keys.history(execution), samples=0) or 0
        return (total + history) / len(executions), history / len(executions)

    async def post(self, path: str, body: Any, key: str) -> str:
        """The id of the execution that a command is for; tries again while the engine is too busy."""
        headers = {"prefer": "respond-async", "idempotency-key": key}
        for n in range(_TRIES):
            with contextlib.suppress(httpx.TransportError):
                answer = await self.client.post(path, json=body, headers=headers)
                if answer.status_code < 500:  # noqa: PLR2004 - of HTTP
                    return str(answer.raise_for_status().json()["execution_id"])
            await asyncio.sleep(0.1 * n)
        raise RuntimeError(f"POST {path} was not taken {_TRIES} times\n{self.cluster.logs()}")

    async def until(self, status: str, number: int) -> None:
        """Waits until so many executions have a status. Raises TimeoutError when their number does not grow."""
        last, since = -1, time.monotonic()
        while (now := await self.count(status)) < number:
            if now != last:
                last, since = now, time.monotonic()
            if time.monotonic() - since > _QUIET_SECONDS:
                raise TimeoutError(f"{now:,} of {number:,} executions are {status}\n{self.cluster.logs()}")
            await asyncio.sleep(0.2)


class ByRequest:
    """Commands as requests to the API."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._run = uuid.uuid4().hex

    async def start(self, number: int) -> list[str]:
        """Starts executions; their ids."""
        keys = [f"{self._run}-{n}" for n in range(number)]
        return await _each(keys, lambda key: self._scene.post("/workflow?trigger=true", DOCUMENT, key))

    async def signal(self, executions: Sequence[str]) -> None:
        """Gives each its signal."""
        body = {"payload": {"paid": True}}
        await _each(
            executions, lambda one: self._scene.post(f"/workflows/{one}/signals/go", body, f"{self._run}-{one}")
        )


class ByRecord:
    """Commands as the records that the API writes for them."""

    def __init__(self, scene: Scene, log: Log) -> None:
        self._log = log
        self._namespace = scene.cluster.environment["APP_NAMESPACE"]
        self._partitions = len(scene.partitions)
        document = parse_document(DOCUMENT)
        self._canonical = canonical_bytes(document)
        self._hash = document_hash(self._canonical)
        self._rules = rules_of(document)

    async def start(self, number: int) -> list[str]:
        """Starts executions; their ids."""
        now = _now_ms()
        executions = [ids.new_execution_id(n % self._partitions, now) for n in range(number)]
        sent: dict[int, list[bytes]] = {}
        for one in executions:
            partition = partition_of(one)
            if partition not in sent:
                parts = document_records(one, now, "bench", self._hash, self._canonical)
                sent[partition] = [wire.encode(part) for part in parts]
            sent[partition] += self._records_of(one, now)
        await self._append(sent)
        return executions

    def _records_of(self, one: str, now: int) -> list[bytes]:
        created = wire.Created(
            execution=one, ts=now, source="bench", id=f"{one}-c", document=self._hash, name="waiting", rules=self._rules
        )
        return [wire.encode(created), wire.encode(wire.Triggered(execution=one, ts=now, source="bench", id=f"{one}-t"))]

    async def signal(self, executions: Sequence[str]) -> None:
        """Gives each its signal."""
        now = _now_ms()
        sent: dict[int, list[bytes]] = {}
        for one in executions:
            record = wire.Signalled(
                execution=one, ts=now, source="bench", id=uuid.uuid4().hex, name="go", payload=b'{"paid":true}'
            )
            sent.setdefault(partition_of(one), []).append(wire.encode(record))
        await self._append(sent)

    async def _append(self, sent: Mapping[int, Sequence[bytes]]) -> None:
        for partition, records in sent.items():
            target = TopicPartition(topics.events(self._namespace), partition)
            for start in range(0, len(records), _RECORDS):
                await self._log.append(target, records[start : start + _RECORDS])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def measure(scene: Scene, way: ByRequest | ByRecord, number: int) -> list[tuple[str, str]]:
    """Starts, measures, signals; lines of the table."""
    await way.signal(await way.start(1))
    await scene.until("COMPLETED", 1)
    before = await scene.look()
    begun = time.monotonic()
    executions = await way.start(number)
    await scene.until("RUNNING", number)
    started = time.monotonic() - begun
    waiting, records = await scene.look(), await scene.records()
    keys, history = await scene.keys_of(executions[:_SAMPLE])
    begun = time.monotonic()
    await way.signal(executions)
    await scene.until("COMPLETED", number + 1)
    signalled = time.monotonic() - begun
    after = await scene.look()
    grown = waiting.redis - before.redis
    return [
        ("executions", f"{number:,}"),
        ("started in", f"{started:,.1f} s ({number / started:,.0f}/s)"),
        ("Redis, bytes per waiting execution", f"{grown / number:,.0f}"),
        ("of these its own keys", f"{keys:,.0f}"),
        ("of these its history alone", f"{history:,.0f}"),
        ("of these records of the log", f"{records / number:,.0f}"),
        ("orchestrator, RSS before, waiting, after", _mib(before, waiting, after, of="orchestrator")),
        ("orchestrator, bytes per waiting execution", f"{(waiting.orchestrator - before.orchestrator) / number:,.0f}"),
        ("API, RSS before, waiting, after", _mib(before, waiting, after, of="api")),
        ("signalled and all COMPLETED in", f"{signalled:,.1f} s ({number / signalled:,.0f}/s)"),
    ]


def _mib(*figures: Figures, of: str) -> str:
    return " → ".join(f"{getattr(one, of) / 2**20:,.0f} MiB" for one in figures)


async def _each(keys: Sequence[str], do: Callable[[str], Awaitable[str]]) -> list[str]:
    """Does it for each key, so many at once; what each gave, in order."""
    found = [""] * len(keys)
    waiting = iter(enumerate(keys))

    async def work() -> None:
        for place, key in waiting:
            found[place] = await do(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())
    return found


async def _run(number: int, log: str, *, direct: bool) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "engine").mkdir()
        server = stack.enter_context(start_redis(folder / "redis"))
        bootstrap = None
        if log == "kafka":
            (folder / "kafka").mkdir()
            bootstrap = stack.enter_context(start_kafka(folder / "kafka")).bootstrap
        cluster = stack.enter_context(Cluster(variables(server.port, bootstrap), folder / "engine"))
        cluster.start("api")
        cluster.start("orchestrator")
        await cluster.ready(workers=0, seconds=120)
        async with (
            httpx.AsyncClient(base_url=cluster.url, timeout=60) as client,
            Redis(host=server.host, port=server.port) as redis,
        ):
            scene = Scene(cluster, client, redis)
            if direct:
                given = {name.removeprefix("APP_").lower(): value for name, value in cluster.environment.items()}
                broker = open_log(Settings.model_validate(given), redis)
                await broker.start()
                try:
                    table = await measure(scene, ByRecord(scene, broker), number)
                finally:
                    await broker.close()
            else:
                table = await measure(scene, ByRequest(scene), number)
    print(f"| {log} log | |\n|---|---|")
    for name, value in table:
        print(f"| {name} | {value} |")


def main() -> None:
    """Parses arguments, measures, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--log", choices=("redis", "kafka"), default="redis")
    parser.add_argument("--direct", action="store_true", help="append records, without the API")
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.executions, arguments.log, direct=arguments.direct))


if __name__ == "__main__":
    main()
