"""Where a task message was sent: how it is written in `{p}:qa`."""

from __future__ import annotations

from typing import NamedTuple

from wf_core.broker.protocol import TopicPartition


class Where(NamedTuple):
    """A position in a task topic of one incarnation of the log."""

    source: TopicPartition
    offset: int
    incarnation: str

    def __str__(self) -> str:
        return f"{self.source.topic}-{self.source.partition}:{self.offset}:{self.incarnation}"


def parse_where(text: str) -> Where:
    """The position in `text`, which `str(Where)` made."""
    place, offset, incarnation = text.rsplit(":", 2)
    topic, _, partition = place.rpartition("-")
    return Where(TopicPartition(topic, int(partition)), int(offset), incarnation)


class Sent(NamedTuple):
    """The newest copy of a token's message, and since when (this owner's monotonic clock) it is known to be there."""

    where: Where
    since: float
