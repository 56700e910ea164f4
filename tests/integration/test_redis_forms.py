"""The engine on a Redis behind Sentinel and on a Redis Cluster: a master is killed under load, and nothing is lost.

Only APP_REDIS_URL differs from an installation on one server.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from caller import submit
from oracle import assert_ended_once, assert_folded
from wf_testservers.cluster import Cluster, wait_for_end
from wf_testservers.engine import variables
from wf_testservers.redis import wait_until
from wf_testservers.redis_groups import RedisCluster, SentinelGroup, start_redis_cluster, start_sentinel

from wf_core.settings import Settings

WORKFLOWS = 60


def chain(length: int) -> dict[str, Any]:
    """Nodes in a row that take a moment each."""
    nodes: dict[str, Any] = {"n0": {"task": "core.sleep", "params": {"seconds": 0.3, "value": 0}}}
    for n in range(1, length):
        value = f"${{{{ nodes.n{n - 1}.output + 1 }}}}"
        nodes[f"n{n}"] = {"task": "core.sleep", "params": {"seconds": 0.3, "value": value}}
    return {"name": "chain", "nodes": nodes, "output": f"${{{{ nodes.n{length - 1}.output }}}}"}


def fan(width: int) -> dict[str, Any]:
    """Many leaves at once, then one join."""
    nodes: dict[str, Any] = {
        f"leaf{n}": {"task": "core.sleep", "params": {"seconds": 0.2, "value": n}} for n in range(width)
    }
    total = " + ".join(f"nodes.leaf{n}.output" for n in range(width))
    nodes["join"] = {"task": "core.echo", "params": {"value": f"${{{{ {total} }}}}"}}
    return {"name": "fan", "nodes": nodes, "output": "${{ nodes.join.output }}"}


SHAPES: list[tuple[dict[str, Any], Any]] = [(chain(6), 5), (fan(8), 28)]


@pytest.fixture(params=["kafka", "redis"])
def bootstrap(request: pytest.FixtureRequest) -> str | None:
    """Kafka's address; None on the redis log."""
    return request.getfixturevalue("kafka_server").bootstrap if request.param == "kafka" else None


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[SentinelGroup]:
    with start_sentinel(tmp_path / "servers", sentinels=3) as watched:
        yield watched


@pytest.fixture
def group(tmp_path: Path) -> Iterator[RedisCluster]:
    with start_redis_cluster(tmp_path / "servers") as group:
        yield group


@pytest.mark.timeout(120)
async def test_a_replica_takes_over_under_load(watched: SentinelGroup, bootstrap: str | None, tmp_path: Path):
    """The master is killed: a replica is promoted, every service goes on by itself and every workflow completes.

    On Kafka the replica may lack what was written last: it is folded again. On the redis log the log itself is what is
    replicated, so there the replica has all of it when the master dies.
    """

    def fail_over() -> None:
        if bootstrap is None:
            master = watched.master()
            master.ask("CLIENT", "PAUSE", 10_000, "WRITE")
            wait_until(watched.servers[1].in_sync, "replica in sync")
        watched.kill_master()

    await _survives(watched.url, bootstrap, tmp_path, fail_over)


@pytest.mark.timeout(120)
async def test_a_master_of_a_cluster_comes_back_under_load(group: RedisCluster, bootstrap: str | None, tmp_path: Path):
    """One of three masters is killed and started again on its append-only file: every workflow completes."""

    def restart() -> None:
        group.nodes[1].kill()
        time.sleep(1.0)  # long enough to be missed by every service
        group.nodes[1].start()
        group.wait()

    await _survives(group.url, bootstrap, tmp_path, restart)


async def _survives(url: str, bootstrap: str | None, folder: Path, accident: Any) -> None:
    """Runs workflows, the accident in the middle; then asks the API, and compares every partition with its log."""
    environment = {**variables(1, bootstrap), "APP_REDIS_URL": url}
    with Cluster(environment, folder) as cluster:
        cluster.start("api")
        for _ in range(2):
            cluster.start("orchestrator")
            cluster.start("worker")
        await cluster.ready(workers=2)
        async with httpx.AsyncClient(base_url=cluster.url, timeout=30) as client:
            ids = [await submit(client, SHAPES[n % len(SHAPES)][0]) for n in range(WORKFLOWS // 2)]
            happening = asyncio.create_task(asyncio.to_thread(accident))
            ids += [await submit(client, SHAPES[n % len(SHAPES)][0]) for n in range(WORKFLOWS // 2, WORKFLOWS)]
            await happening
            await _ready_again(client)
            ended = await wait_for_end(client, ids, 60)
            assert Counter(view["status"] for view in ended.values()) == {"COMPLETED": WORKFLOWS}, cluster.logs()
            for n, execution_id in enumerate(ids):
                document, expected = SHAPES[n % len(SHAPES)]
                assert ended[execution_id]["output"] == expected
                await assert_ended_once(client, execution_id, document["nodes"])
        assert all(process.alive for process in cluster.processes), cluster.logs()
        await _compare(environment)
        for process in cluster.processes:
            process.kill()  # how they leave is another test's matter


async def _ready_again(client: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + 30
    while (answer := await client.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.1)


async def _compare(environment: dict[str, str]) -> None:
    """The oracle: Redis holds in every partition what its log says."""
    fields = {name.removeprefix("APP_").lower(): value for name, value in environment.items()}
    await assert_folded(Settings(_env_file=None, **fields))
