"""How quickly work goes on after a fault: kills processes and servers of a small cluster, again and again.

`python -m bench.recovery [--trials 20] [--log redis|kafka] [--fault NAME…]` prints a table in Markdown. Each trial
injects one fault at a random moment, reads from the executions' own times when work went on, and mends what it broke.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from wf_testservers.cluster import Cluster, EngineProcess
from wf_testservers.engine import variables
from wf_testservers.kafka import KafkaServer, start_kafka
from wf_testservers.redis import RedisServer, start_redis

from wf_core.ids import partition_of
from wf_core.store.keys import PartitionKeys

PARTITIONS = 8
WORKERS, ORCHESTRATORS = 3, 2
PROBE: dict[str, Any] = {"name": "probe", "nodes": {"a": {"task": "core.noop"}}}
_SLEEPERS = 9
"""Attempts that run when a worker or a child is killed: each worker holds some."""
_CHAINS = 4
_TICK = 0.02
_BOUND = 60.0


@dataclass
class Scene:
    """A cluster on servers of its own, and a client of its API."""

    cluster: Cluster
    client: httpx.AsyncClient
    redis_server: RedisServer
    kafka_server: KafkaServer | None

    async def until(self, what: str, holds: Callable[[], Awaitable[Any]]) -> Any:
        """Waits until `holds()` gives something true and returns it. Raises TimeoutError naming `what`."""
        deadline = time.monotonic() + _BOUND
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if found := await holds():
                    return found
            await asyncio.sleep(_TICK)
        raise TimeoutError(f"not within {_BOUND:g} s: {what}\n{self.cluster.logs()}")

    async def get(self, path: str, **params: Any) -> Any:
        """The JSON behind a path. Raises httpx.HTTPError for any other answer than success."""
        return (await self.client.get(path, params=params)).raise_for_status().json()

    async def submit(self, document: dict[str, Any]) -> str:
        """Starts an execution, without waiting for the fold; tries until the API takes it. Returns its id."""

        async def submitted() -> str:
            headers = {"prefer": "respond-async"}
            answer = await self.client.post("/workflow?trigger=true", json=document, headers=headers)
            return str(answer.raise_for_status().json()["execution_id"])

        return str(await self.until("an execution is accepted", submitted))

    async def cancel(self, executions: list[str]) -> None:
        """Ends what is still running."""
        for execution in executions:
            with contextlib.suppress(httpx.HTTPError):
                await self.client.post(f"/workflows/{execution}/cancel", headers={"prefer": "respond-async"})

    async def whole(self) -> None:
        """Starts what was killed; returns when every partition is owned and every worker has run something."""
        for process in self.cluster.processes:
            if not process.alive:
                process.restart()
        await self.until("every worker is free", self._workers_free)
        await self.until("the partitions are shared out", self._shared_out)
        ran: set[str] = set()
        while len(ran) < WORKERS:
            ran.update(await asyncio.gather(*(self._probe() for _ in range(_SLEEPERS))))

    async def _probe(self) -> str:
        """Runs something short; who ran it."""
        execution = await self.submit(PROBE)

        async def ended() -> str:
            node = await self.get(f"/workflows/{execution}/nodes/a")
            return str(node["worker"]) if node["ended_at"] else ""

        return str(await self.until("a probe ends", ended))

    async def _workers_free(self) -> bool:
        alive = [worker for worker in (await self.get("/workers"))["items"] if worker["alive"]]
        return len(alive) == WORKERS and all(worker["free"] == worker["slots"] for worker in alive)

    async def _shared_out(self) -> bool:
        owners: set[bytes] = set()
        async with Redis(host=self.redis_server.host, port=self.redis_server.port) as redis:
            for number in range(PARTITIONS):
                meta = PartitionKeys.of(self.cluster.environment["APP_NAMESPACE"], number).meta
                own, live = await redis.hmget(meta, "own", "live")
                owners.add(own.partition(b".")[0] if own and live == b"1" else b"")
        return b"" not in owners and len(owners) == ORCHESTRATORS


Figures = dict[str, float]
"""Seconds by what was waited for."""


# --- faults


async def worker_killed(scene: Scene) -> Figures:
    """SIGKILL of a worker's supervisor while it runs attempts."""
    async with _sleeping(scene) as by_worker:
        victim, executions = random.choice(list(by_worker.items()))
        process = next(p for p in scene.cluster.of("worker") if f"-{p.process.pid}-" in victim)
        killed = time.time()
        process.kill()
        return await _next_attempts(scene, executions, killed)


async def child_killed(scene: Scene) -> Figures:
    """SIGKILL of the process that runs a worker's tasks."""
    async with _sleeping(scene) as by_worker:
        victim, executions = random.choice(list(by_worker.items()))
        process = next(p for p in scene.cluster.of("worker") if f"-{p.process.pid}-" in victim)
        killed = time.time()
        for pid in _runners_of(process):
            os.kill(pid, signal.SIGKILL)
        return await _next_attempts(scene, executions, killed)


async def orchestrator_killed(scene: Scene) -> Figures:
    """SIGKILL of one of the orchestrators: until an execution in each partition completed."""
    process = random.choice(scene.cluster.of("orchestrator"))
    killed = time.time()
    process.kill()
    answered: dict[int, float] = {}
    waiting: dict[int, str] = {}
    while len(waiting) < PARTITIONS:
        execution = await scene.submit(PROBE)
        waiting.setdefault(partition_of(execution), execution)

    async def all_answered() -> bool:
        for partition, execution in list(waiting.items()):
            if ended := (await scene.get(f"/workflows/{execution}"))["ended_at"]:
                answered[partition] = _seconds(ended)
                del waiting[partition]
        return not waiting

    await scene.until("an execution in each partition ends", all_answered)
    return {"every partition folds": max(answered.values()) - killed}


async def redis_killed(scene: Scene) -> Figures:
    """SIGKILL of Redis, which is started again; counted from its first answer."""
    return await _server_killed(scene, scene.redis_server)


async def kafka_killed(scene: Scene) -> Figures:
    """SIGKILL of Kafka, which is started again; counted from when its port answers."""
    if scene.kafka_server is None:
        raise ValueError("there is no Kafka on the redis log")
    return await _server_killed(scene, scene.kafka_server)


async def api_killed(scene: Scene) -> Figures:
    """SIGKILL of the API, which is started again at once; the start of its process counts."""
    (process,) = scene.cluster.of("api")
    killed = time.time()
    process.kill()
    process.restart()
    await scene.submit(PROBE)
    return {"an execution is accepted": time.time() - killed}


FAULTS: dict[str, Callable[[Scene], Awaitable[Figures]]] = {
    "worker": worker_killed,
    "child": child_killed,
    "orchestrator": orchestrator_killed,
    "redis": redis_killed,
    "kafka": kafka_killed,
    "api": api_killed,
}


@contextlib.asynccontextmanager
async def _sleeping(scene: Scene) -> AsyncIterator[dict[str, list[str]]]:
    """Attempts that run: executions by worker."""
    document = {"name": "sleeper", "nodes": {"a": {"task": "core.sleep", "params": {"seconds": 30}}}}
    executions = [await scene.submit(document) for _ in range(_SLEEPERS)]
    try:
        nodes = {}
        for execution in executions:

            async def running(execution: str = execution) -> Any:
                node = await scene.get(f"/workflows/{execution}/nodes/a")
                return node if node["status"] == "RUNNING" else None

            nodes[execution] = await scene.until("a sleeper runs", running)
        await asyncio.sleep(random.uniform(0.5, 1.5))
        by_worker: dict[str, list[str]] = {}
        for execution, node in nodes.items():
            by_worker.setdefault(node["worker"], []).append(execution)
        yield by_worker
    finally:
        await scene.cancel(executions)


async def _next_attempts(scene: Scene, executions: list[str], killed: float) -> Figures:
    """When the last of the lost attempts was followed by the next one: dispatched, and seen to run."""

    async def follow(execution: str) -> tuple[float, float]:
        async def runs() -> bool:
            node = await scene.get(f"/workflows/{execution}/nodes/a")
            return bool(node["attempts"] > 1 and node["status"] == "RUNNING")

        await scene.until("the next attempt runs", runs)
        seen = time.time()
        events = (await scene.get(f"/workflows/{execution}/events"))["items"]
        queued = next(e for e in events if e["kind"] == "node.queued" and e["attempt"] == 2)  # noqa: PLR2004 - the next
        return _seconds(queued["ts"]) - killed, seen - killed

    found = await asyncio.gather(*map(follow, executions))
    return {"next attempt dispatched": max(d for d, _ in found), "next attempt started": max(s for _, s in found)}


async def _server_killed(scene: Scene, server: RedisServer | KafkaServer) -> Figures:
    """From the server's answer until an attempt that started after it has completed, and a new execution has."""
    nodes: dict[str, Any] = {}
    for n in range(200):
        before = [f"n{n - 1}"] if n else []
        nodes[f"n{n}"] = {"task": "core.sleep", "depends_on": before, "params": {"seconds": 0.05}}
    executions = [await scene.submit({"name": "chain", "nodes": nodes}) for _ in range(_CHAINS)]
    await asyncio.sleep(random.uniform(0.5, 1.0))
    server.kill()
    await asyncio.sleep(random.uniform(0.0, 2.0))
    await asyncio.to_thread(server.start)
    back = time.time()
    fresh = asyncio.create_task(_one_completes(scene))
    try:

        async def resumed() -> float | None:
            found = [t for execution in executions for t in await _ended_of(scene, execution, since=back)]
            return min(found, default=None)

        first = float(await scene.until("a node completes", resumed))
        return {"first node completed": first - back, "new execution completed": await fresh - back}
    finally:
        fresh.cancel()
        await scene.cancel(executions)


async def _ended_of(scene: Scene, execution: str, since: float) -> list[float]:
    """When nodes ended that had started after `since`."""
    nodes = (await scene.get(f"/workflows/{execution}/nodes", limit=200, status="COMPLETED"))["items"]
    return [_seconds(n["ended_at"]) for n in nodes if n["started_at"] and _seconds(n["started_at"]) > since]


async def _one_completes(scene: Scene) -> float:
    """When an execution ended that is submitted now."""
    execution = await scene.submit(PROBE)

    async def ended() -> Any:
        return (await scene.get(f"/workflows/{execution}"))["ended_at"]

    return _seconds(await scene.until("a new execution ends", ended))


def _runners_of(process: EngineProcess) -> list[int]:
    """The pids of the children of a worker that run its async and thread tasks."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.process.pid and b"\0runner\0" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# --- the run


@contextlib.contextmanager
def _servers(log: str, folder: Path) -> Iterator[tuple[RedisServer, KafkaServer | None]]:
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(start_redis(folder / "redis"))
        kafka = stack.enter_context(start_kafka(folder / "kafka")) if log == "kafka" else None
        yield redis, kafka


async def measure(log: str, faults: list[str], trials: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of each trial, by fault and by what was waited for."""
    figures: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name, _servers(log, Path(name)) as (redis, kafka):
        settings = variables(redis.port, kafka.bootstrap if kafka else None) | {"APP_PARTITIONS": str(PARTITIONS)}
        with Cluster(settings, Path(name)) as cluster:
            cluster.start("api")
            for _ in range(ORCHESTRATORS):
                cluster.start("orchestrator")
            for _ in range(WORKERS):
                cluster.start("worker", "--slots", "16")
            await cluster.ready(workers=WORKERS)
            async with httpx.AsyncClient(base_url=cluster.url, timeout=5) as client:
                scene = Scene(cluster, client, redis, kafka)
                for fault in faults:
                    for _ in range(trials):
                        await scene.whole()
                        for what, seconds in (await FAULTS[fault](scene)).items():
                            figures.setdefault((fault, what), []).append(seconds)
    return figures


def main() -> None:
    """Parses arguments, measures, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--log", choices=("redis", "kafka"), action="append", help="[default: both]")
    parser.add_argument("--fault", choices=tuple(FAULTS), nargs="+", default=list(FAULTS), help="[default: all]")
    said = parser.parse_args()
    print("| log | fault | until | p50, s | worst, s | trials |\n|---|---|---|---|---|---|")
    for log in said.log or ("redis", "kafka"):
        faults = [fault for fault in said.fault if log == "kafka" or fault != "kafka"]
        for (fault, what), seconds in asyncio.run(measure(log, faults, said.trials)).items():
            middle, worst = statistics.median(seconds), max(seconds)
            print(f"| {log} | {fault} | {what} | {middle:.2f} | {worst:.2f} | {len(seconds)} |", flush=True)


if __name__ == "__main__":
    main()
