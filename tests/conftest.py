"""One engine of real processes per log, shared by the tests of a session; `cluster` gives a test one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from wf_testservers.cluster import Cluster, wait_for_end
from wf_testservers.engine import environment

LOGS = ("redis", "kafka")


@dataclass
class Engine:
    """What a test asks of a running engine."""

    client: httpx.AsyncClient
    cluster: Cluster
    log: str

    async def submit(self, document: dict[str, Any], **body: Any) -> str:
        """Creates and triggers an execution; returns its id."""
        answer = await self.client.post("/workflow?trigger=true", json={"workflow": document, **body})
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["execution_id"]
        return found

    async def run(self, document: dict[str, Any], *, seconds: float = 30, **body: Any) -> dict[str, Any]:
        """Runs a document to its end and returns the execution."""
        execution_id = await self.submit(document, **body)
        return (await wait_for_end(self.client, [execution_id], seconds))[execution_id]

    async def get(self, path: str, **params: Any) -> Any:
        """The JSON behind a path that exists."""
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(self, what: str, path: str, holds: Any, seconds: float = 10) -> Any:
        """The JSON behind `path` once `holds` of it; fails naming `what` when it never does."""
        for _ in range(int(seconds / 0.05)):
            value = await self.get(path)
            if holds(value):
                return value
            await asyncio.sleep(0.05)
        raise AssertionError(f"after {seconds:g} s still not {what}: {value}")


@pytest.fixture(scope="session", params=LOGS)
def shared_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One API, one orchestrator, one worker on this log."""
    folder: Path = tmp_path_factory.mktemp(f"engine-{request.param}")
    with Cluster(environment(request, request.param), folder) as cluster:
        cluster.start("api")
        cluster.start("orchestrator")
        cluster.start("worker", "--slots", "16", APP_WORKER_ALLOW="shell.run,python.call")
        asyncio.run(cluster.ready(workers=1))
        yield cluster


@pytest_asyncio.fixture
async def engine(shared_cluster: Cluster) -> AsyncIterator[Engine]:
    """A client of the shared engine."""
    async with httpx.AsyncClient(base_url=shared_cluster.url, timeout=30) as client:
        yield Engine(client, shared_cluster, shared_cluster.environment["APP_BROKER"])


@pytest.fixture(params=LOGS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """No process yet: the test starts and kills its own."""
    with Cluster(environment(request, request.param), tmp_path) as cluster:
        yield cluster
