"""What the contract suite of the log needs: a topic, a reader, the server behind the driver, reading with a bound."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from wf_testservers import KafkaServer, RedisServer

from wf_core.broker import topics
from wf_core.broker.protocol import Log, LogReader, LogUnavailableError, TopicPartition
from wf_core.settings import Settings

Records = dict[TopicPartition, list[tuple[int, bytes]]]


@pytest_asyncio.fixture
async def topic(log: Log, settings: Settings) -> str:
    """A topic with three partitions."""
    name = topics.tasks(settings.namespace, "q")
    await log.ensure_topics({name: 3})
    return name


@pytest.fixture
def source(topic: str) -> TopicPartition:
    """A partition of the topic."""
    return TopicPartition(topic, 1)


@pytest_asyncio.fixture
async def reader(log: Log) -> AsyncIterator[LogReader]:
    """A reader without an assignment."""
    reader = log.reader()
    yield reader
    await reader.close()


@pytest.fixture
def server(log_driver: str, request: pytest.FixtureRequest) -> RedisServer | KafkaServer:
    """The server that holds the log."""
    server: RedisServer | KafkaServer = request.getfixturevalue(f"{log_driver}_server")
    if isinstance(server, KafkaServer) and server.kind == "external":
        pytest.skip("the broker is not ours to kill")
    return server


@pytest.fixture
def durable_server(server: RedisServer | KafkaServer) -> RedisServer | KafkaServer:
    """The same, if a kill loses nothing that it acknowledged."""
    if isinstance(server, KafkaServer) and not server.survives_kill:
        pytest.skip("the stand-in forgets what it acknowledged when it is killed")
    return server


@pytest.fixture
def collect() -> Callable[..., object]:
    """Reads until `count` records came: (offset, record) by partition. Fails after `seconds`."""

    async def collect(reader: LogReader, count: int, seconds: float = 30, max_records: int = 500) -> Records:
        found: Records = defaultdict(list)
        async with asyncio.timeout(seconds):
            while sum(map(len, found.values())) < count:
                try:
                    batches = await reader.read(0.5, max_records)
                except LogUnavailableError:
                    await asyncio.sleep(0.05)  # a caller's pause before it tries again
                    continue
                for batch in batches:
                    assert 0 < len(batch.records) <= max_records
                    found[batch.source] += enumerate(batch.records, batch.offset)
        return found

    return collect
