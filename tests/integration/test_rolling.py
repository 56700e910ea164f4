"""Everything is restarted in turn, as an upgrade does it, while work goes on."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from wf_testservers.cluster import Cluster, EngineProcess, wait_for_end

CHAIN = 6
LONG_SECONDS = 3
"""Longer than the workers' grace: what runs then is handed back."""
LONG_EVERY = 5
PAUSE = 0.2


def chain(number: int) -> dict[str, Any]:
    """No-ops in a row; now and then one beside them that takes long."""
    nodes: dict[str, Any] = {}
    for n in range(CHAIN):
        nodes[f"n{n}"] = {"task": "core.noop", "depends_on": [f"n{n - 1}"] if n else []}
    if number % LONG_EVERY == 0:
        nodes["long"] = {"task": "core.sleep", "params": {"seconds": LONG_SECONDS}}
    return {"name": "rolling", "nodes": nodes}


@dataclass
class Load:
    """A client that submits workflows one after the other, and tries again with the same key where it must."""

    client: httpx.AsyncClient
    ids: list[str] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)

    async def run(self, name: str) -> None:
        """Submits until it is cancelled."""
        number = 0
        while True:
            number += 1
            self.ids.append(await self._submit(f"{name}-{number}", chain(number)))
            await asyncio.sleep(PAUSE)

    async def _submit(self, key: str, document: dict[str, Any]) -> str:
        headers = {"idempotency-key": key, "prefer": "respond-async"}
        while True:
            try:
                answer = await self.client.post("/workflow?trigger=true", json=document, headers=headers)
            except httpx.TransportError as error:
                self.retried[type(error).__name__] += 1
                await asyncio.sleep(PAUSE)
                continue
            if answer.status_code != 503:
                found: str = answer.raise_for_status().json()["execution_id"]
                return found
            self.retried["503"] += 1
            await asyncio.sleep(PAUSE)


async def restart(process: EngineProcess) -> None:
    """SIGTERM, and when it has ended, the same command again."""
    process.process.terminate()
    async with asyncio.timeout(30):
        while process.alive:  # noqa: ASYNC110 - another process tells no event of ours
            await asyncio.sleep(0.02)
    process.restart()


async def orchestrators_ready(cluster: Cluster, number: int) -> None:
    """Waits until so many orchestrators are registered, as who restarts the next one does."""
    port = int(cluster.environment["APP_REDIS_PORT"])
    async with asyncio.timeout(30), Redis(port=port) as redis:
        while await redis.zcard(f"{cluster.environment['APP_NAMESPACE']}:orch") < number:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_everything_is_restarted_under_load(cluster: Cluster):
    """No execution fails, no attempt is lost to a silent worker, and steps are not held up for long."""
    api = cluster.start("api")
    orchestrators = [cluster.start("orchestrator") for _ in range(2)]
    workers = [cluster.start("worker", "--slots", "32", APP_WORKER_GRACE="1") for _ in range(2)]
    await cluster.ready(workers=2)
    async with httpx.AsyncClient(base_url=cluster.url, timeout=10) as client:
        load = Load(client)
        submitting = [asyncio.create_task(load.run(f"client{n}")) for n in range(2)]
        try:
            await asyncio.sleep(2)
            for process in [*workers, *orchestrators, api]:
                await restart(process)
                await cluster.ready(workers=2)
                await orchestrators_ready(cluster, len(orchestrators))
                await asyncio.sleep(1)
        finally:
            for task in submitting:
                task.cancel()
            ended_early = await asyncio.gather(*submitting, return_exceptions=True)
        assert [type(error) for error in ended_early] == [asyncio.CancelledError] * len(submitting), ended_early
        ended = await wait_for_end(client, load.ids, 60)
        assert len(set(load.ids)) == len(load.ids)
        assert Counter(view["status"] for view in ended.values()) == {"COMPLETED": len(load.ids)}
        losses: Counter[str] = Counter()
        steps: list[float] = []
        async for events in histories(client, load.ids):
            losses.update(event["data"]["reason"] for event in events if event["kind"] == "node.lost")
            steps += step_seconds(events)
    p99 = statistics.quantiles(steps, n=100)[98]
    print(  # noqa: T201 - the figure is what one wants to see of this test
        f"{len(load.ids)} executions; lost: {dict(losses)}; retried: {dict(load.retried)}; a step took "
        f"{statistics.median(steps) * 1000:.0f} ms (median), {p99:.2f} s (p99), {max(steps):.2f} s (worst)"
    )
    assert set(losses) <= {"drain"}, losses
    assert losses["drain"] > 0, "nothing was handed back: the test proves less than it says"
    assert p99 < 5


async def histories(client: httpx.AsyncClient, ids: list[str]) -> AsyncIterator[list[dict[str, Any]]]:
    """The events of each execution."""
    for execution_id in ids:
        page = (await client.get(f"/workflows/{execution_id}/events", params={"limit": 500})).raise_for_status().json()
        assert page["next_cursor"] is None
        yield page["items"]


def step_seconds(events: list[dict[str, Any]]) -> list[float]:
    """How long each step of the chain took: from the end of one no-op to the end of the next one."""
    ends = {
        event["node"]: datetime.fromisoformat(event["ts"]).timestamp()
        for event in events
        if event["node"] and event["status"] == "COMPLETED"
    }
    return [ends[f"n{n}"] - ends[f"n{n - 1}"] for n in range(1, CHAIN)]
