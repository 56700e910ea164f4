"""Creates topics on Kafka and checks that they are as they must be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from wf_core.broker import topics as names
from wf_core.broker.kafka_client import AWAY, options, unavailable
from wf_core.errors import SetupError
from wf_core.settings import Settings

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.05
_MAJORITY = 2  # of three replicas


async def ensure(settings: Settings, wanted: Mapping[str, int]) -> None:
    """Creates what is missing and waits until every partition has a leader. Raises as `Log.ensure_topics`."""
    client = AIOKafkaAdminClient(**options(settings))
    try:
        async with asyncio.timeout(settings.connect_seconds):
            await client.start()
            # All topics are listed: a broker may create one that is asked for by name, with its own defaults.
            present = {topic["topic"] for topic in await client.describe_topics()}
            if missing := {topic: count for topic, count in wanted.items() if topic not in present}:
                await _create(client, settings, missing)
            while not await _ready(client, wanted):  # noqa: ASYNC110 - only the broker knows, and it has to be asked
                await asyncio.sleep(_POLL_SECONDS)
    except AWAY as error:
        raise unavailable(settings, error) from error
    finally:
        await client.close()


async def _create(client: Any, settings: Settings, missing: Mapping[str, int]) -> None:
    new = [
        NewTopic(topic, count, settings.kafka_replication, topic_configs=_configuration(settings, topic))
        for topic, count in missing.items()
    ]
    response = await client.create_topics(new)
    for topic, code, *message in response.topic_errors:
        error = for_code(code)
        if error in (NoError, TopicAlreadyExistsError):
            continue
        if error.retriable:
            raise error(topic)
        raise SetupError(f"Kafka does not create the topic {topic}: {(message and message[0]) or error.message}")
    log.info("topics created", topics=dict(missing), replication=settings.kafka_replication)


def _configuration(settings: Settings, topic: str) -> dict[str, str]:
    configuration = {
        "cleanup.policy": "delete",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(_MAJORITY if settings.kafka_replication > _MAJORITY else 1),
    }
    if topic == names.meta(settings.namespace):
        configuration |= {"retention.ms": "-1", "retention.bytes": "-1"}  # record 0 names the log for ever
    return configuration


async def _ready(client: Any, wanted: Mapping[str, int]) -> bool:
    """Whether every partition has a leader. A topic that was just created may not be known everywhere yet."""
    found = {topic["topic"]: topic for topic in await client.describe_topics(list(wanted))}
    for name, count in wanted.items():
        topic = found.get(name)
        if topic is None or topic["error_code"]:
            return False
        partitions = topic["partitions"]
        if len(partitions) != count:
            raise SetupError(
                f"the topic {name} has {len(partitions)} partitions and not {count}; the number is fixed when the "
                "topic is created: set it as it was, or use another namespace"
            )
        if any(partition["error_code"] or partition["leader"] < 0 for partition in partitions):
            return False
    return True
