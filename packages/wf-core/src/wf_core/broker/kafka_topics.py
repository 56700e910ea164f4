"""Creates topics on Kafka and examines those that are there; the rules are in `kafka_rules`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from wf_core.broker import kafka_rules
from wf_core.broker.kafka_client import AWAY, CALL_SECONDS, options, unavailable
from wf_core.broker.kafka_rules import Described
from wf_core.broker.protocol import TopicProblem, missing_topic
from wf_core.errors import SetupError
from wf_core.settings import Settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

_POLL_SECONDS = 0.05
_RETRY_SECONDS = 0.2


async def ensure(settings: Settings, wanted: Mapping[str, int]) -> None:
    """Creates what is missing and waits until every partition has a leader. Raises as `Log.ensure_topics`."""

    async def work(client: Any) -> list[TopicProblem]:
        # All topics are listed: a broker may create one that is asked for by name, with its own defaults.
        present = {topic["topic"] for topic in await client.describe_topics()}
        if missing := {topic: count for topic, count in wanted.items() if topic not in present}:
            await _create(client, settings, missing)
        while not await _ready(client, wanted):  # noqa: ASYNC110 - only the broker knows, and it has to be asked
            await asyncio.sleep(_POLL_SECONDS)
        return await _problems(client, settings, wanted)

    problems = await _ask(settings, work)
    if fatal := [str(problem) for problem in problems if problem.fatal]:
        raise SetupError(". ".join(fatal))
    for problem in problems:
        log.warning("topic in danger", topic=problem.topic, found=problem.found, remedy=problem.remedy)


async def examine(settings: Settings, wanted: Mapping[str, int]) -> list[TopicProblem]:
    """What is wrong with the topics, those that are missing first."""

    async def work(client: Any) -> list[TopicProblem]:
        present = {topic["topic"] for topic in await client.describe_topics()}
        missing = [missing_topic(topic) for topic in wanted if topic not in present]
        there = {topic: count for topic, count in wanted.items() if topic in present}
        return missing + await _problems(client, settings, there)

    return await _ask(settings, work)


async def _ask(settings: Settings, work: Callable[[Any], Awaitable[T]]) -> T:
    """The answer of any broker: aiokafka asks one at random, once, and for a while that may be one that is dead."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    while True:
        client = AIOKafkaAdminClient(**options(settings))
        try:
            async with asyncio.timeout_at(begun + settings.connect_seconds):
                await client.start()
                return await work(client)
        except AWAY as error:
            if clock() - begun > min(CALL_SECONDS, settings.connect_seconds):
                raise unavailable(settings, error) from error
        finally:
            await client.close()
        await asyncio.sleep(_RETRY_SECONDS)


async def _create(client: Any, settings: Settings, missing: Mapping[str, int]) -> None:
    new = [
        NewTopic(topic, count, settings.kafka_replication, topic_configs=kafka_rules.new(settings, topic))
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


async def _ready(client: Any, wanted: Mapping[str, int]) -> bool:
    """Whether every partition has a leader. A topic that was just created may not be known everywhere yet."""
    found = {topic["topic"]: topic for topic in await client.describe_topics(list(wanted))}
    for name in wanted:
        topic = found.get(name)
        if topic is None or topic["error_code"]:
            return False
        # one with another number of partitions will not get more: that is for the rules to say
        if any(partition["error_code"] or partition["leader"] < 0 for partition in topic["partitions"]):
            return False
    return True


async def _problems(client: Any, settings: Settings, wanted: Mapping[str, int]) -> list[TopicProblem]:
    configured = await _settings_of(client, list(wanted))
    problems: list[TopicProblem] = []
    for topic in await client.describe_topics(list(wanted)) if wanted else ():
        name, partitions = topic["topic"], topic["partitions"]
        replicas, in_sync = ([len(partition[key]) for partition in partitions] for key in ("replicas", "isr"))
        described = Described(name, replicas, in_sync, configured.get(name, {}))
        problems.extend(kafka_rules.examine(settings, described, wanted[name]))
    return problems


async def _settings_of(client: Any, topics: list[str]) -> dict[str, dict[str, str]]:
    """Settings by topic; of a topic that we may not ask about, none."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(kafka_rules.SETTINGS)) for topic in topics]
    found: dict[str, dict[str, str]] = {}
    for response in await client.describe_configs(asked):
        for resource in response.to_object()["resources"]:
            if resource["error_code"]:
                reason = for_code(resource["error_code"]).__name__
                log.warning("topic cannot be examined", topic=resource["resource_name"], error=reason)
                continue
            entries = resource["config_entries"]
            found[resource["resource_name"]] = {entry["config_names"]: entry["config_value"] for entry in entries}
    return found
