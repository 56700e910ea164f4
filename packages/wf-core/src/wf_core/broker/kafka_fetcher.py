"""Fetches from the brokers that lead partitions, over aiokafka's connections, in one fetch session with each broker.

In a session a broker is told only what changed since the last request, and answers only for partitions that have
something. aiokafka's consumer asks for every partition each time, which costs more than the records of most answers.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, LeaderNotAvailableError, NoError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from wf_core.broker.kafka_client import REQUEST_SECONDS, RETRY_SECONDS, options
from wf_core.broker.protocol import TopicPartition
from wf_core.settings import Settings

# A connection answers one request at a time, so a parked fetch delays what is assigned meanwhile by this much.
_WAIT_MS = 50
_ANSWER_BYTES = 50 * 1024 * 1024
_PARTITION_BYTES = 1024 * 1024
_LAST_EPOCH = 2**31 - 1
_NOBODY = (None, -1)
_LATE_SECONDS = 0.2
"""A broker that did not answer by then may lead no more: whoever leads by now is to be asked."""

Positions = Mapping[TopicPartition, int]


class Fetched(NamedTuple):
    """Batches of records from `offset` on, as Kafka stores them; None when the partition has no such offset."""

    source: TopicPartition
    offset: int
    data: bytes | None


class Fetcher:
    """One fetch at a time from each broker; its answer is kept until somebody takes it."""

    def __init__(self, settings: Settings) -> None:
        self._client = AIOKafkaClient(**options(settings))
        self._sessions: defaultdict[int | None, _Session] = defaultdict(_Session)
        self._fetches: dict[int | None, asyncio.Task[list[Fetched]]] = {}
        self._answered_at = 0.0
        self._failing_since: float | None = None

    async def start(self) -> None:
        """Connects."""
        await self._client.bootstrap()

    async def stop(self) -> None:
        """Disconnects."""
        for fetch in self._fetches.values():
            fetch.cancel()
        await asyncio.gather(*self._fetches.values(), return_exceptions=True)
        await self._client.close()

    @property
    def asking(self) -> bool:
        """Whether an answer is under way, or waits to be taken."""
        return bool(self._fetches)

    def begin(self, wanted: Positions) -> None:
        """Asks every broker that leads some of these partitions and is not being asked already."""
        leader = self._client.cluster.leader_for_partition
        by_broker: defaultdict[int | None, dict[TopicPartition, int]] = defaultdict(dict)
        for source, offset in wanted.items():
            by_broker[leader(source)][source] = offset
        for broker, positions in by_broker.items():
            if broker not in self._fetches:
                self._fetches[broker] = asyncio.create_task(self._fetch(broker, positions), name="kafka fetch")

    async def take(self, wait: float) -> list[Fetched]:
        """What has come, perhaps nothing; waits up to `wait` seconds for an answer, and never long. Raises KafkaError.

        What the caller throws away comes again: a broker sends what is there from the position that it was told.
        """
        wait = min(wait, _LATE_SECONDS)
        await asyncio.wait(self._fetches.values(), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        done = [broker for broker, fetch in self._fetches.items() if fetch.done()]
        return [fetched for broker in done for fetched in self._fetches.pop(broker).result()]

    async def _fetch(self, broker: int | None, positions: Positions) -> list[Fetched]:
        """Raises KafkaError for what does not pass, and when no broker at all answered for `REQUEST_SECONDS`."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            if broker in _NOBODY:
                await self._look_up(positions)
                return []
            response = await self._client.send(broker, self._sessions[broker].request(positions))
        except KafkaError as error:
            self._sessions.pop(broker, None)
            if self._failing_since is None:
                self._failing_since = max(begun, self._answered_at)
            if not error.retriable or clock() - self._failing_since >= REQUEST_SECONDS:
                raise
            await self._pause()
            return []
        self._answered_at, self._failing_since = clock(), None
        self._sessions[broker].answered(response)
        return await self._read(response, positions)

    async def _look_up(self, sources: Collection[TopicPartition]) -> None:
        for topic in {source.topic for source in sources}:
            await self._client.add_topic(topic)  # asks the brokers when it is new
        leader = self._client.cluster.leader_for_partition
        if missing := [f"{source.topic}[{source.partition}]" for source in sources if leader(source) in _NOBODY]:
            raise LeaderNotAvailableError(f"no broker leads {', '.join(missing)}")

    async def _read(self, response: Any, positions: Positions) -> list[Fetched]:
        fetched: list[Fetched] = []
        may_pass = False
        for topic, partitions in response.topics:
            for partition, code, *_, data in partitions:
                source, error = TopicPartition(topic, partition), for_code(code)
                if error is OffsetOutOfRangeError:
                    fetched.append(Fetched(source, positions[source], None))
                elif error is not NoError:
                    may_pass = error.retriable
                    if not may_pass:
                        raise error(topic)
                elif data:
                    fetched.append(Fetched(source, positions[source], data))
        if may_pass:
            await self._pause()
        return fetched

    async def _pause(self) -> None:
        """Has the brokers asked who leads which partition, and gives them a moment."""
        self._client.force_metadata_update()
        await asyncio.sleep(RETRY_SECONDS)


class _Session:
    """What a broker knows of what we want, and under which numbers."""

    def __init__(self) -> None:
        self._id = 0
        self._epoch = 0
        self._known: Positions = {}

    def request(self, wanted: Positions) -> FetchRequest:
        """Asks for `wanted`."""
        changed = (item for item in wanted.items() if self._known.get(item[0]) != item[1])
        request = _SessionRequest(
            _WAIT_MS,
            1,
            _ANSWER_BYTES,
            0,
            _by_topic((source, (source.partition, offset, _PARTITION_BYTES)) for source, offset in changed),
        )
        gone = (source for source in self._known if source not in wanted)
        request.session = self._id, self._epoch, _by_topic((source, source.partition) for source in gone)
        self._known = wanted
        return request

    def answered(self, response: Any) -> None:
        """Takes the broker's numbers for the next request."""
        self._id = getattr(response, "session_id", 0)
        if self._id and not response.error_code:
            self._epoch = self._epoch % _LAST_EPOCH + 1
        else:  # it forgot this session, has too many of them, or is too old for any: it has to be told everything again
            self._id, self._epoch, self._known = 0, 0, {}


class _SessionRequest(FetchRequest):  # type: ignore[misc]  # aiokafka ships no types
    """aiokafka's request, which is never part of a session, made part of one."""

    session: tuple[int, int, list[tuple[str, list[int]]]]

    def build(self, request_struct_class: Any) -> Any:
        """The request in the version that the broker speaks; the oldest leave out what they have no place for."""
        request = super().build(request_struct_class)
        request.session_id, request.session_epoch, request.forgotten_topics_data = self.session
        return request


def _by_topic(items: Iterable[tuple[TopicPartition, Any]]) -> list[tuple[str, list[Any]]]:
    topics: defaultdict[str, list[Any]] = defaultdict(list)
    for source, item in items:
        topics[source.topic].append(item)
    return list(topics.items())
