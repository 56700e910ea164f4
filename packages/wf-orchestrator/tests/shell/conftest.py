"""Orchestrators in the test's own loop, on real servers, with a hand-made API and worker beside them."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
import pytest_asyncio
import structlog
from redis.asyncio import Redis

from wf_core import ids, wire
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.schema.canonical import canonical_bytes, document_hash
from wf_core.schema.document import WorkflowSchema
from wf_core.settings import Settings
from wf_core.store.clock import Clock
from wf_core.store.codec import unpack_attempts, unpack_nodes
from wf_core.store.commands import pack_command
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.scripts import Scripts
from wf_core.wire import Failure, TaskMessage
from wf_orchestrator.service import OrchestratorService
from wf_orchestrator.verify import UnverifiableError, verify

# As `wf_core.logging` does: local variables take a second to print, and these tests measure time.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

ENDED = ("COMPLETED", "FAILED", "CANCELLED")
Behaviour = Callable[[TaskMessage], Any]


async def until(what: str, holds: Callable[[], Awaitable[Any]], seconds: float = 10.0) -> Any:
    """The first true value of `holds`; fails naming `what` when none comes in time."""
    async with asyncio.timeout(seconds + 5):
        for _ in range(int(seconds / 0.02)):
            if value := await holds():
                return value
            await asyncio.sleep(0.02)
    raise AssertionError(f"after {seconds:g} s still not: {what}")


async def cancelled(task: asyncio.Task[None]) -> None:
    """Ends a task. Cancelled again until it has ended: before Python 3.12 `wait_for` may swallow a cancel."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=2)


class Worker:
    """Claims what the topics hold, does what `behaviour` says, appends results and beats. A dict names what it knows.

    `behaviour(message)` gives the output, an exception (the attempt fails), or None (it never answers).
    """

    def __init__(self, engine: Engine, behaviour: Behaviour, name: str) -> None:
        self.name = name
        self.ran: list[str] = []
        self.refused: list[str] = []
        self.cancelled: list[str] = []
        self.silent = False
        self._engine = engine
        self._behaviour = behaviour
        self._running: dict[str, int] = {}
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """As killed: nothing more is said."""
        await cancelled(self._task)

    async def _run(self) -> None:
        engine = self._engine
        reader = engine.log.reader()
        topic = topics.tasks(engine.settings.namespace, "default")
        number = engine.settings.task_partitions
        await engine.log.ensure_topics({topic: number})
        reader.assign({TopicPartition(topic, n): 0 for n in range(number)})
        try:
            while True:
                if not self.silent:
                    await self._beat()
                for batch in await reader.read(0.05):
                    for record in batch.records:
                        await self._take(wire.decode_task(record))
                    key = InstallationKeys(engine.settings.namespace).task_lease("default", batch.source.partition)
                    await engine.scripts.task_lease(key, "everyone", 60_000)
                    await engine.scripts.task_commit(key, "everyone", batch.next, 60_000)
        finally:
            await reader.close()

    async def _beat(self) -> None:
        for partition in set(self._running.values()):
            tokens = [token for token, number in self._running.items() if number == partition]
            reply = await self._engine.scripts.beat(self._engine.keys(partition), self.name, tokens, [])
            self.cancelled += reply.cancel
            for token in reply.cancel:
                del self._running[token]

    async def _take(self, message: TaskMessage) -> None:
        engine = self._engine
        token = ids.token(message.execution, message.node, message.attempt)
        number = ids.partition_of(message.execution)

        async def claimed() -> str | None:
            (answer,) = await engine.scripts.claim(engine.keys(number), self.name, [token], [False])
            return None if answer == "LATER" else answer

        answer = await until("the partition is live", claimed)
        if answer not in ("OK", "MINE"):
            self.refused.append(token)
            return
        self.ran.append(token)
        value = self._behaviour(message)
        if value is None:
            self._running[token] = number
            return
        now = engine.clock.now_ms()
        if isinstance(value, Exception):
            fatal = isinstance(value, RuntimeError)
            outcome: dict[str, Any] = {
                "status": "FAILED",
                "error": Failure(type=type(value).__name__, message=str(value), fatal=fatal),
            }
        else:
            outcome = {"output": json.dumps(value).encode()}
        result = wire.Result(
            execution=message.execution,
            ts=now,
            source=self.name,
            node=message.node,
            attempt=message.attempt,
            worker=self.name,
            started_at=now,
            ended_at=now,
            **outcome,
        )
        await engine.append(number, [result])


class Engine:
    """What a test does with an installation."""

    until = staticmethod(until)

    def __init__(self, settings: Settings, redis: Redis, log: Log) -> None:
        self.settings = settings
        self.redis = redis
        self.log = log
        self.scripts = Scripts(redis)
        self.clock = Clock()
        self._running: dict[asyncio.Task[None], asyncio.Event] = {}
        self._workers: list[Worker] = []
        self._count = 0

    def keys(self, partition: int) -> PartitionKeys:
        return PartitionKeys.of(self.settings.namespace, partition)

    async def orchestrator(self, **changes: Any) -> tuple[OrchestratorService, asyncio.Task[None]]:
        """A running orchestrator. Cancel the task to crash it."""
        service = OrchestratorService(self.settings.model_copy(update=changes))
        await service.start()
        stop = asyncio.Event()
        task = asyncio.ensure_future(service.run(stop))
        self._running[task] = stop
        return service, task

    async def stop(self, task: asyncio.Task[None]) -> None:
        """As by SIGTERM."""
        self._running.pop(task).set()
        await task

    async def crash(self, task: asyncio.Task[None]) -> None:
        """As by SIGKILL, save that connections are closed."""
        self._running.pop(task)
        await cancelled(task)

    def worker(self, behaviour: Behaviour, name: str = "") -> Worker:
        """A running worker."""
        self._workers.append(Worker(self, behaviour, name or f"w{len(self._workers)}"))
        return self._workers[-1]

    async def append(self, partition: int, records: Iterable[wire.Record]) -> None:
        source = TopicPartition(topics.events(self.settings.namespace), partition)
        await self.log.append(source, [wire.encode(record) for record in records])

    def records(self, document: dict[str, Any], partition: int, **frozen: Any) -> tuple[str, list[wire.Record]]:
        """Id and records of a new execution: its document, `created`, `triggered`."""
        parsed = WorkflowSchema.model_validate({"name": "test", **document})
        canonical = canonical_bytes(parsed)
        name, now = document_hash(canonical), self.clock.now_ms()
        execution_id = ids.new_execution_id(partition, now)
        common: dict[str, Any] = {"execution": execution_id, "ts": now, "source": "test"}
        retry = wire.RetrySettings(**{"max_retries": 3, "delay_ms": 20, **frozen})
        return execution_id, [
            wire.Document(**common, hash=name, part=0, parts=1, data=zlib.compress(canonical)),
            wire.Created(
                **common, id="create", document=name, name=parsed.name, settings=wire.FrozenSettings(retry=retry)
            ),
            wire.Triggered(**common, id="trigger"),
        ]

    async def submit(self, document: dict[str, Any], partition: int | None = None, **frozen: Any) -> str:
        """Creates and triggers an execution."""
        number = self._count % self.settings.partitions if partition is None else partition
        self._count += 1
        execution_id, records = self.records(document, number, **frozen)
        await self.append(number, records)
        return execution_id

    async def accept(self, document: dict[str, Any], partition: int = 0) -> str:
        """As an API that died between ACCEPT and the append."""
        execution_id, records = self.records(document, partition)
        for verb, these in (("create", records[:2]), ("trigger", records[2:])):
            command = pack_command(self.clock.now_ms(), [wire.encode(r) for r in these], "")
            await self.scripts.accept(self.keys(partition), execution_id, verb, command, ["", "PENDING"])
        return execution_id

    async def status(self, execution_id: str) -> str:
        keys = self.keys(ids.partition_of(execution_id))
        found: Any = await self.redis.hget(keys.execution(execution_id), "status")  # type: ignore[misc]
        return (found or b"").decode()

    async def ended(self, *executions: str, seconds: float = 15.0) -> list[str]:
        """The statuses once all have ended."""

        async def statuses() -> list[str] | None:
            found = [await self.status(execution_id) for execution_id in executions]
            return found if all(status in ENDED for status in found) else None

        found: list[str] = await until(f"{len(executions)} executions ended", statuses, seconds)
        return found

    async def nodes(self, execution_id: str, count: int) -> list[tuple[str, int, int]]:
        """Status, attempt and lost attempts of the nodes, in document order."""
        keys = self.keys(ids.partition_of(execution_id))
        cells = await self.redis.get(keys.nodes(execution_id))
        return [(str(cell[0]), cell[1], cell[2]) for cell in unpack_nodes(cells or b"", count)]

    async def attempts(self, execution_id: str, node: str) -> list[Any]:
        keys = self.keys(ids.partition_of(execution_id))
        found: Any = await self.redis.hget(keys.results(execution_id), f"a:{node}")  # type: ignore[misc]
        return unpack_attempts(found)

    async def owners(self) -> dict[int, str]:
        """Who holds each partition (the orchestrator's id), those without a lease left out."""
        found: dict[int, str] = {}
        for number in range(self.settings.partitions):
            own, until_ms = await self.redis.hmget(self.keys(number).meta, ["own", "lease"])  # type: ignore[misc]
            if own and int(until_ms) > self.clock.now_ms():
                found[number] = own.decode().rpartition(".")[0]
        return found

    async def all_owned(self, seconds: float = 10.0) -> dict[int, str]:
        """The owners once every partition has one."""

        async def complete() -> dict[int, str] | None:
            found = await self.owners()
            return found if len(found) == self.settings.partitions else None

        found: dict[int, str] = await until("every partition has an owner", complete, seconds)
        return found

    async def at_rest(self) -> None:
        """Until every partition has folded its log."""

        async def folded() -> bool:
            for number in range(self.settings.partitions):
                end = await self.log.end(TopicPartition(topics.events(self.settings.namespace), number))
                offset: Any = await self.redis.hget(self.keys(number).meta, "off")  # type: ignore[misc]
                if int(offset or 0) != end:
                    return False
            return True

        await until("every partition has folded its log", folded)

    async def verified(self) -> None:
        """Fails where Redis differs from the fold of the whole log."""
        for number in range(self.settings.partitions):

            async def differences(number: int = number) -> list[Any] | None:
                try:
                    return [await verify(self.redis, self.log, self.settings.namespace, number)]
                except UnverifiableError:
                    return None

            assert await until("the partition is at rest", differences) == [[]]

    async def close(self) -> None:
        for worker in self._workers:
            await worker.stop()
        for task in list(self._running):
            await self.stop(task)


@pytest.fixture
def log_driver() -> str:
    """The shell's tests run on the redis log; both logs pass one contract suite, and end-to-end tests use both."""
    return "redis"


@pytest_asyncio.fixture
async def engine(settings: Settings, redis: Redis) -> AsyncIterator[Engine]:
    """An installation with 4 partitions, without an orchestrator yet. Faults are noticed sooner than by default."""
    quick = settings.model_copy(
        update={"lease_seconds": 1.0, "death_seconds": 1.0, "orphan_seconds": 1.0, "connect_seconds": 5.0}
    )
    log = open_log(quick, redis)
    await log.start()
    engine = Engine(quick, redis, log)
    await engine.clock.sync(redis)
    yield engine
    await engine.close()
    await log.close()
