"""The log on Apache Kafka, or on any broker that speaks its protocol. No groups, no transactions, no idempotence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaTimeoutError
from redis.asyncio import Redis

from wf_core.broker import kafka_topics
from wf_core.broker.group_commit import GroupCommit
from wf_core.broker.kafka_client import Replaceable, options
from wf_core.broker.kafka_producer import Producer
from wf_core.broker.kafka_reader import KafkaReader
from wf_core.broker.protocol import LogUnavailableError, TopicPartition, TopicProblem
from wf_core.settings import Settings

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.5


class KafkaLog:
    """Driver `kafka` of the group `wf.brokers`."""

    def __init__(self, settings: Settings, redis: Redis) -> None:  # noqa: ARG002 - every driver is given both
        self._settings = settings
        self._producer = Producer(settings)
        self._lanes: dict[TopicPartition, GroupCommit] = {}
        # Offsets are asked for on a connection of their own: on a reader's they would wait behind its parked fetch.
        self._ends: Replaceable[Any] = Replaceable(
            settings, lambda: AIOKafkaConsumer(group_id=None, enable_auto_commit=False, **options(settings))
        )

    async def start(self) -> None:
        """Connects. Raises LogUnavailableError after `connect_seconds`."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._settings.connect_seconds
        while True:
            try:
                return await self._producer.start()
            except LogUnavailableError as error:
                left = deadline - clock()
                if left <= _RETRY_SECONDS:
                    raise LogUnavailableError(
                        f"{error}; gave up after {self._settings.connect_seconds:g} s. "
                        "Start it, or set APP_KAFKA_BOOTSTRAP_SERVERS"
                    ) from error
                log.warning("kafka is away", error=str(error), giving_up_in=f"{left:.0f} s")
            await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        """Waits for the appends that are on their way and disconnects."""
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        await asyncio.gather(self._producer.close(), self._ends.close())

    async def ensure_topics(self, topics: Mapping[str, int]) -> None:
        """Creates the topics that are missing and waits until they take records."""
        await kafka_topics.ensure(self._settings, topics)

    async def examine_topics(self, topics: Mapping[str, int]) -> list[TopicProblem]:
        """What is wrong with topics: `kafka_rules` has the rules."""
        return await kafka_topics.examine(self._settings, topics)

    async def append(self, source: TopicPartition, records: Sequence[bytes], key: bytes | None = None) -> list[int]:
        """Appends in order and returns the offsets once all replicas in sync have the records."""
        lane = self._lanes.get(source)
        if lane is None:
            lane = self._lanes[source] = GroupCommit(self._producer.send)
        return await lane.append(source, records, key)

    def reader(self) -> KafkaReader:
        """A new reader with connections of its own."""
        return KafkaReader(self._settings)

    async def begin(self, source: TopicPartition) -> int:
        """The offset of the oldest record that the log still has."""
        return await self._offset(source, lambda consumer, partition: consumer.beginning_offsets([partition]))

    async def end(self, source: TopicPartition) -> int:
        """The offset that the next record will have."""
        return await self._offset(source, lambda consumer, partition: consumer.end_offsets([partition]))

    async def trim(self, source: TopicPartition, before: int) -> None:
        """Nothing: the topic's retention forgets."""

    async def _offset(self, source: TopicPartition, ask: Callable[[Any, KafkaPartition], Awaitable[Any]]) -> int:
        partition = KafkaPartition(*source)
        async with self._ends.use() as consumer:
            while True:
                try:
                    return int((await ask(consumer, partition))[partition])
                except KafkaTimeoutError:  # spent on asking a broker that hangs where the leader is; `use` ends it
                    log.debug("kafka is asked again", topic=source.topic, partition=source.partition)
