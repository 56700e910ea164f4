"""What the contract suite of the log needs: a topic, a reader, the server behind the driver, reading with a bound."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from wf_testservers import KafkaCluster, KafkaServer, Proxy, RedisServer, start_kafka_cluster
from wf_testservers.kafka import choose
from wf_testservers.process import free_port

from wf_core.broker import topics
from wf_core.broker.open import open_log
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


@dataclass
class Brokers:
    """Three brokers, each behind a proxy of its own: clients come through it, brokers among themselves do not."""

    kafka: KafkaCluster
    proxies: dict[int, Proxy]


@pytest.fixture(scope="session")
def all_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """Three brokers for the whole session."""
    kind, why = choose()
    if kind != "apache":
        pytest.skip(f"three brokers need Apache Kafka of our own, and this is {why}")
    ports = [free_port() for _ in range(3)]
    with ExitStack() as stack:
        kafka = stack.enter_context(start_kafka_cluster(tmp_path_factory.mktemp("brokers"), advertised=ports))
        proxies = {node.node: Proxy(("127.0.0.1", node.port), node.advertised) for node in kafka.nodes}
        for proxy in proxies.values():
            stack.enter_context(proxy)
        yield Brokers(kafka, proxies)


@pytest.fixture
def brokers(all_brokers: Brokers) -> Iterator[Brokers]:
    """The same, whole again after the test."""
    yield all_brokers
    for node in all_brokers.kafka.nodes:
        if not node.process.running:
            node.start()
    for proxy in all_brokers.proxies.values():
        proxy.heal()


@pytest.fixture
def replicated(settings: Settings, brokers: Brokers) -> Settings:
    """Settings for three brokers and as many replicas."""
    update = {"broker": "kafka", "kafka_bootstrap_servers": brokers.kafka.bootstrap, "kafka_replication": 3}
    return settings.model_copy(update=update)


@pytest_asyncio.fixture
async def replicated_log(replicated: Settings, redis: Redis) -> AsyncIterator[Log]:
    """The log on three brokers, started."""
    log = open_log(replicated, redis)
    await log.start()
    yield log
    await log.close()


@pytest_asyncio.fixture
async def admin(settings: Settings) -> AsyncIterator[Any]:
    """What an operator may do to Kafka's topics."""
    from aiokafka.admin import AIOKafkaAdminClient

    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
def configure(admin: Any) -> Callable[..., Any]:
    """Changes settings of a topic, and waits until they are known."""
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    async def known(topic: str, wanted: dict[str, str]) -> bool:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
        (resource,) = response.to_object()["resources"]
        return {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]} == wanted

    async def configure(topic: str, wanted: dict[str, str]) -> None:
        (response,) = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
        assert response.to_object()["resources"][0]["error_code"] == 0
        async with asyncio.timeout(10):
            while not await known(topic, wanted):  # noqa: ASYNC110 - only the broker knows, and it has to be asked
                await asyncio.sleep(0.02)

    return configure


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
