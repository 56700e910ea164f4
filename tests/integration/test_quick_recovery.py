"""How soon work goes on after a death, and what must not be taken for one. `python -m bench.recovery` measures it.

The bounds here are wider than what is promised, since a busy machine starts processes late.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from wf_testservers.cluster import Cluster, EngineProcess, wait_for_end
from wf_testservers.engine import environment
from wf_testservers.redis import RedisServer

TASKS = '''
import os, time
from pathlib import Path
from wf_core import TaskContext, task


@task("test.block")
async def block(seconds: float) -> str:
    """Blocks the loop of its process."""
    time.sleep(seconds)
    return "blocked"


@task("test.exit")
async def leave(file: str, code: int, ctx: TaskContext) -> int:
    """Ends its process, the first time, having noted when."""
    if ctx.attempt == 1:
        Path(file).write_text(str(time.time()))
        os._exit(code)
    return ctx.attempt
'''
LONGER_THAN_DEATH = 4.0


def one(task: str, **params: Any) -> dict[str, Any]:
    """A workflow of one node."""
    return {"name": "one", "nodes": {"a": {"task": task, "params": params}}, "output": "${{ nodes.a.output }}"}


@pytest.fixture(scope="module", params=["redis", "kafka"])
def engine_of_two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API, two orchestrators and two workers, which a test may kill and starts again."""
    folder: Path = tmp_path_factory.mktemp(f"recovery-{request.param}")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "tasks.py").write_text(TASKS)
    with Cluster(environment(request, request.param), folder) as cluster:
        cluster.start("api")
        for _ in range(2):
            cluster.start("orchestrator")
            cluster.start("worker", APP_WORKER_TASK_PATHS=str(folder / "tasks"))
        asyncio.run(cluster.ready(workers=2))
        yield cluster


class Site:
    """The engine as a test sees it."""

    def __init__(self, cluster: Cluster, client: httpx.AsyncClient) -> None:
        self.cluster = cluster
        self.client = client

    async def submit(self, document: dict[str, Any]) -> str:
        """Starts an execution; its id. Tries again while the engine is not ready."""

        async def accepted() -> str:
            answer = await self.client.post("/workflow?trigger=true", json=document)
            return "" if answer.status_code == 503 else str(answer.raise_for_status().json()["execution_id"])

        return str(await self.until("the execution is accepted", accepted))

    async def until(self, what: str, holds: Callable[[], Any], seconds: float = 20) -> Any:
        """Waits until `holds()` gives something true and returns it; fails naming `what`."""
        deadline = time.monotonic() + seconds
        while not (found := await holds()):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self.cluster.logs()}"
            await asyncio.sleep(0.02)
        return found

    async def node(self, execution: str) -> dict[str, Any]:
        """The node `a`."""
        found: dict[str, Any] = (await self.client.get(f"/workflows/{execution}/nodes/a")).raise_for_status().json()
        return found

    async def running(self, execution: str) -> EngineProcess:
        """The process of the worker that runs node `a`, as soon as one does."""

        async def worker() -> str:
            node = await self.node(execution)
            return str(node["worker"]) if node["status"] == "RUNNING" else ""

        name = str(await self.until("an attempt runs", worker))
        return next(p for p in self.cluster.of("worker") if f"-{p.process.pid}-" in name)

    async def end(self, execution: str) -> dict[str, Any]:
        """The execution, completed; else fails."""
        view = (await wait_for_end(self.client, [execution], 30))[execution]
        assert view["status"] == "COMPLETED", (view, self.cluster.logs())
        return view

    async def dispatched(self, execution: str, attempt: int) -> float:
        """When an attempt of node `a` was dispatched, in Unix seconds."""
        events = (await self.client.get(f"/workflows/{execution}/events")).raise_for_status().json()["items"]
        (found,) = [e["ts"] for e in events if e["kind"] == "node.queued" and e["attempt"] == attempt]
        return datetime.fromisoformat(found).timestamp()


@pytest_asyncio.fixture
async def site(engine_of_two: Cluster) -> AsyncIterator[Site]:
    """The engine, whole again when the test has ended."""
    async with httpx.AsyncClient(base_url=engine_of_two.url, timeout=20) as client:
        yield Site(engine_of_two, client)
    for process in engine_of_two.processes:
        if not process.alive:
            process.restart()
    await engine_of_two.ready(workers=2)


async def test_a_child_that_ends(site: Site, tmp_path: Path):
    """The next attempt is dispatched at once (0.3 s), and the lost one says how its process ended."""
    execution = await site.submit(one("test.exit", file=str(tmp_path / "at"), code=3))
    assert (await site.end(execution))["output"] == 2
    ended = float((tmp_path / "at").read_text())
    assert await site.dispatched(execution, 2) - ended < 1
    (lost, completed) = (await site.node(execution))["history"]
    assert (lost["status"], completed["status"]) == ("LOST", "COMPLETED")
    assert "its process ended with exit code 3" in lost["error"]["message"]


async def test_a_worker_that_is_killed(site: Site):
    """The next attempt is dispatched within 3 s: a death time, and a look at the heartbeats."""
    execution = await site.submit(one("core.sleep", seconds=2))
    worker = await site.running(execution)
    worker.kill()
    killed = time.time()
    await site.end(execution)
    assert 1 < await site.dispatched(execution, 2) - killed < 5


async def test_an_orchestrator_that_is_killed(site: Site):
    """Its partitions are served again within 3 s: everything that is submitted meanwhile completes."""
    site.cluster.of("orchestrator")[0].kill()
    killed = time.time()
    ids = await asyncio.gather(*(site.submit(one("core.echo", value=n)) for n in range(24)))
    ended = await wait_for_end(site.client, list(ids), 30)
    assert max(datetime.fromisoformat(view["ended_at"]).timestamp() for view in ended.values()) - killed < 6


async def test_redis_that_is_killed(site: Site, redis_server: RedisServer):
    """When Redis answers again work goes on within 2 s, and what ran meanwhile ran once."""
    execution = await site.submit(one("core.sleep", seconds=3))
    await site.running(execution)
    redis_server.restart()
    back = time.time()
    assert (await site.end(await site.submit(one("core.echo", value=1))))["output"] == 1
    assert time.time() - back < 5
    await site.end(execution)
    assert (await site.node(execution))["attempts"] == 1


async def test_a_blocked_loop_is_no_death(site: Site):
    """User code that blocks the loop of its process for longer than a death time is not lost."""
    execution = await site.submit(one("test.block", seconds=LONGER_THAN_DEATH))
    assert (await site.end(execution))["output"] == "blocked"
    assert (await site.node(execution))["attempts"] == 1


async def test_a_pause_is_no_death(site: Site):
    """A worker that stands still for less than a death time loses nothing."""
    execution = await site.submit(one("core.sleep", seconds=LONGER_THAN_DEATH))
    worker = await site.running(execution)
    for _ in range(2):
        worker.process.pause()
        await asyncio.sleep(1.2)
        worker.process.resume()
        await asyncio.sleep(0.5)
    await site.end(execution)
    assert (await site.node(execution))["attempts"] == 1


@pytest.fixture
def busy() -> Iterator[None]:
    """Two processes a core that want all of it, at the lowest priority."""
    spin = [sys.executable, "-c", "import os; os.nice(19)\nwhile True: pass"]
    spinners = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for spinner in spinners:
        spinner.kill()
        spinner.wait()


@pytest.mark.usefixtures("busy")
async def test_a_busy_machine_is_no_death(site: Site):
    """Attempts run on although every core is busy with other work for longer than a death time."""
    ids = [await site.submit(one("core.sleep", seconds=LONGER_THAN_DEATH)) for _ in range(4)]
    for execution in ids:
        await site.end(execution)
    assert [(await site.node(execution))["attempts"] for execution in ids] == [1] * 4
