"""Fetches from the brokers that lead partitions, over aiokafka's connections, in one fetch session with each broker.

In a session a broker is told only what changed since the last request, and answers only for partitions that have
something. aiokafka's consumer asks for every partition each time, which costs more than the records of most answers.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import structlog
from aiokafka.errors import KafkaError, LeaderNotAvailableError, NoError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from wf_core.broker.kafka_client import REQUEST_SECONDS, RETRY_SECONDS, Connections, options
from wf_core.broker.protocol import TopicPartition
from wf_core.settings import Settings

log = structlog.get_logger(__name__)

# A connection answers one request at a time, so a parked fetch delays what is assigned meanwhile by this much.
_WAIT_MS = 50
_ANSWER_BYTES = 8 * 1024 * 1024
_PARTITION_BYTES = 1024 * 1024
_NO_SESSION = -1
_LAST_EPOCH = 2**31 - 1
_LEADERS_ONLY = 10
"""The last version of the request that followers refuse: what they do not have yet, they say, is out of range."""
_NOBODY = (None, -1)
_LATE_SECONDS = 0.2
"""A broker that did not answer by then may lead no more: whoever leads by now is to be asked."""
_WARN_SECONDS = 10.0

Positions = Mapping[TopicPartition, int]


class Fetched(NamedTuple):
    """Batches of records from `offset` on, as Kafka stores them; None when the partition has no such offset."""

    source: TopicPartition
    offset: int
    data: bytes | None


class Fetcher:
    """One fetch at a time from each broker; its answer is kept until somebody takes it."""

    def __init__(self, settings: Settings) -> None:
        self._client = Connections(**options(settings))
        self._sessions: defaultdict[int | None, _Session] = defaultdict(_Session)
        self._fetches: dict[int | None, asyncio.Task[list[Fetched]]] = {}
        self._answered_at = 0.0
        self._failing_since: float | None = None
        self._warned_at: float | None = None

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
        """What has come, perhaps nothing; waits up to `wait` seconds for an answer, and never long.

        What the caller throws away comes again: a broker sends what is there from the position that it was told.
        Raises KafkaError when an answer failed and no other brought anything.
        """
        if wait > 0 and self._fetches:
            wait = min(wait, _LATE_SECONDS)
            await asyncio.wait(self._fetches.values(), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        done = [broker for broker, fetch in self._fetches.items() if fetch.done()]
        fetched: list[Fetched] = []
        failed: Exception | None = None
        for broker in done:
            try:
                fetched += self._fetches.pop(broker).result()
            except Exception as error:  # noqa: BLE001 - raised below, or logged
                failed = error
        if failed and not fetched:
            raise failed
        if failed:
            self.warn(failed)
        return fetched

    def warn(self, error: Exception) -> None:
        """Says that some partitions cannot be read while others can, but not each time that they are asked for."""
        now = asyncio.get_running_loop().time()
        if self._warned_at is None or now - self._warned_at > _WARN_SECONDS:
            self._warned_at = now
            log.warning("a partition cannot be read", error=f"{type(error).__name__}: {error}")

    async def _fetch(self, broker: int | None, positions: Positions) -> list[Fetched]:
        """Raises KafkaError when no broker at all answered for `REQUEST_SECONDS`.

        The same goes for brokers that answer with errors only that will not pass; at once if no other is asked.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            if broker in _NOBODY:
                await self._look_up(positions)
                return []
            response = await self._client.send(broker, self._sessions[broker].request(positions))
            self._sessions[broker].answered(response)
            fetched, failed = self._read(response, positions)
        except KafkaError as error:
            self._sessions.pop(broker, None)
            if self._failing_since is None:
                self._failing_since = max(begun, self._answered_at)
            lasting = not error.retriable and len(self._fetches) == 1
            if lasting or clock() - self._failing_since >= REQUEST_SECONDS:
                raise
            await self._pause()
            return []
        self._answered_at, self._failing_since = clock(), None
        if failed and not fetched:
            await self._pause()
        return fetched

    async def _look_up(self, sources: Collection[TopicPartition]) -> None:
        for topic in {source.topic for source in sources}:
            await self._client.add_topic(topic)  # asks the brokers when it is new
        leader = self._client.cluster.leader_for_partition
        if missing := [f"{source.topic}[{source.partition}]" for source in sources if leader(source) in _NOBODY]:
            raise LeaderNotAvailableError(f"no broker leads {', '.join(missing)}")

    def _read(self, response: Any, positions: Positions) -> tuple[list[Fetched], list[KafkaError]]:
        """What came, and the errors of partitions; raises one that will not pass when all partitions have errors."""
        fetched: list[Fetched] = []
        failed: list[KafkaError] = []
        for topic, partitions in response.topics:
            for partition, code, *_, data in partitions:
                source, error = TopicPartition(topic, partition), for_code(code)
                if source not in positions:
                    continue
                if error is OffsetOutOfRangeError:
                    self._client.force_metadata_update()  # who says so may not know yet that it leads no more
                    fetched.append(Fetched(source, positions[source], None))
                elif error is not NoError:
                    failed.append(error(f"{topic}[{partition}]"))
                elif data:
                    fetched.append(Fetched(source, positions[source], data))
        for lasting in (error for error in failed if not error.retriable):
            if len(failed) == len(positions):
                raise lasting
            self.warn(lasting)
        return fetched, failed

    async def _pause(self) -> None:
        """Has the brokers asked who leads which partition, and gives them a moment."""
        self._client.force_metadata_update()
        await asyncio.sleep(RETRY_SECONDS)


class _Session:
    """What a broker knows of what we want, and under which numbers."""

    def __init__(self) -> None:
        self._id = 0
        self._epoch = _NO_SESSION  # a broker keeps but a thousand: who asks only once needs none
        self._known: Positions = {}

    def request(self, wanted: Positions) -> FetchRequest:
        """Asks for `wanted`."""
        changed = [item for item in wanted.items() if self._known.get(item[0]) != item[1]]
        if not self._id:  # the broker does not take turns itself, and those in front might fill each answer
            random.shuffle(changed)
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

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        """The request in a version that the broker speaks and leaders alone answer."""
        lowest, highest = versions[self.API_KEY]
        return super().prepare({self.API_KEY: (lowest, min(highest, _LEADERS_ONLY))})

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
