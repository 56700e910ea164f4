"""How much is sent: as much as workers have room for. The rest waits in the outbox, where priority is decided.

Credits are derived from what is in flight and was sent, the claims of the last look, the free slots that workers
publish, and the results that were folded. None of it is kept but in memory, and four times a second it is all derived
anew, so nothing that is lost with a process, or counted wrong, lasts.

Of one queue each partition lets a message be on its way, sent and not known to be claimed: so a queue begins to move
however little is known of its workers, and one that no worker takes from is seen to wait. Beside these an owner lets
so many be on their way:

    max(its part of 2 × free slots, results of the last 0.1 s)

It sends when half of them are used up, so that messages travel in groups; what is more urgent than something that waits
is sent at once. Owners share the free slots by what waits, the highest priority first. The results keep short tasks
going: as long as something waits, about as much is on its way as workers do in 0.1 s, and no slot waits for news. Where
the way takes longer than that, workers have free slots and no message: then the time is doubled, up to 1.6 s, and
shrinks slowly while messages wait for slots.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

from wf_core.broker import topics
from wf_orchestrator.backlogs import Room
from wf_orchestrator.outbox import Window
from wf_orchestrator.partition import Partition
from wf_orchestrator.queries import OutboxEntry
from wf_orchestrator.ready import LEVELS

PER_SLOT = 2
"""Messages that may be on their way for each free slot."""
PACE_SECONDS = 0.1
"""As many messages may be on their way as attempts ended within this time, at least."""
LONGEST_PACE = 16 * PACE_SECONDS
SLOWLY = 0.95
"""What is left of that time after each look at which nobody was idle, and messages waited for slots."""
LOOKS = 3
"""So many looks take longer than a worker takes to speak again."""

Levels = Sequence[int]
"""What waits, by level: the highest priority comes first."""


class Credits:
    """The credits of one orchestrator. `monotonic` is its clock, in seconds."""

    def __init__(self, namespace: str, monotonic: Callable[[], float]) -> None:
        self.room = Room()
        """What workers and the other owners last said."""
        self._namespace = namespace
        self._monotonic = monotonic
        self._partitions: list[Partition] = []
        self._queues: dict[str, _Queue] = {}

    def join(self, partition: Partition) -> None:
        """A partition was taken. It leaves by being closed."""
        self._partitions.append(partition)

    def backlog(self) -> dict[str, list[int]]:
        """What waits in memory to be sent, by queue and level."""
        return {name: levels for name, queue in self._queues.items() if any(levels := queue.levels())}

    def survey(self) -> None:
        """Derives anew what is on its way. Just after claims were looked at: they grow old within a task's time."""
        self._partitions = [partition for partition in self._partitions if not partition.closed]
        for partition in self._partitions:
            self._enter(partition)
        for queue in self._queues.values():
            queue.survey(self._partitions)
            for partition in queue.tidy():
                queue.grant_one(partition)
            queue.grant(self._monotonic())

    def heed(self, room: Room) -> None:
        """Takes in what workers and the other owners say."""
        self.room = room
        for queue in self._queues.values():
            queue.heed(room)
            queue.adapt(room)
            queue.grant(self._monotonic())

    def arrived(self, partition: Partition) -> None:
        """Something waits in a partition that did not before, or may be sent now that might not before."""
        for queue in self._enter(partition):
            queue.grant_one(partition)
            queue.grant(self._monotonic(), partition)

    def ended(self, partition: Partition, numbers: Mapping[str, int]) -> None:
        """Attempts that were sent have ended, so many of each queue."""
        now = self._monotonic()
        for name, number in numbers.items():
            queue = self._queue(name)
            queue.count(partition, -number)
            queue.pace.add(now, number)
            if partition in queue.waiting:
                queue.grant_one(partition)
            queue.grant(now)

    def take(self, partition: Partition, most: int) -> list[OutboxEntry]:
        """The entries that a partition may send now, `most` of them. What is not sent comes back with `again`."""
        entries = partition.outbox.first(most)
        for name, granted in list(partition.outbox.granted.items()):
            if granted and not partition.outbox.windows[name].ready:  # it ended while it waited
                del partition.outbox.granted[name]
                self._queues[name].count(partition, -granted)
        return entries

    def again(self, partition: Partition, entries: Sequence[OutboxEntry]) -> None:
        """Entries that were not sent wait again."""
        partition.outbox.again(entries)
        for name, number in Counter(entry.queue for entry in entries).items():
            self._queues[name].count(partition, -number)

    def _enter(self, partition: Partition) -> list[_Queue]:
        """Notes for what queues something waits in a live partition."""
        found: list[_Queue] = []
        for name, window in partition.outbox.windows.items():
            if partition.live and (window.ready or window.is_short):
                queue = self._queue(name)
                queue.waiting[partition] = window
                found.append(queue)
        return found

    def _queue(self, name: str) -> _Queue:
        if name not in self._queues:
            queue = self._queues[name] = _Queue(name, topics.tasks(self._namespace, name))
            queue.heed(self.room)
        return self._queues[name]


class _Queue:
    """What is known of one queue."""

    def __init__(self, name: str, topic: str) -> None:
        self.name = name
        self.topic = topic
        self._scarce = 0
        """Looks at which something waited, up to the last one."""
        self._flight = 0
        """Messages that were granted or sent, of attempts that have not ended."""
        self._running = 0
        """How many of these were claimed at the last look; as long as something waits, one that ends is followed."""
        self._moving: set[Partition] = set()
        """Partitions that have a message on its way."""
        self.free = 0
        """What free slots let be on its way."""
        self.pace = _Pace()
        self.waiting: dict[Partition, Window] = {}
        """Where something waits; also partitions where it does no more, until `tidy`."""

    def heed(self, room: Room) -> None:
        """What free slots there are, and what of them is this owner's."""
        self.free = split(PER_SLOT * room.free.get(self.name, 0), self.levels(), room.others.get(self.name, ()))

    def adapt(self, room: Room) -> None:
        """Finds out whether too little is on its way. What workers say may be older than what waits."""
        self._scarce = self._scarce + 1 if any(self.levels()) else 0
        if self.name in room.idle and self._scarce > LOOKS:
            self.pace.lengthen()
        elif self.name in room.busy:
            self.pace.shorten()

    def levels(self) -> list[int]:
        """What waits, by level."""
        return [
            sum(column) for column in zip([0] * LEVELS, *(w.ready.levels for w in self.waiting.values()), strict=True)
        ]

    def tidy(self) -> list[Partition]:
        """Forgets where nothing waits; the others."""
        for partition, window in list(self.waiting.items()):
            if partition.closed or not partition.live or not (window.ready or window.is_short):
                del self.waiting[partition]
        return list(self.waiting)

    def survey(self, partitions: Sequence[Partition]) -> None:
        """Derives anew what is on its way."""
        self._running = sum(partition.sent.taken[self.topic] for partition in partitions)
        unclaimed = {partition: self._unclaimed(partition) for partition in partitions}
        self._flight = self._running + sum(unclaimed.values())
        self._moving = {partition for partition, number in unclaimed.items() if number > 0}

    def count(self, partition: Partition, by: int) -> None:
        """A partition has so many more, or less, in flight than before."""
        self._flight += by
        (self._moving.add if self._unclaimed(partition) > 0 else self._moving.discard)(partition)

    @property
    def _out(self) -> int:
        """Messages on their way, but for one of each partition. Below 0: so many ended since the last look."""
        return self._flight - self._running - len(self._moving)

    def _unclaimed(self, partition: Partition) -> int:
        """What of this queue a partition has on its way."""
        window, sent = partition.outbox.windows.get(self.name), partition.sent
        leaving = len(window.leaving) + partition.outbox.granted.get(self.name, 0) if window else 0
        return leaving + sent.topics[self.topic] - sent.taken[self.topic]

    def grant_one(self, partition: Partition) -> None:
        """Lets a partition send one message if it has none on its way. One whose window is short reads on."""
        window = self.waiting[partition]
        if window.ready and partition not in self._moving:
            self._give(partition, 1)
        elif window.is_short:
            partition.outbox.wake.set()

    def grant(self, now: float, newcomer: Partition | None = None) -> None:
        """Grants what may be sent now. `newcomer`: where something has just joined what waits.

        Priority decides between partitions, then the age of what is first in each.
        """
        limit = max(self.free, self.pace.recent(now))
        room = limit - self._out
        if room <= 0 or not self.waiting:
            return
        if self._wants_less(room):
            for partition, window in self.waiting.items():
                self._give(partition, len(window.ready) - partition.outbox.granted.get(self.name, 0))
        elif 2 * self._out <= limit:
            self._give_by_priority(room)
        elif newcomer is not None and self._is_urgent(level := self.waiting[newcomer].ready.level):
            self._give_by_priority(room, most=level)

    def _wants_less(self, room: int) -> bool:
        for partition, window in self.waiting.items():
            room -= len(window.ready) - partition.outbox.granted.get(self.name, 0)
            if room < 0:
                return False
        return True

    def _is_urgent(self, level: int) -> bool:
        """Whether something waits behind `level`."""
        return any(window.ready.last_level > level for window in self.waiting.values())

    def _give_by_priority(self, room: int, most: int = LEVELS - 1) -> None:
        """Gives to what waits at levels up to `most`."""
        waiting = [partition for partition, window in self.waiting.items() if window.ready]
        waiting.sort(key=lambda partition: partition.outbox.oldest(self.name))
        for level in range(most + 1):
            for partition in waiting:
                granted = partition.outbox.granted.get(self.name, 0)
                more = min(room, sum(self.waiting[partition].ready.levels[: level + 1]) - granted)
                self._give(partition, more)
                room -= max(0, more)
            if not room:
                return

    def _give(self, partition: Partition, number: int) -> None:
        if number > 0:
            granted = partition.outbox.granted
            granted[self.name] = granted.get(self.name, 0) + number
            self.count(partition, number)
            partition.outbox.wake.set()


class _Pace:
    """How many attempts ended within the last moments."""

    def __init__(self) -> None:
        self._seconds = PACE_SECONDS
        self._ended: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, now: float, number: int) -> None:
        """So many ended now."""
        self._ended.append((now, number))
        self._sum += number

    def lengthen(self) -> None:
        """More time counts than before."""
        self._seconds = min(LONGEST_PACE, 2 * self._seconds)

    def shorten(self) -> None:
        """A little less time counts than before."""
        self._seconds = max(PACE_SECONDS, SLOWLY * self._seconds)

    def recent(self, now: float) -> int:
        """How many ended within the time that counts."""
        while self._ended and self._ended[0][0] < now - self._seconds:
            self._sum -= self._ended.popleft()[1]
        return self._sum


def split(slots: int, own: Levels, others: Sequence[Levels]) -> int:
    """The part of `slots` that an owner may fill, rounded up: what is left when the others have had theirs.

    The highest level comes first; those that have something waiting at the level for which too little is left share it
    by how much they have. What nobody needs is this owner's.
    """
    left, theirs = float(slots), 0.0
    foreign = [sum(levels) for levels in zip_longest(*others, fillvalue=0)]
    for mine, their in zip_longest(own, foreign, fillvalue=0):
        part = min(1.0, left / (mine + their)) if mine + their else 0.0
        theirs += part * their
        left -= part * (mine + their)
    return math.ceil(slots - theirs - 1e-9)
