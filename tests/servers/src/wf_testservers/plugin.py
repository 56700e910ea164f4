"""Fixtures: `redis_server`, `kafka_server` (one each a session), `redis`, `namespace`, `log_driver`, `settings`, `log`.

A test that asks for `log_driver` or `log` runs once on each log; any other has settings for Redis alone and starts no
broker. Servers start when the first test needs them and end with the session, even one that is killed.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from wf_testservers.kafka import KafkaServer, choose, start_kafka
from wf_testservers.process import ServerError
from wf_testservers.redis import RedisServer, start_redis

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from wf_core.broker.protocol import Log
    from wf_core.settings import Settings

_USED = pytest.StashKey[list[str]]()


def pytest_report_header() -> str:
    """Says which broker the tests of the Kafka log will get."""
    try:
        _, why = choose()
    except ServerError as error:
        why = str(error)
    return f"wf servers: the Kafka log is tested on {why}"


def pytest_configure(config: pytest.Config) -> None:
    """Prepares the list of servers that were started."""
    config.stash[_USED] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says which servers were used."""
    for line in config.stash[_USED]:
        terminalreporter.write_line(f"wf servers: {line}")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A real redis-server with an append-only file. A test that kills it starts it again."""
    with start_redis(tmp_path_factory.mktemp("redis")) as server:
        request.config.stash[_USED].append(f"redis-server at {server.url}")
        yield server


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[KafkaServer]:
    """A real broker. A test that kills it starts it again."""
    with start_kafka(tmp_path_factory.mktemp("kafka")) as server:
        request.config.stash[_USED].append(server.description)
        yield server


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest_asyncio.fixture
async def redis(redis_server: RedisServer, namespace: str) -> AsyncIterator[Redis]:
    """A client as services have it. The test's keys are deleted at the end."""
    from wf_core.store.client import connect

    client = connect(_settings(namespace, redis_server, None))
    yield client
    keys = [key async for key in client.scan_iter(match=f"{namespace}[:.]*", count=1000)]
    if keys:
        await client.unlink(*keys)
    await client.aclose()


@pytest.fixture(params=["redis", "kafka"])
def log_driver(request: pytest.FixtureRequest) -> str:
    """The name of the log's driver: each test that uses it runs on both."""
    return str(request.param)


@pytest.fixture
def settings(request: pytest.FixtureRequest, namespace: str, redis_server: RedisServer) -> Settings:
    """Settings that point at the test's servers: few partitions, the driver of `log_driver`, else `redis`."""
    driver = request.getfixturevalue("log_driver") if "log_driver" in request.fixturenames else "redis"
    kafka: KafkaServer | None = request.getfixturevalue("kafka_server") if driver == "kafka" else None
    return _settings(namespace, redis_server, kafka)


@pytest_asyncio.fixture
async def log(settings: Settings, redis: Redis, log_driver: str) -> AsyncIterator[Log]:
    """The log that `log_driver` names, started, without topics."""
    from wf_core.broker.open import open_log

    driver = open_log(settings, redis)
    await driver.start()
    yield driver
    await driver.close()


def _settings(namespace: str, redis: RedisServer, kafka: KafkaServer | None) -> Settings:
    from wf_core.settings import Settings

    return Settings(
        redis_host=redis.host,
        redis_port=redis.port,
        redis_db=0,
        redis_password=None,
        redis_socket=None,
        redis_url=None,
        broker="kafka" if kafka else "redis",
        kafka_bootstrap_servers=kafka.bootstrap if kafka else "127.0.0.1:1",
        kafka_replication=1,
        namespace=namespace,
        partitions=4,
        task_partitions=2,
        log_format="console",
    )
