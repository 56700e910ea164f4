"""How much owners send, against workers in virtual time: slots stay full, topics shallow, priority is decided late."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable

import pytest

from wf_core.broker.protocol import TopicPartition
from wf_core.store.keys import PartitionKeys
from wf_orchestrator import outbox
from wf_orchestrator.backlogs import Room
from wf_orchestrator.credits import PACE_SECONDS, PER_SLOT, Credits, split
from wf_orchestrator.machine.state import PartitionState
from wf_orchestrator.partition import Partition
from wf_orchestrator.positions import Sent, Where
from wf_orchestrator.queries import OutboxEntry
from wf_orchestrator.ready import LEVELS, level_of

HOP = 0.002
"""Seconds from an owner to a worker, and from a worker to an owner."""
LOOK = 0.25
HEARTBEAT = 0.5
LANE = TopicPartition("ns.tasks.default", 0)


def entry(name: str, priority: int = 5, queued_at: int = 0, seq: int = 0, queue: str = "default") -> OutboxEntry:
    """A message as `batches` makes it."""
    return OutboxEntry((9 - priority) * 2.0**48 + seq, f"{name}/n/1", queue, b"", queued_at)


def partition_of(ours: Credits, number: int = 0) -> Partition:
    """A live partition of this owner."""
    partition = Partition(number, PartitionKeys.of("ns", number), "n", "i", 0, 0, 0, PartitionState(0, 0), live=True)
    ours.join(partition)
    return partition


def send(ours: Credits, partition: Partition) -> list[OutboxEntry]:
    """What `sending.flush` does, as far as credits see it; what was sent."""
    sent = []
    while entries := ours.take(partition, 500):
        for one in entries:
            partition.sent[one.token] = Sent(Where(LANE, 0, "i"), 0.0)
            partition.outbox.discard(one.token)
        sent += entries
    return sent


def look(ours: Credits, room: Room) -> None:
    """What happens four times a second."""
    ours.heed(room)
    ours.survey()


def flush(ours: Credits, partition: Partition) -> list[str]:
    """The tokens that are sent now."""
    return [one.token for one in send(ours, partition)]


class Owner:
    """An orchestrator with some partitions."""

    def __init__(self, world: World, partitions: int) -> None:
        self.credits = Credits("ns", lambda: world.now)
        self.partitions = [partition_of(self.credits, n) for n in range(partitions)]


class World:
    """Owners, one queue, and workers that take the most urgent message, of these the oldest, for each free slot."""

    def __init__(self, slots: Iterable[int], owners: int = 1, partitions: int = 1, hop: float = HOP) -> None:
        self.now = 0.0
        self.hop = hop
        self.owners = [Owner(self, partitions) for _ in range(owners)]
        self.free = list(slots)
        self.published = [(number, False) for number in self.free]
        """Of each worker the free slots, and whether messages waited, when it last said so."""
        self.slots = sum(self.free)
        self.topic: list[tuple[int, int, int, str, tuple[Owner, Partition]]] = []
        self.claimed: set[str] = set()
        self.begun: list[str] = []
        self.busy = 0.0
        self.deepest = 0
        self.takes: Callable[[str], float] = lambda _: 0.0
        self.random = random.Random(1)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._waking: set[int] = set()
        self._hear()
        self.at(self.random.random() * LOOK, self._look)
        for worker in range(len(self.free)):
            self.at(self.random.random() * HEARTBEAT, lambda worker=worker: self._publish(worker))

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._serial), action))

    def run(self, until: float) -> None:
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, action = heapq.heappop(self._agenda)
            action()

    def submit(self, owner: Owner, partition: Partition, entries: Iterable[OutboxEntry]) -> None:
        partition.outbox.add(entries)
        owner.credits.arrived(partition)
        self._send()

    def _send(self) -> None:
        for owner in self.owners:
            for partition in owner.partitions:
                if entries := send(owner.credits, partition):
                    self.at(self.hop, lambda a=(owner, partition, entries): self._arrive(*a))

    def _arrive(self, owner: Owner, partition: Partition, entries: list[OutboxEntry]) -> None:
        for one in entries:
            level = level_of(one.score)
            heapq.heappush(self.topic, (level, one.queued_at, next(self._serial), one.token, (owner, partition)))
        self._claim()
        self.deepest = max(self.deepest, len(self.topic))

    def _claim(self) -> None:
        while self.topic and (free := [w for w, number in enumerate(self.free) if number]):
            *_, token, (owner, partition) = heapq.heappop(self.topic)
            worker = self.random.choice(free)
            self.free[worker] -= 1
            self.claimed.add(token)
            self.begun.append(token)
            seconds = self.takes(token)
            self.busy += seconds
            self.at(seconds, lambda a=(owner, partition, token, worker): self._end(*a))

    def _end(self, owner: Owner, partition: Partition, token: str, worker: int) -> None:
        self.free[worker] += 1
        self.at(self.hop, lambda: self._fold(owner, partition, token))
        self._claim()

    def _fold(self, owner: Owner, partition: Partition, token: str) -> None:
        self.claimed.discard(token)
        del partition.sent[token]
        owner.credits.ended(partition, {"default": 1})
        self._send()

    def _publish(self, worker: int) -> None:
        self.published[worker] = self.free[worker], bool(self.topic)
        self.at(HEARTBEAT, lambda: self._publish(worker))

    def _look(self) -> None:
        for owner in self.owners:
            for partition in owner.partitions:
                partition.sent.look(self.claimed, "i")
            owner.credits.survey()
        self._send()
        self.at(LOOK, self._look)

    def _hear(self) -> None:
        told = [owner.credits.backlog() for owner in self.owners]
        free = sum(number for number, _ in self.published)
        idle, busy = (
            {"default"} if any(holds(*one) for one in self.published) else set()
            for holds in (lambda number, waiting: number and not waiting, lambda _, waiting: waiting)
        )
        for n, owner in enumerate(self.owners):
            others = [backlog["default"] for at, backlog in enumerate(told) if at != n and "default" in backlog]
            owner.credits.heed(Room({"default": free}, idle, busy, {"default": others}))
        self._send()
        self.at(LOOK, self._hear)


def many(count: int, name: str = "w", **fields: int) -> list[OutboxEntry]:
    return [entry(f"{name}{i}", seq=i, **fields) for i in range(count)]


def load(world: World, seconds: float, takes: float) -> None:
    """Gives the owners far more than can be done in so many seconds, and runs."""
    world.takes = lambda _: takes * world.random.uniform(0.8, 1.2)
    partitions = [(owner, partition) for owner in world.owners for partition in owner.partitions]
    each = 100 + round(8 * seconds * world.slots / takes / len(partitions))
    for n, (owner, partition) in enumerate(partitions):
        world.submit(owner, partition, many(each, f"w{n}-"))
    world.run(seconds)


@pytest.mark.parametrize("slots", [(1,), (64,), (16, 16)])
@pytest.mark.parametrize("takes", [0.005, 0.15, 0.24, 5.0])
@pytest.mark.parametrize(("owners", "partitions"), [(1, 1), (3, 2), (1, 8)])
def test_slots_stay_full_and_topics_shallow(slots, takes, owners, partitions, monkeypatch):
    """However long tasks take: while thousands wait no slot is idle for long, and few messages lie in the topics."""
    monkeypatch.setattr(outbox, "WINDOW", 50_000)
    world = World(slots, owners, partitions)
    seconds = max(1.0, 4 * takes)
    load(world, seconds / 2, takes)
    busy = world.busy
    world.run(seconds)
    assert (world.busy - busy) / (world.slots * seconds / 2) > 0.85
    done_in_time = world.slots / takes * PACE_SECONDS
    assert world.deepest <= owners * max(PER_SLOT * world.slots, 1.5 * done_in_time) + 2 * owners * partitions


def test_a_long_way_makes_more_go_at_once(monkeypatch):
    """A fifth of a second from the send to the fold: free slots without a message are seen, and more is sent."""
    monkeypatch.setattr(outbox, "WINDOW", 50_000)
    world = World((4,), hop=0.1)
    load(world, 4.0, 0.02)
    busy, now = world.busy, world.now
    world.run(20.0)
    assert (world.busy - busy) / (4 * (20.0 - now)) > 0.7


def test_what_is_more_urgent_overtakes_all_that_waits():
    """A later node of a higher priority starts when what is on its way has started, wherever it becomes ready."""
    for partitions in (1, 4):
        world = World((4,), partitions=partitions)
        world.takes = lambda _: 0.3
        owner = world.owners[0]
        world.submit(owner, owner.partitions[0], many(3_000, priority=2))
        world.run(5.0)
        before = len(world.begun)
        world.submit(owner, owner.partitions[-1], [entry("urgent", priority=8, seq=9_000)])
        world.run(10.0)
        assert world.begun.index("urgent/n/1") - before <= 8


def test_many_partitions_do_not_crowd_out_what_is_urgent():
    """Each of them has a message on its way, and no more, while something of a higher priority waits in one."""
    world = World((2,), partitions=20)
    world.takes = lambda _: 0.1
    owner = world.owners[0]
    for partition in owner.partitions:
        world.submit(owner, partition, many(50, f"p{partition.number}-", priority=1))
    world.run(1.0)
    before = len(world.begun)
    world.submit(owner, owner.partitions[7], many(60, "urgent", priority=6))
    world.run(10.0)
    assert sum(token.startswith("urgent") for token in world.begun[before : before + 70]) >= 55


def test_of_equals_the_oldest_goes_first():
    """Between the executions of two partitions age decides, as it does inside of one."""
    world = World((1,), partitions=2)
    owner = world.owners[0]
    world.takes = lambda _: 1.0
    young, old = owner.partitions
    world.submit(owner, young, many(50, "young", queued_at=2))
    world.submit(owner, old, many(50, "old", queued_at=1))
    world.run(40.0)
    assert sum(token.startswith("old") for token in world.begun) > 30
    assert sum(token.startswith("young") for token in world.begun) < 10


def test_without_a_worker_one_message_is_sent():
    """It shows that something waits, and is claimed at once by the first worker that comes."""
    ours = Credits("ns", lambda: 0.0)
    partition = partition_of(ours)
    partition.outbox.add(many(100))
    for _ in range(3):
        ours.arrived(partition)
        look(ours, Room())
        flush(ours, partition)
    assert len(partition.sent) == 1
    look(ours, Room({"default": 4}))
    assert len(flush(ours, partition)) == PER_SLOT * 4


def test_each_queue_has_its_own_credits():
    """What waits for workers of one queue holds up no other one."""
    ours = Credits("ns", lambda: 0.0)
    partition = partition_of(ours)
    partition.outbox.add([*many(100), *(entry(f"gpu{i}", queue="gpu") for i in range(3))])
    look(ours, Room({"gpu": 8}))
    assert sorted(token[:3] for token in flush(ours, partition)) == ["gpu", "gpu", "gpu", "w0/"]


def test_claims_make_room_and_results_too():
    """What a worker has waits in no topic; what has ended neither."""
    ours = Credits("ns", lambda: 0.0)
    partition = partition_of(ours)
    partition.outbox.add(many(100))
    room = Room({"default": 2})
    look(ours, room)
    sent = flush(ours, partition)
    assert len(sent) == 1 + PER_SLOT * 2
    partition.sent.look(set(sent[:2]), "i")
    look(ours, room)
    assert len(flush(ours, partition)) == 2
    for token in sent[:4]:
        del partition.sent[token]
    ours.ended(partition, {"default": 4})
    assert len(flush(ours, partition)) == 4


def test_what_was_sent_to_a_log_that_is_gone_takes_no_room():
    """It will never be claimed; sweeps find it, and meanwhile the others go on."""
    ours = Credits("ns", lambda: 0.0)
    partition = partition_of(ours)
    for i in range(50):
        partition.sent[f"old{i}/n/1"] = Sent(Where(LANE, i, "before"), 0.0)
    partition.outbox.add(many(100))
    partition.sent.look(set(), "i")
    look(ours, Room({"default": 10}))
    assert len(flush(ours, partition)) == 1 + PER_SLOT * 10


def test_what_could_not_be_sent_may_be_sent_again():
    """Credits of entries that came back, or that ended while they waited, are not lost."""
    ours = Credits("ns", lambda: 0.0)
    partition = partition_of(ours)
    look(ours, Room({"default": 5}))
    for _ in range(20):
        partition.outbox.add(many(10))
        ours.arrived(partition)
        entries = ours.take(partition, 500)
        assert len(entries) == PER_SLOT * 5
        ours.again(partition, entries)
        ours.arrived(partition)
        for one in entries:
            partition.outbox.discard(one.token)
        assert ours.take(partition, 500) == []


def test_nothing_is_granted_to_a_partition_that_is_not_live_or_was_let_go():
    """What is more: it takes nothing away from the others."""
    ours = Credits("ns", lambda: 0.0)
    late, gone, other = (partition_of(ours, number) for number in range(3))
    for partition in (late, gone, other):
        partition.outbox.add(many(100, f"p{partition.number}-"))
    late.live = False
    gone.close()
    look(ours, Room({"default": 10}))
    assert [len(flush(ours, partition)) for partition in (late, gone, other)] == [0, 0, 21]
    assert ours.backlog() == {"default": [0] * 4 + [79] + [0] * 5}
    late.live = True
    ours.arrived(late)
    assert len(flush(ours, late)) == 1


LOW, HIGH = LEVELS - 1, 0


def levels(**at: int) -> list[int]:
    return [at.get("high", 0), *[0] * (LEVELS - 2), at.get("low", 0)]


@pytest.mark.parametrize(
    ("own", "others", "part"),
    [
        (levels(low=50), [], 20),
        (levels(low=1000), [levels(low=1000)], 10),
        (levels(low=1000), [levels(low=3000)], 5),
        (levels(low=1000), [levels(high=5)], 15),
        (levels(high=5), [levels(low=5000)], 5),
        (levels(low=1000), [levels(high=500)], 0),
        (levels(high=30, low=10), [levels(high=10, low=10)], 15),
        (levels(low=3), [levels(low=2), levels(low=2)], 16),
        (levels(), [levels(low=15)], 5),
        (levels(low=1), [levels(low=1000)], 1),
    ],
)
def test_owners_share_free_slots_by_what_waits(own, others, part):
    """Twenty of them: the highest priority has its fill, equals share by number, and what nobody needs is one's own."""
    assert split(20, own, others) == part
