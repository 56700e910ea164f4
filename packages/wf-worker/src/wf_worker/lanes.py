"""Task partitions that this worker leases, and the messages in them that wait for a slot."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice

from wf_core.broker.protocol import Batch, TopicPartition
from wf_core.ids import partition_of, token
from wf_core.wire import TaskMessage

LATER_SECONDS = 0.05
"""After this long a message is tried again whose event partition's owner has not caught up."""
_APART_SECONDS = 1.0
"""When a partition was not LATER for so long, a second LATER does not continue the first."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A message that was read and not claimed."""

    offset: int
    message: TaskMessage
    token: str
    partition: int
    """Of its execution's events."""

    @property
    def urgency(self) -> tuple[int, int]:
        """The higher the priority and the older, the lower it is."""
        return -self.message.priority, self.message.queued_at

    @classmethod
    def of(cls, offset: int, message: TaskMessage) -> Waiting:
        """The message at `offset`. Raises ValueError when it names no execution."""
        name = token(message.execution, message.node, message.attempt)
        return cls(offset, message, name, partition_of(message.execution))


@dataclass(slots=True, eq=False)
class Lane:
    """A leased task partition. Its committed offset never passes a message that still waits."""

    source: TopicPartition
    queue: str
    key: str
    committed: int
    next_read: int
    trimmed: int = 0
    waiting: dict[int, Waiting] = field(default_factory=dict)

    @property
    def position(self) -> int:
        """The offset that may be committed."""
        return next(iter(self.waiting), self.next_read)

    def rewind(self, offset: int) -> None:
        """Goes on from `offset`."""
        self.waiting.clear()
        self.committed = self.next_read = offset


class Lanes:
    """The leased task partitions of all queues."""

    def __init__(self) -> None:
        self._lanes: dict[TopicPartition, Lane] = {}
        self._later: dict[int, float] = {}
        self._since: dict[int, float] = {}
        """When the answer LATER began, by event partition."""
        self._priorities: Counter[int] = Counter()
        """How many wait, by priority."""
        self.waiting = 0
        """Messages that wait."""
        self.changed = False
        """The assignment of the reader is out of date."""

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    def __contains__(self, source: TopicPartition) -> bool:
        return source in self._lanes

    def get(self, source: TopicPartition) -> Lane | None:
        """The lane of a task partition, if it is ours."""
        return self._lanes.get(source)

    def of(self, queue: str) -> list[Lane]:
        """The lanes of one queue."""
        return [lane for lane in self._lanes.values() if lane.queue == queue]

    def claimable(self, now: float) -> int:
        """Messages that wait, but for those whose partition is not live."""
        if all(until <= now for until in self._later.values()):
            return self.waiting
        return sum(1 for lane in self._lanes.values() for _ in self._ready(lane, now))

    def highest(self, now: float) -> int | None:
        """The highest priority of what waits and may be claimed; None when nothing does."""
        if all(until <= now for until in self._later.values()):
            return max(self._priorities) if self.waiting else None
        ready = (one.message.priority for lane in self._lanes.values() for _, one in self._ready(lane, now))
        return max(ready, default=None)

    def unserved(self, seconds: float, now: float) -> set[int]:
        """The event partitions that have been LATER for so long."""
        recent = now - _APART_SECONDS
        return {p for p, since in self._since.items() if since <= now - seconds and self._later[p] > recent}

    def shed(self, most: int, partitions: Collection[int]) -> int:
        """Drops the oldest messages of these event partitions until `most` wait; how many."""
        later = [
            (waiting.message.queued_at, n, lane, offset)
            for n, lane in enumerate(self._lanes.values())
            for offset, waiting in lane.waiting.items()
            if waiting.partition in partitions
        ]
        dropped = sorted(later, key=lambda one: one[:2])[: max(0, self.waiting - most)]
        for _, _, lane, offset in dropped:
            self._count(lane, [lane.waiting.pop(offset)], -1)
        return len(dropped)

    def put(self, lane: Lane, found: Mapping[int, Waiting]) -> None:
        """Messages of a lane were read, in order."""
        lane.waiting.update(found)
        self._count(lane, found.values(), 1)

    def take(self, lane: Lane, one: Waiting) -> None:
        """A message waits no more; nothing happens when its lane was rewound meanwhile."""
        if lane.waiting.get(one.offset) is one:
            del lane.waiting[one.offset]
            self._count(lane, [one], -1)

    def add(self, lane: Lane) -> None:
        """A partition was leased."""
        self._lanes[lane.source] = lane
        self._count(lane, lane.waiting.values(), 1)
        self.changed = True

    def drop(self, source: TopicPartition) -> None:
        """A partition is not ours any more; what waits in it is the next lessee's."""
        if (lane := self._lanes.get(source)) is not None:
            self._count(lane, lane.waiting.values(), -1)
            del self._lanes[source]
            self.changed = True

    def rewind(self, lane: Lane, offset: int) -> None:
        """Reads a lane again from `offset`."""
        self._count(lane, lane.waiting.values(), -1)
        lane.rewind(offset)
        self.changed = True

    def skip(self, lane: Lane, offset: int) -> None:
        """Reads a lane on from `offset`, since the log does not hold what it should; the commit follows."""
        committed = lane.committed
        self.rewind(lane, offset)
        lane.committed = committed

    def positions(self) -> dict[TopicPartition, int]:
        """What a reader is to read, from where."""
        return {lane.source: lane.next_read for lane in self._lanes.values()}

    def lane_of(self, batch: Batch) -> Lane | None:
        """The lane that a batch continues; None when it was read under an assignment that is over."""
        lane = self._lanes.get(batch.source)
        if lane is None or lane.next_read != batch.offset:
            self.changed = True
            return None
        return lane

    def pick(self, most: int, now: float) -> list[tuple[Lane, Waiting]]:
        """Up to `most` messages to claim, the most urgent and oldest first; they wait until they are taken."""
        ready = [self._ready(lane, now) for lane in self._lanes.values() if lane.waiting]
        if len(self._priorities) > 1:
            return heapq.nsmallest(most, chain.from_iterable(ready), key=lambda pair: pair[1].urgency)
        return list(islice(heapq.merge(*ready, key=lambda pair: pair[1].message.queued_at), most))

    def later(self, partition: int, now: float) -> None:
        """Messages of this event partition are left alone for a moment."""
        if self._later.get(partition, float("-inf")) < now - _APART_SECONDS:
            self._since[partition] = now
        self._later[partition] = now + LATER_SECONDS

    def _count(self, lane: Lane, some: Iterable[Waiting], by: int) -> None:
        """Some messages of a lane come or go; those of one that was given away do not count."""
        if self._lanes.get(lane.source) is not lane:
            return
        for one in some:
            priority = one.message.priority
            self._priorities[priority] += by
            self.waiting += by
            if not self._priorities[priority]:
                del self._priorities[priority]

    def _ready(self, lane: Lane, now: float) -> Iterator[tuple[Lane, Waiting]]:
        for waiting in lane.waiting.values():
            if self._later.get(waiting.partition, 0.0) <= now:
                yield lane, waiting


def share(partitions: int, workers: int) -> int:
    """How many of a queue's partitions one of so many workers takes."""
    return -(-partitions // max(1, workers))
