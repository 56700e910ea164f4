"""Three brokers, each killed in turn while workflows run: we are not restarted, nothing is lost or happens twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from caller import submit
from oracle import assert_ended_once, assert_folded
from wf_testservers import KafkaCluster, start_kafka_cluster, start_redis
from wf_testservers.cluster import Cluster, wait_for_end
from wf_testservers.engine import variables
from wf_testservers.kafka import choose

from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.settings import Settings
from wf_core.store.client import connect

PAUSE = 0.2
LEAST = 100
DIAMOND: dict[str, Any] = {
    "name": "diamond",
    "nodes": {
        "a": {"task": "core.echo", "params": {"value": 20}},
        "b": {"task": "core.sleep", "params": {"seconds": 0.2, "value": "${{ nodes.a.output + 1 }}"}},
        "c": {"task": "core.sleep", "params": {"seconds": 0.3, "value": "${{ nodes.a.output + 2 }}"}},
        "d": {"task": "core.echo", "params": {"value": "${{ nodes.b.output + nodes.c.output }}"}},
    },
    "output": "${{ nodes.d.output }}",
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[Cluster, KafkaCluster]]:
    """An engine on three brokers and one Redis, not started."""
    kind, why = choose()
    if kind != "apache":
        pytest.skip(f"three brokers need Apache Kafka of our own, and this is {why}")
    with ExitStack() as stack:
        redis = stack.enter_context(start_redis(tmp_path / "redis"))
        brokers = stack.enter_context(start_kafka_cluster(tmp_path / "kafka"))
        environment = variables(redis.port, brokers.bootstrap) | {"APP_KAFKA_REPLICATION": "3"}
        yield stack.enter_context(Cluster(environment, tmp_path)), brokers


@pytest.mark.timeout(240)
async def test_work_goes_on_while_one_broker_after_another_is_killed(
    engine: tuple[Cluster, KafkaCluster], monkeypatch: pytest.MonkeyPatch
):
    """All complete, each node once and at its first attempt, and every partition is the fold of its log."""
    cluster, brokers = engine
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    cluster.start("api")
    for kind in ("orchestrator", "worker"):
        for _ in range(2):
            cluster.start(kind)
    await cluster.ready(workers=2)
    ids: list[str] = []
    async with httpx.AsyncClient(base_url=cluster.url, timeout=30) as client:
        killing = asyncio.create_task(kill_each(brokers, lambda: len(ids)))
        while not killing.done() or len(ids) < LEAST:
            ids.append(await submit(client, DIAMOND))
            await asyncio.sleep(PAUSE)
        await killing
        ended = await wait_for_end(client, ids, 60)
        assert Counter(view["status"] for view in ended.values()) == {"COMPLETED": len(ids)}, cluster.logs()
        assert {view["output"] for view in ended.values()} == {43}
        assert len(set(ids)) == len(ids)
        for execution_id in ids:
            await check_history(client, execution_id)
    assert all(process.alive for process in cluster.processes), cluster.logs()
    await assert_folded(Settings())


async def kill_each(brokers: KafkaCluster, submitted: Callable[[], int]) -> None:
    """SIGKILL of each broker while work goes on; it is started again, and whole, before the next one dies."""
    for node in brokers.nodes:
        await asyncio.to_thread(node.process.kill)
        before = submitted()
        await until(lambda before=before: submitted() > before + 5, "submissions while a broker is dead")
        await asyncio.to_thread(node.start)
        async with asyncio.timeout(40):
            while await problems():  # noqa: ASYNC110 - only the brokers know
                await asyncio.sleep(0.1)


async def problems() -> list[Any]:
    """What is wrong with the events' topic: replicas that have not caught up."""
    settings = Settings()
    redis = connect(settings)
    log = open_log(settings, redis)
    try:
        return await log.examine_topics({topics.events(settings.namespace): settings.partitions})
    finally:
        await log.close()
        await redis.aclose()


async def check_history(client: httpx.AsyncClient, execution_id: str) -> None:
    """One terminal transition a node, and no attempt but the first."""
    await assert_ended_once(client, execution_id, DIAMOND["nodes"])
    nodes = (await client.get(f"/workflows/{execution_id}/nodes")).raise_for_status().json()["items"]
    assert {node["node"]: node["attempts"] for node in nodes} == dict.fromkeys(DIAMOND["nodes"], 1)


async def until(condition: Callable[[], bool], what: str, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.02)
