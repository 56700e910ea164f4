"""APP_* variables of an installation on each log, for processes that are started apart."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from wf_testservers.kafka import start_kafka
from wf_testservers.redis import start_redis


def variables(redis_port: int, bootstrap: str | None) -> dict[str, str]:
    """A new installation on these servers; without `bootstrap` on the redis log."""
    return {
        "APP_NAMESPACE": f"e{uuid.uuid4().hex[:10]}",
        "APP_BROKER": "kafka" if bootstrap else "redis",
        "APP_KAFKA_BOOTSTRAP_SERVERS": bootstrap or "127.0.0.1:1",
        "APP_REDIS_HOST": "127.0.0.1",
        "APP_REDIS_PORT": str(redis_port),
        "APP_PARTITIONS": "8",
        "APP_TASK_PARTITIONS": "8",
        "APP_LOG_FORMAT": "json",
    }


def environment(request: pytest.FixtureRequest, log: str) -> Mapping[str, str]:
    """A new installation on the session's servers."""
    bootstrap = request.getfixturevalue("kafka_server").bootstrap if log == "kafka" else None
    return variables(request.getfixturevalue("redis_server").port, bootstrap)


@contextmanager
def servers(directory: Path) -> Iterator[dict[str, dict[str, str]]]:
    """Starts Redis and Kafka of its own; yields the variables of an installation by log."""
    for name in ("redis", "kafka"):
        (directory / name).mkdir()
    with start_redis(directory / "redis") as redis, start_kafka(directory / "kafka") as kafka:
        yield {"redis": variables(redis.port, None), "kafka": variables(redis.port, kafka.bootstrap)}
