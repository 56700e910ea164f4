"""A real API on a loopback port, over a real Redis and the redis log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from wf_api.service import ApiService
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import TopicPartition
from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.settings import Settings
from wf_core.store.keys import InstallationKeys

T = TypeVar("T")
DOCUMENT: dict[str, Any] = {
    "name": "pair",
    "labels": {"team": "blue"},
    "nodes": {
        "a": {"task": "core.echo", "params": {"value": 1}},
        "b": {"task": "core.echo", "params": {"value": "${{ nodes.a.output }}"}},
    },
}
NEEDS_DAY: dict[str, Any] = {
    **DOCUMENT,
    "input": {
        "type": "object",
        "required": ["day"],
        "properties": {"day": {"type": "string"}, "limit": {"type": "integer", "default": 10}},
        "additionalProperties": False,
    },
}
HURRY = {"Prefer": "respond-async"}


@asynccontextmanager
async def serving(settings: Settings, **options: Any) -> AsyncIterator[ApiService]:
    """An API service that runs."""
    service = ApiService(settings.model_copy(update={"api_port": 0}), **options)
    await service.start()
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    try:
        yield service
    finally:
        stop.set()
        await running


@pytest_asyncio.fixture
async def service(settings: Settings, redis: Redis) -> AsyncIterator[ApiService]:
    """The API of this test. Depends on `redis` so that its keys are deleted after it stopped."""
    async with serving(settings) as running:
        yield running


@pytest_asyncio.fixture
async def api(service: ApiService) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API."""
    async with httpx.AsyncClient(base_url=service.url, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def stored(settings: Settings, redis: Redis) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Everything that the namespace holds in Redis, the log's records included: to show that nothing changed."""

    async def read() -> dict[str, Any]:
        found: dict[str, Any] = {}
        async for key in redis.scan_iter(match=f"{settings.namespace}[:.]*", count=1000):
            found[key.decode()] = await redis.dump(key)
        return found

    return read


@pytest.fixture
def records(settings: Settings, redis: Redis) -> Callable[[], Awaitable[int]]:
    """The number of records in the log of events."""

    async def count() -> int:
        log = open_log(settings, redis)
        events = topics.events(settings.namespace)
        ends = [await log.end(TopicPartition(events, partition)) for partition in range(settings.partitions)]
        await log.close()
        return sum(ends)

    return count


@pytest.fixture
def publish(settings: Settings, redis: Redis) -> Callable[..., Awaitable[None]]:
    """Publishes a worker that can run some tasks, as a worker does."""

    async def put(*tasks: TaskInfo) -> None:
        keys = InstallationKeys(settings.namespace)
        catalogue = Catalogue(tasks={task.name: task for task in tasks})
        seconds, micros = await redis.time()
        about = {
            "id": "w1",
            "host": "h",
            "pid": 1,
            "queues": ["default"],
            "slots": 4,
            "free": 3,
            "version": "0.1.0",
            "catalogue": catalogue.hash,
            "started_at": seconds * 1000,
        }
        await redis.hset(keys.catalogues, catalogue.hash, catalogue.encode())
        await redis.set(keys.worker("w1"), json.dumps(about), ex=60)
        await redis.zadd(keys.workers, {"w1": seconds * 1000 + micros // 1000})

    return put


ECHO = TaskInfo(
    name="core.echo",
    package="wf-tasks-builtin",
    version="0.1.0",
    params={
        "type": "object",
        "properties": {"value": {}, "times": {"type": "integer"}},
        "additionalProperties": False,
    },
)


async def until(look: Callable[[], Awaitable[T]], good: Callable[[T], bool], what: str, seconds: float = 15) -> T:
    """What `look` saw once it is `good`; fails after `seconds`, naming `what` was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if good(seen):
            return seen
        assert time.monotonic() < deadline, f"{what}; last seen: {seen}"
        await asyncio.sleep(0.02)


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem in an answer, checked for its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert isinstance(body["errors"], list)
    return body
