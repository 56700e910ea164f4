"""Redis is lost, or older than the log: it is restored from the log, and what was in the middle goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from wf_testservers.cluster import Cluster, wait_for_end
from wf_testservers.engine import variables
from wf_testservers.kafka import KafkaServer, start_kafka
from wf_testservers.redis import RedisServer, start_redis

QUICK = {
    "name": "quick",
    "nodes": {
        "a": {"task": "core.echo", "params": {"value": 20}},
        "b": {"task": "core.echo", "params": {"value": "${{ nodes.a.output + 1 }}"}},
    },
    "output": "${{ nodes.b.output }}",
}
SLOW = {
    "name": "slow",
    "nodes": {
        f"n{n}": {
            "task": "core.sleep",
            "depends_on": [f"n{n - 1}"] if n else [],
            "params": {"seconds": 0.3, "value": n},
        }
        for n in range(10)
    },
    "output": "${{ nodes.n9.output }}",
}


@dataclass
class Site:
    """An installation on servers of its own."""

    cluster: Cluster
    redis: RedisServer
    kafka: KafkaServer | None

    async def open(self) -> None:
        """Starts an API, an orchestrator and a worker."""
        for kind in ("api", "orchestrator", "worker"):
            self.cluster.start(kind)
        await self.cluster.ready(workers=1)

    def kill(self) -> None:
        """Everything but the servers dies at once."""
        for process in self.cluster.processes:
            process.kill()
        self.cluster.processes.clear()

    def wf(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One run of the command line on these servers."""
        return subprocess.run(
            [sys.executable, "-m", "wf_core.cli", *arguments],
            env={**os.environ, **self.cluster.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def forget(self) -> None:
        """Redis loses everything."""
        with redis.Redis(port=self.redis.port) as client:
            client.flushall()


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Redis of its own, and Kafka unless the test asks for the redis log."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(start_redis(tmp_path / "redis"))
        kafka = None
        if getattr(request, "param", "kafka") == "kafka":
            (tmp_path / "kafka").mkdir()
            kafka = stack.enter_context(start_kafka(tmp_path / "kafka"))
        cluster = Cluster(variables(server.port, kafka.bootstrap if kafka else None), tmp_path)
        yield Site(stack.enter_context(cluster), server, kafka)


async def submit(site: Site, document: dict[str, Any], *, trigger: bool = True) -> str:
    """The id of a new execution."""
    async with httpx.AsyncClient(base_url=site.cluster.url, timeout=30) as client:
        answer = await client.post(f"/workflow?trigger={str(trigger).lower()}", json=document)
        found: str = answer.raise_for_status().json()["execution_id"]
        return found


async def ended(site: Site, ids: list[str]) -> dict[str, tuple[str, Any]]:
    """Status and output of each execution, once all have ended."""
    async with httpx.AsyncClient(base_url=site.cluster.url, timeout=30) as client:
        found = await wait_for_end(client, ids, 90)
        return {execution_id: (view["status"], view["output"]) for execution_id, view in found.items()}


async def known(site: Site, ids: list[str]) -> None:
    """Returns once all of them exist again: whoever folds the log comes to one after the other."""
    async with httpx.AsyncClient(base_url=site.cluster.url, timeout=30) as client:
        for execution_id in ids:
            for _ in range(300):
                if (await client.get(f"/workflows/{execution_id}")).status_code != 404:
                    break
                await asyncio.sleep(0.1)


async def read(site: Site, execution_id: str) -> list[Any]:
    """Everything that the API shows of an execution."""
    async with httpx.AsyncClient(base_url=site.cluster.url, timeout=30) as client:
        paths = ("", "/results", "/nodes", "/nodes/b", "/events", "/definition")
        return [(await client.get(f"/workflows/{execution_id}{path}")).raise_for_status().json() for path in paths]


def equal(site: Site) -> None:
    """Fails unless every partition is what its log says."""
    done = site.wf("verify", "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)
    assert [r["state"] for r in reports] == ["equal"] * 8, reports


@pytest.mark.timeout(300)
async def test_an_emptied_redis_is_rebuilt_from_the_log(site: Site):
    """Finished executions read as before, the others go on where they were, and nothing runs twice."""
    await site.open()
    finished = [await submit(site, QUICK) for _ in range(6)]
    await ended(site, finished)
    waiting = await submit(site, QUICK, trigger=False)
    running = [await submit(site, SLOW) for _ in range(4)]
    await asyncio.sleep(1)  # in the middle of the chains
    before = [await read(site, execution_id) for execution_id in finished]
    messages = committed(site)
    assert messages >= len(finished) + len(running)
    refused = site.wf("rebuild")
    assert refused.returncode == 2, refused.stdout
    assert "1 orchestrators and 1 workers are" in refused.stderr
    site.kill()
    site.forget()

    checked = site.wf("rebuild", "--check", "-o", "json")
    assert checked.returncode == 0, checked.stderr
    assert sum(place["end"] - place["offset"] for place in json.loads(checked.stdout)) > 40
    with redis.Redis(port=site.redis.port) as client:
        assert client.dbsize() == 0, "a check changed something"
    rebuilt = site.wf("rebuild", "-o", "json")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert sum(report["executions"] for report in json.loads(rebuilt.stdout)) == 11
    assert [place["state"] for place in json.loads(site.wf("rebuild", "--check", "-o", "json").stdout)] == [
        "current"
    ] * 8

    await site.open()
    assert [await read(site, execution_id) for execution_id in finished] == before
    assert await ended(site, running) == dict.fromkeys(running, ("COMPLETED", 9))
    async with httpx.AsyncClient(base_url=site.cluster.url, timeout=30) as client:
        (await client.post(f"/workflow/trigger/{waiting}")).raise_for_status()
    assert await ended(site, [waiting]) == {waiting: ("COMPLETED", 21)}
    assert committed(site) > messages, "the offsets of the old messages were not skipped"
    equal(site)


def committed(site: Site) -> int:
    """Task messages that workers have taken, or began behind."""
    with redis.Redis(port=site.redis.port) as client:
        namespace = site.cluster.environment["APP_NAMESPACE"]
        return sum(int(client.hget(f"{namespace}:{{t:default:{n}}}", "off") or 0) for n in range(8))


@pytest.mark.timeout(300)
async def test_a_backup_of_redis_is_caught_up_by_orchestrators_alone(site: Site, tmp_path: Path):
    """What happened since the backup comes from the log: results of then are there, and nothing is lost."""
    await site.open()
    early = [await submit(site, QUICK) for _ in range(4)]
    await ended(site, early)
    crossing = [await submit(site, SLOW) for _ in range(3)]
    await asyncio.sleep(1)  # in the middle of the chains
    site.redis.kill()
    shutil.copytree(site.redis.directory, tmp_path / "backup")
    site.redis.start()
    late = [await submit(site, QUICK) for _ in range(4)]
    await ended(site, late + crossing)
    before = [await read(site, execution_id) for execution_id in early + late]
    site.kill()
    site.redis.kill()
    shutil.rmtree(site.redis.directory)
    shutil.copytree(tmp_path / "backup", site.redis.directory)
    site.redis.start()

    checked = json.loads(site.wf("rebuild", "--check", "-o", "json").stdout)
    assert {place["state"] for place in checked} <= {"behind", "current"}
    assert any(place["state"] == "behind" for place in checked)
    await site.open()
    everything = early + late
    await known(site, everything)
    assert set((await ended(site, everything)).values()) == {("COMPLETED", 21)}
    assert await ended(site, crossing) == dict.fromkeys(crossing, ("COMPLETED", 9))
    assert [await read(site, execution_id) for execution_id in everything] == before
    equal(site)


@pytest.mark.parametrize("site", ["redis"], indirect=True)
async def test_the_redis_log_is_lost_with_redis_and_that_is_said(site: Site):
    """There is nothing to rebuild from, and the command says what to restore instead."""
    await site.open()
    await ended(site, [await submit(site, QUICK)])
    equal(site)
    site.kill()
    site.forget()
    refused = site.wf("rebuild")
    assert refused.returncode == 2
    assert "keeps it in this very Redis" in refused.stderr
    assert "Traceback" not in refused.stderr
    nothing = site.wf("verify")
    assert nothing.returncode == 2
    assert "nothing is installed" in nothing.stderr


@pytest.mark.parametrize("site", ["redis"], indirect=True)
async def test_a_difference_is_found_while_the_engine_works(site: Site):
    """`wf verify` finds nothing wrong with an engine at work, and every byte that somebody changed."""
    await site.open()
    running = [await submit(site, SLOW) for _ in range(8)]
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        equal(site)
    await ended(site, running)
    with redis.Redis(port=site.redis.port) as client:
        (key,) = client.scan_iter(match=f"*:x:{running[0]}", count=1000)
        client.hset(key, "status", "FAILED")
        client.delete(*client.scan_iter(match=f"*:h:{running[1]}", count=1000))
    done = site.wf("verify")
    assert done.returncode == 1
    assert "different" in done.stdout
    assert f"x:{running[0]} status: the log says COMPLETED, Redis holds FAILED" in done.stderr
    assert f"h:{running[1]}" in done.stderr
    partitions = [int(r["partition"]) for r in json.loads(site.wf("verify", "-o", "json").stdout) if r["differences"]]
    others = [argument for p in range(8) if p not in partitions for argument in ("--partition", str(p))]
    assert site.wf("verify", *others).returncode == 0


@pytest.mark.parametrize("site", ["redis"], indirect=True)
async def test_servers_that_are_away_are_named(site: Site):
    """Without Redis both commands end soon, with a sentence and exit code 4."""
    site.redis.kill()
    for arguments in (("verify",), ("rebuild", "--check"), ("rebuild",)):
        done = site.wf(*arguments)
        assert done.returncode == 4, done.stdout + done.stderr
        assert f"127.0.0.1:{site.redis.port}" in done.stderr
        assert "Traceback" not in done.stderr
