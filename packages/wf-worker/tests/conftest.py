"""A worker on real servers, and a desk that plays the orchestrator: it dispatches attempts and reads results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.open import ensure_installation, open_log
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.ids import new_execution_id, partition_of, token
from wf_core.settings import Settings
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.scripts import Scripts
from wf_worker.service import WorkerService

TASKS = Path(__file__).parent / "sample_tasks"


async def until(what: str, holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Waits until `holds()` gives something true and returns it; it may be async. Fails naming `what`."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.01)


@pytest.fixture(name="until")
def _until() -> Callable[..., Awaitable[Any]]:
    """Waits until something holds, and fails naming what did not."""
    return until


def _alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Says whether a process runs."""
    return _alive


@pytest.fixture
def pids_in() -> Callable[[Path], Awaitable[list[int]]]:
    """Waits for the pids that a sample task writes to its file."""

    async def pids(file: Path) -> list[int]:
        text: str = await until(f"{file} is written", lambda: file.exists() and file.read_text())
        return [int(pid) for pid in text.split()]

    return pids


class Desk:
    """Plays the orchestrator of one namespace: in-flight tokens, task messages, results, folds."""

    def __init__(self, redis: Any, broker: Log, settings: Settings, incarnation: str) -> None:
        self.redis = redis
        self.log = broker
        self.settings = settings
        self.incarnation = incarnation
        self.keys = InstallationKeys(settings.namespace)
        self.records: list[tuple[int, int, Any]] = []
        """Event partition, offset and record of what workers appended."""
        self._sent = 0

    def partition(self, execution: str) -> PartitionKeys:
        """The keys of the execution's partition."""
        return PartitionKeys.of(self.settings.namespace, partition_of(execution))

    async def open(self, *, live: bool = True) -> None:
        """Makes every partition live, at offset 0."""
        for number in range(self.settings.partitions):
            keys = PartitionKeys.of(self.settings.namespace, number)
            fields = {"live": "1" if live else "0", "off": "0", "inc": self.incarnation}
            await self.redis.hset(keys.meta, mapping=fields)

    def message(self, task: str, params: bytes = b"{}", **fields: Any) -> wire.TaskMessage:
        """A message of a new execution."""
        now = round(time.time() * 1000)
        partition = self._sent % self.settings.partitions
        said = {"execution": new_execution_id(partition, now), "node": "n", "attempt": 1, **fields}
        return wire.TaskMessage(task=task, params=params, workflow="w", queued_at=now, **said)

    async def send(self, message: wire.TaskMessage, *, in_flight: bool = True, queue: str = "default") -> str:
        """Dispatches an attempt; its token."""
        name = token(message.execution, message.node, message.attempt)
        if in_flight:
            await self.redis.hset(self.partition(message.execution).in_flight, name, str(message.queued_at))
        self._sent += 1
        number = self._sent % self.settings.task_partitions
        await self.log.append(
            TopicPartition(topics.tasks(self.settings.namespace, queue), number), [wire.encode(message)]
        )
        return name

    async def dispatch(self, task: str, params: Any = None, **fields: Any) -> str:
        """Dispatches a new attempt of `task`; its token."""
        return await self.send(self.message(task, msgspec.json.encode(params or {}), **fields))

    async def result(self, name: str, seconds: float = 20.0) -> Any:
        """The first record about the token, folded: the token left the in-flight set."""
        record = await until(f"a record about {name}", lambda: self.first(name), seconds)
        await self.fold(name)
        return record

    async def run(self, task: str, params: Any = None, **fields: Any) -> Any:
        """Dispatches an attempt of `task` and returns its record."""
        return await self.result(await self.dispatch(task, params, **fields))

    def about(self, name: str) -> list[Any]:
        """Every record about the token."""
        return [r for _, _, r in self.records if token(r.execution, r.node, r.attempt) == name]

    def first(self, name: str) -> Any:
        """The first record about the token, if any came."""
        return next(iter(self.about(name)), None)

    async def fold(self, name: str) -> None:
        """The attempt is over: what APPLY does."""
        keys = self.partition(name.partition("/")[0])
        await self.redis.hdel(keys.in_flight, name)
        await self.redis.hdel(keys.claims, name)

    async def claim_of(self, name: str) -> str:
        """Who holds the token; "" for nobody."""
        claim = await self.redis.hget(self.partition(name.partition("/")[0]).claims, name)
        return claim.decode().partition("|")[0] if claim else ""

    async def beats(self, name: str, worker: str) -> int:
        """The worker's heartbeat counter in the token's partition."""
        return int(await self.redis.hget(self.partition(name.partition("/")[0]).heartbeats, worker) or 0)

    @property
    def sources(self) -> list[TopicPartition]:
        """The partitions of the events."""
        topic = topics.events(self.settings.namespace)
        return [TopicPartition(topic, n) for n in range(self.settings.partitions)]

    async def follow_anew(self) -> None:
        """Follows from the events' ends on: the log is not what it was."""
        self.reader.assign({source: await self.log.end(source) for source in self.sources})

    async def follow(self) -> None:
        """Reads the events for ever."""
        reader = self.reader = self.log.reader()
        reader.assign(dict.fromkeys(self.sources, 0))
        try:
            while True:
                for batch in await reader.read(0.5):
                    for offset, record in enumerate(batch.records, batch.offset):
                        self.records.append((batch.source.partition, offset, wire.decode_event(record)))
        finally:
            await reader.close()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A worker that runs the sample tasks."""
    return settings.model_copy(
        update={"worker_task_paths": str(TASKS), "worker_slots": 8, "worker_grace": 5.0, "task_partitions": 2}
    )


@pytest_asyncio.fixture
async def desk(settings: Settings, redis: Any) -> AsyncIterator[Desk]:
    """The orchestrator's desk; every partition is live."""
    broker = open_log(settings, redis)
    await broker.start()
    installation = await ensure_installation(broker, Scripts(redis), settings)
    await broker.ensure_topics({topics.tasks(settings.namespace, "default"): settings.task_partitions})
    it = Desk(redis, broker, settings, installation.incarnation)
    await it.open()
    following = asyncio.create_task(it.follow())
    yield it
    while not following.done():  # on Python 3.11 a client may swallow a cancel
        following.cancel()
        await asyncio.wait([following], timeout=0.05)
    await broker.close()


class Started:
    """A worker that runs in this loop."""

    def __init__(self, service: WorkerService) -> None:
        self.service = service
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts it."""
        await self.service.start()
        self._running = asyncio.create_task(self.service.run(self._stop))

    async def stop(self) -> None:
        """Drains it, as SIGTERM does."""
        self._stop.set()
        if self._running is not None:
            async with asyncio.timeout(20):
                await self._running
            self._running = None


StartWorker = Callable[..., Awaitable[WorkerService]]


@pytest_asyncio.fixture
async def start_worker(settings: Settings, desk: Desk) -> AsyncIterator[Callable[..., Awaitable[Started]]]:
    """Starts workers with some settings changed; they are drained at the end of the test."""
    started: list[Started] = []

    async def start(*, grace: float = 1.0, **changes: Any) -> Started:
        service = WorkerService(settings.model_copy(update=changes))
        service.grace = grace
        it = Started(service)
        await it.start()
        started.append(it)
        return it

    yield start
    for it in started:
        supervisor = it.service.supervisor
        supervisor.settings = supervisor.settings.model_copy(update={"worker_grace": 0.0})
        await it.stop()


@pytest_asyncio.fixture
async def worker(start_worker: Callable[..., Awaitable[Started]]) -> Started:
    """A worker that takes tasks."""
    return await start_worker()
