"""API, orchestrator and worker in one loop on a real Redis, in step: nothing is folded before all has been answered.

So the batches are those of a system that is full, in every run the same ones. What services do by the clock (leases,
sweeps, gauges) is not run, or not counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from unittest import mock

import httpx
from redis.asyncio import Redis

import wf_worker.service
from costs.executors import Executors
from wf_api.service import ApiService
from wf_core import ids, wire
from wf_core.broker import topics
from wf_core.settings import Settings
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_orchestrator.context import Context
from wf_orchestrator.loop import Loop
from wf_orchestrator.partition import Partition
from wf_orchestrator.service import OrchestratorService
from wf_orchestrator.work import Work
from wf_worker.service import WorkerService

_PATIENCE = 60.0
_HURRY = {"prefer": "respond-async"}


def settings(namespace: str, port: int) -> Settings:
    """One partition of each kind, a worker that takes a whole wave at once, and clocks that come in the way late."""
    return Settings(
        redis_host="127.0.0.1",
        redis_port=port,
        broker="redis",
        namespace=namespace,
        partitions=1,
        task_partitions=1,
        worker_slots=512,
        lease_seconds=600,
        death_seconds=600,
        orphan_seconds=600,
        api_port=0,
    )


class Engine:
    """A running installation, moved on by `settle`."""

    def __init__(self, redis: Redis, namespace: str, client: httpx.AsyncClient, partition: Partition, loop: Loop):
        self.redis = redis
        self.namespace = namespace
        self.keys = PartitionKeys.of(namespace, 0)
        self._installation = InstallationKeys(namespace)
        self._client = client
        self._partition = partition
        self._loop = loop

    def log(self, queue: str = "") -> str:
        """The stream with the events, or with the tasks of a queue."""
        topic = topics.tasks(self.namespace, queue) if queue else topics.events(self.namespace)
        return self._installation.log(topic, 0)

    async def submit(self, document: dict[str, Any], count: int = 1) -> list[str]:
        """Asks for executions, several in one request; their ids."""
        if count == 1:
            answer = await self._client.post("/workflow?trigger=true", json=document, headers=_HURRY)
            return [answer.raise_for_status().json()["execution_id"]]
        body = {"workflow": document, "inputs": [{}] * count, "trigger": True}
        answer = await self._client.post("/workflow/batch", json=body, headers=_HURRY)
        return [one["execution_id"] for one in answer.raise_for_status().json()["executions"]]

    async def settle(self) -> None:
        """Folds, and waits for the answers of all that is in flight, until nothing moves any more."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                waiting, unfolded = await self._look()
                if not waiting and not unfolded:
                    return
                if waiting:
                    await asyncio.sleep(0.002)
                else:
                    await self._loop.step()

    async def _look(self) -> tuple[set[str], int]:
        """What is in flight without a result in the log, and the number of records that are not folded."""
        waiting = {token.decode() for token in await self.redis.hkeys(self.keys.in_flight)}
        entries = await self.redis.xrange(self.log(), f"{self._partition.offset}-0")
        for _, fields in entries:
            record = wire.decode_event(fields[b"r"])
            if isinstance(record, wire.Result):
                waiting.discard(ids.token(record.execution, record.node, record.attempt))
                if record.begin is not None:
                    waiting.add(ids.token(record.execution, record.begin.node, record.begin.attempt))
        return waiting, len(entries)


async def _find_room(context: Context, work: Work) -> None:
    """Waits until the worker has said how many slots it has: a whole wave may then be sent at once."""
    async with asyncio.timeout(_PATIENCE):
        while not any(context.credits.room.free.values()):
            await work.look_for_room()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(redis: Redis, settings: Settings) -> AsyncIterator[Engine]:
    """The services, started, on their one partition. `redis` is the client with which it is looked at."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        orchestrator = OrchestratorService(settings)
        await orchestrator.start()
        assert orchestrator.context is not None
        work = Work(orchestrator.context)
        loop = Loop(orchestrator.context, work.ownership)
        stack.push_async_callback(loop.close)
        await work.ownership.beat()
        await work.ownership.balance()
        api = ApiService(settings)
        await api.start()
        with mock.patch.object(wf_worker.service, "Executors", Executors):
            worker = WorkerService(settings)
            await worker.start()
        services = [asyncio.ensure_future(service.run(stop)) for service in (api, worker)]
        await _find_room(orchestrator.context, work)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=api.url, timeout=30, trust_env=False))
        try:
            yield Engine(redis, settings.namespace, client, work.ownership.partitions[0], loop)
        finally:
            stop.set()
            await asyncio.gather(*services)
            await orchestrator.run(stop)  # stops at once, and gives everything back
