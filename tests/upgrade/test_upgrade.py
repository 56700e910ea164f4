"""Old and new releases live together: a rolling upgrade loses nothing, in whatever order the services are upgraded.

The old release is the code of the commit that the file BASELINE names: what was published last. Its processes run from
a folder of their own, with that folder in front of everything installed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from wf_testservers.cluster import Cluster, EngineProcess, wait_for_end

from wf_core.broker.open import open_log
from wf_core.settings import Settings
from wf_core.store.client import connect
from wf_core.store.keys import PartitionKeys
from wf_orchestrator.verify import verify

HERE = Path(__file__).parent
SERVICES = ("wf_core", "wf_api", "wf_orchestrator", "wf_worker", "wf_tasks_builtin")
RETRIED = {
    "name": "retried",
    "defaults": {"retry": {"delay": "200ms", "max_retries": 3}},
    "nodes": {
        "a": {"task": "core.fail", "params": {"times": 2, "value": 20}},
        "b": {"task": "core.sleep", "params": {"seconds": 0.3, "value": "${{ nodes.a.output + 1 }}"}},
        "c": {"task": "core.echo", "params": {"value": "${{ nodes.a.output + nodes.b.output }}"}},
    },
    "output": "${{ nodes.c.output }}",
}
LONG = {"name": "long", "nodes": {"a": {"task": "core.sleep", "params": {"seconds": 1.5, "value": 7}}}}
EXPECTED = {"retried": 41, "long": 7}


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A git command on this repository; skips the test where there is neither git nor a repository."""
    command = ["git", "-C", str(HERE.parents[1]), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("git is not installed")


BASELINE = (HERE / "BASELINE").read_text().strip()


@pytest.fixture(scope="session")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH of the old release's packages."""
    found = git("rev-parse", "--verify", "--quiet", f"{BASELINE}^{{commit}}")
    if found.returncode:
        pytest.skip(f"this clone has no commit {BASELINE}: fetch the whole history")
    commit = found.stdout.decode().strip()
    folder = tmp_path_factory.mktemp(commit[:8])
    archive = folder / "packages.tar"
    archive.write_bytes(git("archive", "--prefix=old/", commit, "packages").stdout)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    path = os.pathsep.join(str(source) for source in sorted(folder.glob("old/packages/*/src")))
    runs = f"import {', '.join(SERVICES)}; print({', '.join(f'{name}.__file__' for name in SERVICES)})"
    environment = {**os.environ, "PYTHONPATH": path}
    found = subprocess.run([sys.executable, "-c", runs], env=environment, capture_output=True, check=True, timeout=60)
    assert all(file.startswith(str(folder)) for file in found.stdout.decode().split()), "the old code does not run"
    return path


class Client:
    """What a user of the API does while the operator upgrades."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ids: list[str] = []

    async def submit(self, count: int) -> None:
        """Triggers so many workflows of each kind."""
        async with httpx.AsyncClient(base_url=self._cluster.url, timeout=30) as client:
            for _ in range(count):
                for document in (RETRIED, LONG):
                    answer = await client.post("/workflow?trigger=true", json=document)
                    assert answer.status_code == 201, answer.text
                    self._ids.append(answer.json()["execution_id"])

    async def completed(self) -> None:
        """All that was triggered completed, with the right outputs."""
        async with httpx.AsyncClient(base_url=self._cluster.url, timeout=30) as client:
            ended = await wait_for_end(client, self._ids, 90)
        assert {view["status"] for view in ended.values()} == {"COMPLETED"}, self._cluster.logs()
        for view in ended.values():
            assert view["output"] == EXPECTED[view["name"]]


@pytest.fixture
def client(cluster: Cluster) -> Client:
    """Runs workflows on the cluster."""
    return Client(cluster)


async def until_owned(redis: Redis, keys: PartitionKeys) -> None:
    """Returns when someone alive has the partition."""
    for _ in range(400):
        if int(await redis.hget(keys.meta, "lease") or 0) > time.time() * 1000:  # type: ignore[misc]
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"nobody has {keys.prefix}")


async def verified(cluster: Cluster) -> None:
    """Redis holds what the new release's fold of the whole log gives."""
    variables = {name.removeprefix("APP_").lower(): value for name, value in cluster.environment.items()}
    variables = {name: SecretStr(value) if name == "redis_url" else value for name, value in variables.items()}
    settings = Settings(**variables)
    redis = connect(settings)
    log = open_log(settings, redis)
    await log.start()
    try:
        for number in range(settings.partitions):
            await until_owned(redis, PartitionKeys.of(settings.namespace, number))
            assert await verify(redis, log, settings.namespace, number) == []
    finally:
        await log.close()
        await redis.aclose()


def start(cluster: Cluster, kind: str, code: str = "") -> EngineProcess:
    """A service of this release, or of the one whose `code` is given."""
    arguments = ("--slots", "8") if kind == "worker" else ()
    return cluster.start(kind, *arguments, **({"PYTHONPATH": code} if code else {}))


@pytest.mark.timeout(240)
async def test_workers_are_upgraded_last(cluster: Cluster, client: Client, old_code: str):
    """Workers of the last release serve a new orchestrator and API; one is killed, a new one takes its place."""
    start(cluster, "api")
    start(cluster, "orchestrator")
    old = [start(cluster, "worker", old_code) for _ in range(2)]
    await cluster.ready(workers=2)
    await client.submit(6)
    old[0].kill()
    await client.submit(2)
    start(cluster, "worker")
    await client.submit(2)
    await client.completed()
    await verified(cluster)


@pytest.mark.timeout(240)
async def test_orchestrators_are_upgraded_one_after_the_other(cluster: Cluster, client: Client, old_code: str):
    """An old and a new orchestrator share the partitions; the old one is killed, and the new one has everything."""
    start(cluster, "api")
    old = start(cluster, "orchestrator", old_code)
    start(cluster, "worker")
    await cluster.ready(workers=1)
    await client.submit(4)
    await client.completed()
    start(cluster, "orchestrator")
    await client.submit(4)
    old.kill()
    await client.submit(2)
    await client.completed()
    await verified(cluster)


@pytest.mark.timeout(240)
async def test_the_api_is_upgraded_last(cluster: Cluster, client: Client, old_code: str):
    """What the last release's API accepts is done by new orchestrators and workers."""
    start(cluster, "api", old_code)
    start(cluster, "orchestrator")
    start(cluster, "worker")
    await cluster.ready(workers=1)
    await client.submit(3)
    await client.completed()
    await verified(cluster)
