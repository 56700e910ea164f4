"""Where a task message was sent: how it is written in `{p}:qa`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, MutableMapping
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


class SentMessages(MutableMapping[str, Sent]):
    """Tokens in flight whose message was sent, with where it lies."""

    def __init__(self) -> None:
        self.topics: Counter[str] = Counter()
        """How many of each topic."""
        self.lanes: Counter[TopicPartition] = Counter()
        """How many of each task partition."""
        self.taken: Counter[str] = Counter()
        """How many of each topic no worker has still to claim, as far as is known."""
        self._sent: dict[str, Sent] = {}
        self._claimed: set[str] = set()

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sent)

    def __getitem__(self, token: str) -> Sent:
        return self._sent[token]

    def __setitem__(self, token: str, sent: Sent) -> None:
        if token in self._sent:
            del self[token]
        self._sent[token] = sent
        self.topics[sent.where.source.topic] += 1
        self.lanes[sent.where.source] += 1

    def __delitem__(self, token: str) -> None:
        source = self._sent.pop(token).where.source
        self.topics[source.topic] -= 1
        self.lanes[source] -= 1
        if token in self._claimed:
            self._claimed.remove(token)
            self.taken[source.topic] -= 1

    def look(self, claimed: Container[str] | None, incarnation: str) -> None:
        """Takes in which tokens are claimed; None: nobody has looked yet, all of them may be.

        A message in another incarnation of the log waits for no worker either.
        """
        self._claimed = {
            token
            for token, sent in self._sent.items()
            if claimed is None or token in claimed or sent.where.incarnation != incarnation
        }
        self.taken = Counter(self._sent[token].where.source.topic for token in self._claimed)
