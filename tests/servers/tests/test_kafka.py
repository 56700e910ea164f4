"""Kafka's servers: several brokers as one, and a broker whose clients come through a proxy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError
from wf_testservers import Proxy, start_kafka, start_kafka_cluster
from wf_testservers.kafka import choose
from wf_testservers.process import ServerError, free_port


@pytest.fixture(autouse=True)
def apache() -> None:
    """What is tested here only Apache Kafka can do."""
    kind, why = choose()
    if kind != "apache":
        pytest.skip(f"needs Apache Kafka of our own, and this is {why}")


async def brokers(bootstrap: str) -> set[int]:
    """The ports of the brokers that the first one which answers names to its clients."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await client.bootstrap()
        return {broker.port for broker in client.cluster.brokers()}
    finally:
        await client.close()


async def test_brokers_of_a_cluster_are_killed_and_started_one_by_one(tmp_path: Path):
    """All are named in `bootstrap`; the cluster answers while one is dead, and that one joins again."""
    with start_kafka_cluster(tmp_path) as cluster:
        assert await brokers(cluster.bootstrap) == {node.port for node in cluster.nodes}
        node = cluster.node(2)
        node.process.kill()
        others = {other.port for other in cluster.nodes if other is not node}
        assert await brokers(f"127.0.0.1:{others.pop()}") >= others
        node.start()
        async with asyncio.timeout(30):
            while node.port not in await brokers(f"127.0.0.1:{node.port}"):  # noqa: ASYNC110 - only the broker knows
                await asyncio.sleep(0.1)
    assert not any(node.process.running for node in cluster.nodes)


async def test_clients_come_to_the_port_that_is_advertised(tmp_path: Path):
    """Through the proxy and only through it: whoever asks the broker itself is sent there too."""
    port = free_port()
    with start_kafka(tmp_path, advertised=port) as kafka, Proxy(("127.0.0.1", kafka.node.port), port) as proxy:
        assert await brokers(kafka.bootstrap) == await brokers(f"127.0.0.1:{kafka.node.port}") == {port}
        proxy.half_open()
        with pytest.raises(KafkaConnectionError):
            await brokers(kafka.bootstrap)


def test_a_stand_in_is_not_put_behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It cannot be told what to advertise, and it is one broker: both are refused with the reason."""
    monkeypatch.delenv("WF_REQUIRE_KAFKA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match=r"behind a proxy.*no java"), start_kafka(tmp_path, advertised=1):
        pass
    with pytest.raises(ServerError, match=r"cluster.*no java"), start_kafka_cluster(tmp_path):
        pass
