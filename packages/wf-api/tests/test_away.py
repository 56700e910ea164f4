"""Redis or the log is away: 503 with Retry-After, nothing hangs, and it recovers without a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from wf_testservers import start_kafka, start_redis
from wf_testservers.redis import RedisServer

from wf_api.service import ApiService
from wf_core.errors import UnavailableError
from wf_core.ids import derived_execution_id
from wf_core.settings import Settings

from .conftest import DOCUMENT, HURRY, problem, serving, until

BOUND = 10.0


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that this test may kill."""
    with start_redis(tmp_path / "redis") as server:
        yield server


@pytest_asyncio.fixture
async def own(settings: Settings, own_redis: RedisServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API on that Redis."""
    mine = settings.model_copy(update={"redis_port": own_redis.port, "log_format": "json"})
    async with client(mine) as api:
        yield api


@asynccontextmanager
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API with these settings."""
    async with serving(settings) as service:  # noqa: SIM117 - the client needs its url
        async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as api:
            yield api


async def eventually(api: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    """The answer once it has this status."""
    return await until(lambda: api.get(path), lambda answer: answer.status_code == status, f"{status} at {path}")


async def test_redis_killed_and_back(own: httpx.AsyncClient, own_redis: RedisServer) -> None:
    """Without Redis every address but /healthz is a 503 within seconds; with it again all is as before."""
    execution_id = (await own.post("/workflow", json=DOCUMENT, headers=HURRY)).json()["execution_id"]
    assert (await own.get("/readyz")).json()["status"] == "ready"
    own_redis.kill()
    begun = time.monotonic()
    for answer in await asyncio.gather(
        own.post("/workflow", json=DOCUMENT),
        own.post("/workflow?allow_unknown=true&trigger=true", json=DOCUMENT),
        own.post(f"/workflow/trigger/{execution_id}"),
        own.post(f"/workflows/{execution_id}/cancel"),
        own.get("/workflows"),
        own.get(f"/workflows/{execution_id}"),
        own.get(f"/workflows/{execution_id}/nodes/a"),
        own.get(f"/workflows/{execution_id}/events"),
        own.get("/tasks"),
        own.get("/workers"),
    ):
        problem(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert time.monotonic() - begun < BOUND
    assert (await own.get("/healthz")).status_code == 200
    away = await eventually(own, "/readyz", 503)
    assert away.json()["checks"]["redis"] != "ok"
    own_redis.start()
    await eventually(own, "/readyz", 200)
    assert (await own.get(f"/workflows/{execution_id}")).json()["status"] == "PENDING"
    assert (await own.post(f"/workflow/trigger/{execution_id}", headers=HURRY)).status_code == 202


async def test_log_killed_and_back(settings: Settings, redis: Redis, tmp_path: Path) -> None:
    """The log away after ACCEPT: 503 with the execution's id; reads show it, and a repetition makes no second one."""
    with start_kafka(tmp_path / "kafka") as kafka:
        on_kafka = settings.model_copy(update={"broker": "kafka", "kafka_bootstrap_servers": kafka.bootstrap})
        async with client(on_kafka) as api:
            assert (await api.post("/workflow", json=DOCUMENT, headers=HURRY)).status_code == 201
            kafka.kill()
            key = {"Idempotency-Key": "k"} | HURRY
            begun = time.monotonic()
            answer = await api.post("/workflow", json=DOCUMENT, headers=key)
            assert time.monotonic() - begun < BOUND
            body = problem(answer, 503, "unavailable")
            assert body["execution_id"] == derived_execution_id("k", settings.partitions)
            assert (await api.get(f"/workflows/{body['execution_id']}")).json()["status"] == "PENDING"
            await eventually(api, "/readyz", 503)
            kafka.start()
            await eventually(api, "/readyz", 200)
            again = await until(
                lambda: api.post("/workflow", json=DOCUMENT, headers=key), lambda a: a.status_code == 201, "201"
            )
            assert again.json()["execution_id"] == body["execution_id"]
            assert len((await api.get("/workflows")).json()["items"]) == 2


async def test_redis_away_at_start(settings: Settings) -> None:
    """Without Redis the service gives up after `connect_seconds`, with a sentence that names the address."""
    nowhere = settings.model_copy(update={"redis_port": 1, "connect_seconds": 0.3, "api_port": 0})
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        await ApiService(nowhere).start()


async def test_a_fault_of_ours(service: ApiService, api: httpx.AsyncClient, redis: Redis, settings: Settings) -> None:
    """What nobody expected is a 500 with an id that the log has too, and says nothing else."""
    execution_id = (await api.post("/workflow", json=DOCUMENT, headers=HURRY)).json()["execution_id"]
    for partition in range(settings.partitions):
        await redis.hset(f"{settings.namespace}:{{{partition}}}:acc", f"{execution_id}/create", b"broken bytes")
    body = problem(await api.get(f"/workflows/{execution_id}"), 500, "internal")
    assert body["incident"] in body["detail"]
    assert "Traceback" not in str(body)
    assert "msgspec" not in str(body)
