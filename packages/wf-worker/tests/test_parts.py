"""The parts of a worker that need no server: frames, tails, lanes."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from wf_core.broker.protocol import Batch, OffsetOutOfRangeError, TopicPartition
from wf_core.catalogue import Catalogue
from wf_core.ids import new_execution_id
from wf_core.metrics import Counters
from wf_core.settings import Settings
from wf_core.states import AttemptStatus
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.scripts import BeatReply
from wf_core.wire import TaskMessage
from wf_worker import executors as executors_module
from wf_worker.executors import Executors
from wf_worker.frames import Cancel, Done, News, Run, Splitter, from_child, pack, to_child
from wf_worker.heartbeat import Heartbeat
from wf_worker.intake import Intake
from wf_worker.lanes import LATER_SECONDS, Lane, Lanes, Waiting, share
from wf_worker.leases import Leases
from wf_worker.loading import is_allowed, split_paths
from wf_worker.registration import Registration, new_worker_id
from wf_worker.reports import Reports
from wf_worker.tails import TAIL_BYTES, extended, tail_of
from wf_worker.teller import Teller

RUN = Run(id=1, execution="e", node="n", attempt=1, task="t", params=b"{}")


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_in_pieces(size: int):
    """Frames come out whole, in order, however the stream is cut."""
    stream = pack(RUN) + pack(Cancel(id=1)) + pack(RUN)
    splitter = Splitter()
    found = [to_child(body) for at in range(0, len(stream), size) for body in splitter.feed(stream[at : at + size])]
    assert found == [RUN, Cancel(id=1), RUN]
    assert from_child(pack(Done(id=2, output=b"1"))[4:]) == Done(id=2, output=b"1")


def test_frame_beyond_the_limit():
    """An absurd length means that the other side speaks something else."""
    with pytest.raises(ValueError, match="at most"):
        list(Splitter().feed(b"\xff\xff\xff\xff"))


def test_tail_is_bounded():
    """Of what was said the last lines are kept, at most 50 and 8 KiB, and no half characters."""
    assert tail_of("") == ""
    assert tail_of("a\nb\n") == "a\nb"
    assert tail_of("".join(f"{n}\n" for n in range(100))) == "\n".join(str(n) for n in range(50, 100))
    for cut in range(4):
        tail = tail_of("x" * cut + "\U0001f600" * TAIL_BYTES)
        assert TAIL_BYTES - 4 < len(tail.encode()) <= TAIL_BYTES
        assert set(tail) == {"…", "\U0001f600"}
    text = ""
    for n in range(10_000):
        text = extended(text, f"{n}\n")
    assert len(text) == TAIL_BYTES
    assert tail_of(text).endswith("\n9998\n9999")


def test_who_said_it():
    """A line belongs to the attempt that its fields name; with one attempt in a process, also what names none."""
    sent: list[News] = []
    for alone in (False, True):
        teller = Teller(sent.append, alone=alone)
        teller.begin(RUN)
        teller.said({"execution": "e", "node": "n", "attempt": 1}, "mine ")
        teller.said({}, "nobody's ")
        teller.said({"execution": "e", "node": "n", "attempt": 2}, "another's ")
        teller.end(RUN, tell=True)
        teller.said({}, "late")
    assert [news.said for news in sent] == ["mine ", "mine nobody's "]


def test_what_completed_is_not_told():
    """What an attempt said that completed is forgotten, and nothing is sent."""
    sent: list[News] = []
    teller = Teller(sent.append, alone=False)
    teller.begin(RUN)
    teller.said({"execution": "e", "node": "n", "attempt": 1}, "done")
    teller.end(RUN, tell=False)
    teller.end(RUN, tell=True)
    assert sent == []


def waiting(offset: int, partition: int, queued_at: int, priority: int = 5) -> Waiting:
    """A message of a new execution."""
    message = TaskMessage(
        execution=new_execution_id(partition, 1),
        node="n",
        attempt=1,
        task="t",
        params=b"{}",
        workflow="w",
        queued_at=queued_at,
        priority=priority,
    )
    return Waiting.of(offset, message)


def lane(number: int, *messages: Waiting) -> Lane:
    """A lane in which messages wait."""
    source = TopicPartition("tasks", number)
    return Lane(source, "default", f"key{number}", 0, len(messages), waiting={m.offset: m for m in messages})


def test_oldest_messages_are_picked_first():
    """Messages are picked by age over all lanes, in order within a lane, and as many as there are slots."""
    lanes = Lanes()
    lanes.add(lane(0, waiting(0, 1, 10), waiting(1, 1, 30)))
    lanes.add(lane(1, waiting(0, 1, 20), waiting(1, 1, 40)))
    assert [found.message.queued_at for _, found in lanes.pick(3, 0.0)] == [10, 20, 30]
    assert lanes.waiting == 4


def test_what_is_urgent_is_picked_before_what_is_older():
    """Credits let little wait here, but that may be of any priority; and a tail that yields, yields to the highest."""
    lanes = Lanes()
    lanes.add(lane(0, waiting(0, 1, 10), waiting(1, 1, 40, priority=8), waiting(2, 1, 30, priority=8)))
    lanes.add(lane(1, waiting(0, 1, 20, priority=9), waiting(1, 1, 5, priority=0)))
    assert [found.message.queued_at for _, found in lanes.pick(4, 0.0)] == [20, 30, 40, 10]


def test_offset_never_passes_what_waits():
    """The committed offset stays before the first message that waits, whatever was claimed behind it."""
    it = lane(0, waiting(0, 1, 1), waiting(1, 2, 2))
    assert it.position == 0
    del it.waiting[1]
    assert it.position == 0
    del it.waiting[0]
    assert it.position == 2


def test_messages_of_a_partition_that_is_not_live_are_passed():
    """LATER holds up only the messages of its event partition, and only for a moment."""
    lanes = Lanes()
    lanes.add(lane(0, waiting(0, 1, 1), waiting(1, 2, 2)))
    now = 100.0
    lanes.later(1, now)
    assert [found.partition for _, found in lanes.pick(9, now)] == [2]
    assert [found.partition for _, found in lanes.pick(9, now + 1)] == [1, 2]


def test_batches_of_an_assignment_that_is_over():
    """A batch that does not continue its lane is thrown away, and the reader is assigned anew."""
    lanes = Lanes()
    it = lane(0)
    lanes.add(it)
    lanes.changed = False
    assert lanes.lane_of(Batch(it.source, 0, [b""])) is it
    assert not lanes.changed
    assert lanes.lane_of(Batch(it.source, 5, [b""])) is None
    assert lanes.lane_of(Batch(TopicPartition("tasks", 9), 0, [b""])) is None
    assert lanes.changed


def test_share():
    """A queue's partitions are divided so that all are taken."""
    assert [share(32, n) for n in (0, 1, 3, 40)] == [32, 32, 11, 1]


def test_allow():
    """APP_WORKER_ALLOW names tasks; `*` allows all."""
    assert is_allowed("shell.run", ["shell.run"])
    assert not is_allowed("shell.run", [])
    assert is_allowed("shell.run", ["*"])


def test_paths():
    """Directories of task files become absolute."""
    assert split_paths("") == ()
    assert all(path.startswith("/") for path in split_paths("tasks: ./more"))


def test_worker_ids_differ():
    """Each worker has an id of its own, that no key or claim can misread."""
    ids = {new_worker_id() for _ in range(50)}
    assert len(ids) == 50
    assert not any(set("|/ ") & set(name) for name in ids)


class Started(list[str]):
    """Tokens that were started."""

    def __init__(self) -> None:
        super().__init__()
        self.one = asyncio.Event()

    def append(self, token: str) -> None:
        super().append(token)
        self.one.set()


def intake(lanes: Lanes, started: list[str], **parts: Any) -> Intake:
    """An intake with one free slot and parts that a test makes."""
    given = {"broker": None, "scripts": None, "leases": None, "dead_letters": None, "doubt": lambda: None, **parts}
    return Intake(
        settings=Settings(),
        worker_id="w",
        partitions=4,
        lanes=lanes,
        counters=Counters(),
        free=lambda: 1 - len(started),
        may_claim=lambda: True,
        may_commit=lambda: True,
        server=str,
        start=lambda token, _message, _asked: started.append(token),
        **given,
    )


async def test_later_is_asked_again_however_the_moment_ends(monkeypatch):
    """The moment may end between two looks at the clock: the message that waits must be asked for all the same."""
    ticks = itertools.count(1)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: next(ticks) * 0.03)
    answers = iter([["LATER"], ["OK"]])

    async def claim(*_args: Any, **_said: Any) -> list[str]:
        return next(answers)

    lanes, started = Lanes(), Started()
    lanes.add(lane(0, waiting(0, 1, 1)))
    it = intake(lanes, started, scripts=SimpleNamespace(claim=claim))
    claiming = asyncio.create_task(it.claim())
    it.wake()
    async with asyncio.timeout(2000):
        await started.one.wait()
    claiming.cancel()


async def test_one_timer_looks_again_however_often_slots_come_free():
    """While a message is LATER each look would set one more, and each of those would look for ever."""
    asked = 0

    def may_claim() -> bool:
        nonlocal asked
        asked += 1
        return False

    lanes = Lanes()
    lanes.add(lane(0, waiting(0, 1, 1)))
    it = intake(lanes, [])
    it._may_claim = may_claim
    claiming = asyncio.create_task(it.claim())
    for _ in range(30):
        it.wake()
        await asyncio.sleep(0.001)
    asked = 0
    await asyncio.sleep(4.5 * LATER_SECONDS)
    claiming.cancel()
    assert 1 <= asked <= 5


@pytest.mark.parametrize(("begin", "end", "onward"), [(5, 9, 5), (0, 7, 2), (0, 1, 1)])
async def test_what_the_log_lost_is_passed(begin, end, onward):
    """A lane goes on as near as it can to what it committed, and commits that: only so do sweeps find the orphans."""
    committed: list[int] = []

    async def look() -> bool:
        return False

    async def at(_source: TopicPartition, offset: int) -> int:
        return offset

    async def renew(_lane: Lane) -> bool:
        return True

    async def task_commit(_key: str, _worker: str, offset: int, _lease_ms: int, *, known: int) -> bool:
        assert known == 2
        committed.append(offset)
        return True

    lanes, it = Lanes(), lane(0, waiting(3, 1, 1))
    it.committed, it.next_read = 2, 4
    lanes.add(it)
    parts = {"scripts": SimpleNamespace(task_commit=task_commit), "leases": SimpleNamespace(look=look, renew=renew)}
    broker = SimpleNamespace(begin=functools.partial(at, offset=begin), end=functools.partial(at, offset=end))
    taking = intake(lanes, [], broker=broker, **parts)
    await taking._out_of_range(OffsetOutOfRangeError(it.source, 4))
    assert (it.next_read, it.waiting) == (onward, {})
    await taking.commit_all()
    assert committed == ([onward] if onward > 2 else [])


async def test_a_lane_that_was_rewound_while_a_record_was_buried():
    """What was read before the rewind is not put behind it, or what lies between would be passed."""
    lanes, it = Lanes(), lane(0)
    it.next_read = it.committed = 5
    lanes.add(it)

    async def bury(*_args: Any) -> None:
        lanes.rewind(it, 2)

    await intake(lanes, [], dead_letters=SimpleNamespace(bury=bury))._take_in(it, Batch(it.source, 5, [b"?"]))
    assert (it.next_read, it.committed) == (2, 2)


async def test_a_lane_goes_back_with_redis():
    """What the log lost together with the offset is read again from the offset that Redis stores, not passed."""
    lanes, it = Lanes(), lane(0, waiting(3, 1, 1))
    it.committed, it.next_read = 2, 4
    lanes.add(it)

    async def look() -> bool:
        return False

    async def renew(found: Lane) -> bool:
        lanes.rewind(found, 1)
        return True

    async def at(_source: TopicPartition) -> int:
        return 3

    parts = {"broker": SimpleNamespace(begin=at, end=at), "leases": SimpleNamespace(look=look, renew=renew)}
    await intake(lanes, [], **parts)._out_of_range(OffsetOutOfRangeError(it.source, 4))
    assert (it.committed, it.next_read) == (1, 1)


async def test_a_commit_overtakes_the_answer_of_a_lease():
    """An offset that was read before the commit is no sign that Redis forgot something."""
    lanes, it = Lanes(), lane(0, waiting(0, 1, 1))
    lanes.add(it)

    async def task_lease(*_args: Any, **_options: Any) -> int:
        it.committed = 3
        return 0

    doubts: list[int] = []
    assert await leasing(lanes, task_lease, lambda: doubts.append(1)).renew(it)
    assert it.committed == 3
    assert it.waiting
    assert not doubts


def leasing(lanes: Lanes, task_lease: Callable[..., Any], doubt: Callable[[], None]) -> Leases:
    """Leases of what a test answers."""
    return Leases(
        None,
        SimpleNamespace(task_lease=task_lease),
        Settings(),
        SimpleNamespace(worker_id="w"),
        lanes,
        queues=[],
        partitions=1,
        incarnation="",
        free=int,
        on_lanes=int,
        doubt=doubt,
    )


async def test_what_redis_forgot_is_doubted_before_it_is_read_again():
    """A lower offset than was committed, or a commit that is refused: nothing is claimed before a heartbeat looked."""
    lanes, it = Lanes(), lane(0, waiting(4, 1, 1))
    it.committed, it.next_read = 3, 5
    lanes.add(it)
    seen: list[tuple[int, bool]] = []

    async def task_lease(*_args: Any, **_options: Any) -> int:
        return 1

    async def task_commit(*_args: Any, **_options: Any) -> bool:
        return False

    def doubt() -> None:
        seen.append((it.next_read, it.source in lanes))

    await leasing(lanes, task_lease, doubt).renew(it)
    assert (seen, it.next_read) == ([(5, True)], 1)
    lanes.skip(it, 2)
    parts = {"scripts": SimpleNamespace(task_commit=task_commit), "leases": SimpleNamespace(wake=int)}
    await intake(lanes, [], doubt=doubt, **parts).commit_all()
    assert (seen[1:], it.source in lanes) == ([(2, True)], False)


def test_messages_of_a_partition_that_nobody_serves_are_shed():
    """Beyond what may wait, the oldest of a partition that has answered LATER for long; no others."""
    lanes, it = Lanes(), lane(0, *(waiting(n, 1 + n % 2, n) for n in range(8)))
    lanes.add(it)
    for moment in range(30):
        lanes.later(1, 100.0 + moment / 10)
    lanes.later(2, 102.9)
    assert lanes.claimable(102.9) == 0
    assert lanes.unserved(5.0, 102.9) == set()
    assert lanes.unserved(2.0, 102.9) == {1}
    assert lanes.unserved(2.0, 110.0) == set()
    assert lanes.shed(5, {1}) == 3
    assert (list(it.waiting), it.position) == ([1, 3, 5, 6, 7], 1)
    lanes.later(1, 110.0)  # it was served meanwhile, or nobody asked
    assert lanes.unserved(2.0, 110.0) == set()


@pytest.mark.parametrize("served", [True, False])
async def test_nothing_is_shed_while_no_partition_is_served(served):
    """Dropping is for the sake of other partitions: while all owners are away a worker stops reading at its limit."""
    lanes = Lanes()
    lanes.add(lane(0, *(waiting(n, 1, n) for n in range(640))))
    now = asyncio.get_running_loop().time()
    for ago in range(60, 0, -1):
        lanes.later(1, now - ago / 10)
    asked: list[str] = []

    async def claim(keys: PartitionKeys, *_args: Any, **_options: Any) -> list[str]:
        asked.append(keys.meta)
        return ["STALE"] if served and len(asked) == 3 else ["LATER"]

    it = intake(lanes, [], scripts=SimpleNamespace(claim=claim))
    lanes.later(1, asyncio.get_running_loop().time())
    assert await it._is_full() is not served
    assert lanes.waiting == (576 if served else 640)
    assert len(asked) == (3 if served else 4)


class Beats:
    """Redis, of whose partitions some do not answer; and all else that a heartbeat needs."""

    def __init__(self, *silent: int) -> None:
        self.silent = silent
        self.heard: list[str] = []
        self.away = False
        self.worker_id = self.server = "w"

    async def beat(self, keys: PartitionKeys, *_args: Any) -> BeatReply:
        if any(keys == PartitionKeys.of("wf", partition) for partition in self.silent):
            raise ConnectionError("a server of the cluster is away")
        await asyncio.sleep(0.01)  # later than the error
        self.heard.append(keys.meta)
        return BeatReply([], [], [], [])

    async def sync(self, _redis: Any) -> None:
        if self.away:
            raise ConnectionError("a server of the cluster is away")

    async def publish(self) -> None:
        return None

    async def restarted(self) -> None:
        return None

    def running(self) -> list[str]:
        return [waiting(0, partition, 1).token for partition in (1, 2, 3)]

    def progress(self) -> dict[str, bytes]:
        return {}

    def undecided(self) -> dict[str, str]:
        return {}

    def decided(self, tokens: list[str]) -> None:
        assert tokens == []

    def heartbeat(self) -> Heartbeat:
        """One that beats for three partitions."""
        reports = Reports(None, "wf", str, Counters())
        settings = Settings(namespace="wf")
        return Heartbeat(None, self, settings, self, self, self, reports, Counters(), self.restarted)


@pytest.mark.parametrize("away", [False, True])
async def test_a_heartbeat_reaches_every_partition_that_answers(away):
    """One server of a cluster that is away does not keep this worker's heartbeats from the others."""
    beats = Beats(1)
    beats.away = away
    it = beats.heartbeat()
    with pytest.raises(ConnectionError):
        await it.beat()
    assert beats.heard == [PartitionKeys.of("wf", partition).meta for partition in (2, 3)]
    assert not it.may_claim()


async def test_an_attempt_whose_process_cannot_start_is_lost(monkeypatch):
    """Whatever the reason is: an attempt that nobody ends would be beaten for ever."""
    monkeypatch.setattr(executors_module, "_SPAWN_PAUSE", 0.0)
    ended: list[Any] = []
    it = Executors(
        SimpleNamespace(slots=1), lambda: 1, lambda attempt, how: ended.append((attempt.token, how)), lambda: None
    )
    info = SimpleNamespace(executor="process", shipped_by="", timeout_ms=None)
    it.runners.catalogue = SimpleNamespace(tasks={"t": info})

    async def spawn(*_args: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Executors, "_spawn", spawn)
    it.run("token", waiting(0, 1, 1).message)
    async with asyncio.timeout(2):
        await it.idle()
    assert [(token, how.status) for token, how in ended] == [("token", AttemptStatus.LOST)]
    assert it.free == 1
    await it.close()


class Peers:
    """Redis, as far as it is asked for peers: it is its own pipeline."""

    def __init__(self, heard: dict[str, int]) -> None:
        self.heard = heard
        self.asked: list[str] = []

    async def zrangebyscore(self, _key: str, since: int, _end: str) -> list[bytes]:
        return [name.encode() for name, at in self.heard.items() if at >= since]

    def pipeline(self, *, transaction: bool) -> Peers:
        assert not transaction
        return self

    def get(self, key: str) -> None:
        self.asked.append(key)

    async def execute(self) -> list[bytes]:
        return [msgspec.json.encode({"id": key.rpartition(":")[2], "queues": ["q"], "free": 1}) for key in self.asked]


async def test_the_dead_get_no_share():
    """A killed worker's entry lives on for a while; its share of the partitions must not wait for that."""
    now = 1_000_000
    running = SimpleNamespace(free=3, slots=4, catalogue=Catalogue())
    redis = Peers({"w": now, "late": now - 2000, "dead": now - 3000})
    clock = SimpleNamespace(now_ms=lambda: now)
    it = Registration(redis, InstallationKeys("ns"), clock, "w", ["q"], running, 2500, waiting=lambda: 3)
    assert [peer.id for peer in await it.peers()] == ["w", "late"]
    assert msgspec.json.decode(it._entry("c"))["free"] == 3
    it.leaving = True
    assert msgspec.json.decode(it._entry("c"))["free"] == 0
