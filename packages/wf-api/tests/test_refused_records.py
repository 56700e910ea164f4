"""A broker may take less than we do: its own limit of a record's size."""

from __future__ import annotations

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from wf_core.broker import topics
from wf_core.settings import Settings

from .conftest import DOCUMENT, problem


@pytest.fixture
def log_driver() -> str:
    """Only Kafka has such a limit."""
    return "kafka"


@pytest.fixture
async def small(log_driver: str, settings: Settings) -> None:
    """The topic of events, made by somebody who lets it take 10 kB."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        name = topics.events(settings.namespace)
        await admin.create_topics(
            [NewTopic(name, settings.partitions, 1, topic_configs={"max.message.bytes": "10000"})]
        )
    finally:
        await admin.close()


async def test_a_record_that_the_broker_refuses(small: None, api: httpx.AsyncClient) -> None:
    """Is a 413 that says what became of the request; smaller ones pass."""
    key = {"Idempotency-Key": "k", "Prefer": "respond-async"}
    body = {"workflow": DOCUMENT, "input": {"text": "x" * 50_000}}
    wrong = problem(await api.post("/workflow", json=body, headers=key), 413, "too-large")
    assert "dead letters" in wrong["detail"]
    assert (await api.get(f"/workflows/{wrong['execution_id']}")).status_code == 200
    assert (await api.post("/workflow", json=DOCUMENT, headers={"Prefer": "respond-async"})).status_code == 201
