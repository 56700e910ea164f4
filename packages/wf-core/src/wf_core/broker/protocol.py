"""The log: partitioned, ordered, append-only. Both drivers pass the contract suite in `tests/broker/`.

There are no consumer groups: partitions are leased in Redis, and a reader reads what it is assigned, from where it
is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from wf_core.errors import UnavailableError, WfError

MAX_RECORD_BYTES = 1_000_000
"""Longest record that every driver takes; Kafka's own limit with its framing is 1,048,588."""


class TopicPartition(NamedTuple):
    """One ordered sequence of records."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition: `records[i]` has the offset `offset + i`."""

    source: TopicPartition
    offset: int
    records: Sequence[bytes]

    @property
    def next(self) -> int:
        """The offset after the last record."""
        return self.offset + len(self.records)


class LogUnavailableError(UnavailableError):
    """The log did not answer in time. An append that raises this may have happened or not: append the same again."""


class RecordTooLargeError(WfError):
    """The log refuses this record for good."""


class OffsetOutOfRangeError(WfError):
    """A read position lies before the log's start or after its end. `source` and `offset` say which."""

    def __init__(self, source: TopicPartition, offset: int) -> None:
        self.source = source
        self.offset = offset
        super().__init__(f"{source.topic}[{source.partition}] has no record at offset {offset}")


@dataclass(frozen=True, slots=True)
class TopicProblem:
    """A topic that is not as it must be: which setting, a sentence, what to do. No service starts on a fatal one."""

    topic: str
    setting: str
    found: str
    remedy: str
    fatal: bool = False

    def __str__(self) -> str:
        """Both sentences."""
        return f"{self.found}; {self.remedy}"


def wrong_partitions(topic: str, found: int, wanted: int) -> TopicProblem:
    """A topic keeps the number of partitions with which it was created."""
    return TopicProblem(
        topic,
        "partitions",
        f"the topic {topic} has {found} partitions and not {wanted}",
        "the number is fixed when the topic is created: set it as it was, or use another namespace",
        fatal=True,
    )


def missing_topic(topic: str) -> TopicProblem:
    """A topic of an installation is gone."""
    return TopicProblem(
        topic,
        "missing",
        f"the topic {topic} does not exist",
        "a service creates it when it starts; what an older one held is lost",
        fatal=True,
    )


class LogReader(Protocol):
    """Reads an assignment of partitions. One task uses it at a time."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these partitions from now on, each from its offset, and no others. Takes effect with the next read."""

    async def read(self, max_wait: float, max_records: int = 500) -> list[Batch]:
        """What has come, at most `max_records` a partition; waits up to `max_wait` seconds for the first record.

        Each record is returned once per assignment, in order and without gaps. Raises LogUnavailableError when the log
        does not answer and OffsetOutOfRangeError for a position that the log does not hold.
        """

    async def close(self) -> None:
        """Gives back what the reader holds."""


class Log(Protocol):
    """A driver of the group `wf.brokers`; constructed with settings and the shared client: `Log(settings, redis)`."""

    async def start(self) -> None:
        """Connects. Raises LogUnavailableError after `connect_seconds`."""

    async def close(self) -> None:
        """Flushes and disconnects."""

    async def ensure_topics(self, topics: Mapping[str, int]) -> None:
        """Creates the topics that are missing, with so many partitions, and waits until they take records.

        Raises SetupError when a topic has a fatal problem, such as another number of partitions; warns of the others.
        """

    async def examine_topics(self, topics: Mapping[str, int]) -> list[TopicProblem]:
        """What is wrong with topics that should exist with so many partitions. Changes nothing."""
        ...

    async def append(self, source: TopicPartition, records: Sequence[bytes], key: bytes | None = None) -> list[int]:
        """Appends in order and returns the offsets once the log acknowledged all of them.

        Raises LogUnavailableError (append the same bytes again) or RecordTooLargeError (never will be).
        """

    def reader(self) -> LogReader:
        """A new reader with no assignment."""
        ...

    async def begin(self, source: TopicPartition) -> int:
        """The offset of the oldest record that the log still has; `end` when it has none."""
        ...

    async def end(self, source: TopicPartition) -> int:
        """The offset that the next record will have."""
        ...

    async def trim(self, source: TopicPartition, before: int) -> None:
        """Records below `before` may be forgotten. A driver whose server forgets by itself does nothing."""
