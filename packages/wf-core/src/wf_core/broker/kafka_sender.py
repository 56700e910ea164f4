"""Brings batches to the brokers that lead their partitions, over aiokafka's connections.

aiokafka's own producer has tasks and futures of its own for this, which cost an append as much as the broker does.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NoError,
    RecordListTooLargeError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest

from wf_core.broker.kafka_client import REQUEST_SECONDS, RETRY_SECONDS, Connections, options
from wf_core.broker.protocol import TopicPartition
from wf_core.settings import Settings

_ALL_REPLICAS = -1
_REPLICAS_MS = int(REQUEST_SECONDS * 1000 / 2)
"""How long the broker waits for its replicas: it has to say that they are late before we take it for dead."""
_REQUEST_BYTES = 16 * 1024 * 1024
"""A longer request would not pass a slow link in `REQUEST_SECONDS`; Kafka's own limit is 100 MiB."""

Answers = dict[TopicPartition, tuple[int, int]]
"""For each partition of a request the error's code, 0 for none, and the offset of the first record."""


class Sender:
    """One request at a time to each broker; what comes while it is under way travels with the next.

    A broker answers a connection's requests one after the other, each once all replicas have its records.
    """

    def __init__(self, settings: Settings) -> None:
        self._client = Connections(**options(settings))
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._next: dict[int, tuple[dict[TopicPartition, bytes], asyncio.Task[Answers]]] = {}
        self._requests: set[asyncio.Task[Answers]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Connects."""
        await self._client.bootstrap()

    async def stop(self) -> None:
        """Waits for what is on its way and disconnects."""
        self._stopped = True
        if self._requests:
            await asyncio.wait(self._requests)
        await self._client.close()

    async def deliver(self, source: TopicPartition, batch: bytes) -> int | None:
        """The offset of the batch's first record; None when the broker finds the batch too large.

        What may pass is tried again, until `REQUEST_SECONDS` are over. Raises KafkaError. The caller sends no other
        batch to this partition meanwhile.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + REQUEST_SECONDS
        while True:
            try:
                return await self._try(source, batch)
            except KafkaError as error:
                if not error.retriable or self._stopped or clock() > deadline:
                    raise
            await self._client.force_metadata_update()
            await asyncio.sleep(RETRY_SECONDS)

    async def _try(self, source: TopicPartition, batch: bytes) -> int | None:
        await self._client.add_topic(source.topic)  # asks the brokers when it is new
        if self._stopped:
            raise KafkaConnectionError("the sender was stopped")
        leader = self._client.cluster.leader_for_partition(source)
        if leader is None or leader < 0:
            raise LeaderNotAvailableError(f"{source.topic}[{source.partition}] has no leader")
        code, offset = await self._ask(leader, source, batch)
        error = for_code(code)
        if error in (MessageSizeTooLargeError, RecordListTooLargeError):
            return None
        if error is not NoError:
            raise error
        return offset

    async def _ask(self, broker: int, source: TopicPartition, batch: bytes) -> tuple[int, int]:
        """Adds the batch to the broker's next request, or to one behind it when that is full; the answer to it."""
        if broker not in self._next or _size(self._next[broker][0]) + len(batch) > _REQUEST_BYTES:
            batches: dict[TopicPartition, bytes] = {}
            request = asyncio.create_task(self._send(broker, batches), name="kafka request")
            self._next[broker] = batches, request
            self._requests.add(request)
            request.add_done_callback(self._answered)
        batches, request = self._next[broker]
        batches[source] = batch
        try:
            return (await asyncio.shield(request))[source]
        except asyncio.CancelledError:
            if batches.get(source) is batch:  # it must not land later, unless it is on its way already
                del batches[source]
            raise

    async def _send(self, broker: int, batches: dict[TopicPartition, bytes]) -> Answers:
        async with self._turns[broker]:
            if self._next[broker][0] is batches:
                del self._next[broker]
            if not batches:  # all their callers have given up
                return {}
            topics: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
            for (topic, partition), batch in batches.items():
                topics[topic].append((partition, batch))
            request = ProduceRequest(None, _ALL_REPLICAS, _REPLICAS_MS, list(topics.items()))
            response = await self._client.send(broker, request)
        return {
            TopicPartition(topic, partition): (code, offset)
            for topic, partitions in response.topics
            for partition, code, offset, *_ in partitions
        }

    def _answered(self, request: asyncio.Task[Answers]) -> None:
        self._requests.discard(request)
        if not request.cancelled():
            request.exception()  # whoever waited may have given up, and asyncio complains of errors nobody looked at


def _size(batches: dict[TopicPartition, bytes]) -> int:
    return sum(map(len, batches.values()))
