"""Redis or the log is away: at the start, and in the middle of work."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from wf_testservers.cluster import Cluster, wait_for_end
from wf_testservers.engine import variables
from wf_testservers.kafka import start_kafka
from wf_testservers.redis import start_redis

SLOW = {
    "name": "slow",
    "nodes": {
        f"n{n}": {
            "task": "core.sleep",
            "depends_on": [f"n{n - 1}"] if n else [],
            "params": {"seconds": 0.3, "value": n},
        }
        for n in range(12)
    },
    "output": "${{ nodes.n11.output }}",
}


@pytest.mark.parametrize("service", ["api", "orchestrator", "worker"])
@pytest.mark.parametrize("away", ["redis", "kafka"])
def test_a_service_that_finds_no_server_says_so_and_leaves(service: str, away: str, redis_server: Any):
    """Bounded retries, a clear line that names the address, and exit code 4."""
    environment = variables(1 if away == "redis" else redis_server.port, None if away == "redis" else "127.0.0.1:1")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "wf_core.cli", service],
        env={"PATH": "/usr/bin:/bin", **environment, "APP_CONNECT_SECONDS": "2", "APP_LOG_FORMAT": "console"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 40


@pytest.fixture(params=["redis", "kafka"])
def own_servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Cluster, dict[str, Any]]]:
    """A cluster on servers of its own, which the test may kill: Redis, and on the kafka log Kafka."""
    with contextlib.ExitStack() as stack:
        (tmp_path / "redis").mkdir()
        servers: dict[str, Any] = {"redis": stack.enter_context(start_redis(tmp_path / "redis"))}
        if request.param == "kafka":
            (tmp_path / "kafka").mkdir()
            servers["kafka"] = stack.enter_context(start_kafka(tmp_path / "kafka"))
        bootstrap = servers["kafka"].bootstrap if "kafka" in servers else None
        cluster = stack.enter_context(Cluster(variables(servers["redis"].port, bootstrap), tmp_path))
        yield cluster, servers


@pytest.mark.timeout(200)
async def test_work_goes_on_when_a_killed_server_is_back(own_servers: tuple[Cluster, dict[str, Any]]):
    """A server that is away means 503, not ready, and no hanging; when it is back every workflow completes."""
    cluster, servers = own_servers
    cluster.start("api")
    cluster.start("orchestrator")
    cluster.start("worker")
    await cluster.ready(workers=1)
    async with httpx.AsyncClient(base_url=cluster.url, timeout=30) as client:
        for server in servers.values():
            answers = [await client.post("/workflow?trigger=true", json=SLOW) for _ in range(5)]
            ids = [answer.raise_for_status().json()["execution_id"] for answer in answers]
            await asyncio.sleep(1)  # in the middle of the chains
            server.kill()
            await _until(client, "/readyz", 503)
            refused = await client.post("/workflow", json=SLOW)
            assert refused.status_code == 503, refused.text
            assert "retry-after" in refused.headers
            server.start()
            await _until(client, "/readyz", 200)
            ended = await wait_for_end(client, ids, 90)
            assert {(v["status"], v["output"]) for v in ended.values()} == {("COMPLETED", 11)}, cluster.logs()
    assert all(process.alive for process in cluster.processes), cluster.logs()


async def _until(client: httpx.AsyncClient, path: str, status: int) -> None:
    deadline = time.monotonic() + 30
    while (answer := await client.get(path)).status_code != status:
        assert time.monotonic() < deadline, f"{path} still answers {answer.status_code}: {answer.text}"
        await asyncio.sleep(0.1)
