"""Steps of the shell, one at a time: what each asks of Redis and the log, and what it makes of the answer."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from wf_core.broker.protocol import RecordTooLargeError, TopicPartition
from wf_core.errors import UnavailableError
from wf_core.metrics import Counters
from wf_core.store.commands import pack_command
from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Lease
from wf_orchestrator import checkpoint, firing, recovery, sending, sweeps
from wf_orchestrator import outbox as outbox_module
from wf_orchestrator.context import Context, PartitionLostError, every
from wf_orchestrator.credits import Credits
from wf_orchestrator.crew import Crew
from wf_orchestrator.machine.state import PartitionState
from wf_orchestrator.outbox import Window
from wf_orchestrator.ownership import Ownership, go_live
from wf_orchestrator.partition import Partition
from wf_orchestrator.positions import Sent, Where
from wf_orchestrator.queries import Claims, OutboxEntry
from wf_orchestrator.recovery import Doubts, settle_offset


def entry(token, score):
    return OutboxEntry(float(score), token, "default", b"")


class Servers:
    """Redis and the log, as far as sweeps and leases ask them, on a clock that a test moves."""

    def __init__(self):
        self.now = 100.0
        self.condemned: list[str] = []
        self.holds: set[str] = set()
        self.begun_before: set[str] = set()
        self.appended: list[object] = []
        self.renewed: list[tuple[int | None, bool]] = []
        self.accepted: dict[str, bytes] = {}
        self.buried: list[bytes] = []
        self.written: list[object] = []
        self.log_end = 3
        self.refuses = False
        self.stored = 5
        self.condemns = True
        self.found = Claims({}, {})
        self.health = SimpleNamespace(failed=lambda _error: None)
        self.fetched = 0
        self.incarnation = "i"
        self.namespace = "ns"
        self.lease_ms = 1000
        self.settings = SimpleNamespace(orphan_seconds=8.0, death_seconds=2.5)
        self.counters = Counters()
        self.id = "o"
        self.clock = SimpleNamespace(now_ms=lambda: 1)
        self.serial = iter(range(100))
        self.task_partitions = 8
        self.credits = Credits("ns", lambda: self.now)
        self.counts: dict[str, int] = {}
        self.log = self.scripts = self.queries = self

    lost = Context.lost  # the real one

    def monotonic(self):
        return self.now

    def events(self, partition):
        return TopicPartition("ns.events", partition)

    async def task_offsets(self, places):
        return dict.fromkeys(places, (0, "i"))

    async def end(self, _source):
        return self.log_end

    async def claimed(self, _keys, tokens):
        return self.holds.intersection(tokens)

    async def begun(self, _keys):
        return set(self.begun_before)

    async def condemn(self, _keys, _nonce, token, *_judgement, **_where):
        self.condemned.append(token)
        return self.condemns

    async def claims(self, partitions):
        return [self.found] * len(partitions)

    async def outbox_counts(self, _keys, _until):
        return self.counts

    async def ensure_topics(self, _topics):
        pass

    async def sleep(self, seconds):
        self.now += seconds

    async def renew(self, _keys, _nonce, _lease_ms, offset, *, live=False):
        self.renewed.append((offset, live))
        return self.stored

    async def append(self, target, records):
        if not isinstance(target, TopicPartition):
            self.appended += records
            return []
        if target.topic != "ns.events":
            self.buried += records
            return [0] * len(records)
        if self.refuses:
            raise RecordTooLargeError("too large for this broker")
        self.appended += records
        first, self.log_end = self.log_end, self.log_end + len(records)
        return list(range(first, self.log_end))

    async def waiting(self, _keys):
        return list(self.accepted)

    async def commands(self, _keys, fields):
        self.fetched += len(fields)
        return {field: self.accepted[field] for field in fields}

    async def apply(self, _keys, _nonce, _previous, _next, _batch, ops, **_moved):
        self.written += ops
        return "OK"


def owned() -> Partition:
    """A live partition."""
    state = PartitionState(0, 0)
    return Partition(0, PartitionKeys.of("ns", 0), "nonce", "i", 0, offset=5, catch_up=0, state=state, live=True)


@pytest.mark.parametrize("step", [sending.load, sending.rescan])
async def test_what_ends_while_the_outbox_is_read_does_not_come_back(step):
    """The outbox is read between two batches: nobody would ever take out what came back then."""
    servers, partition, ending = Servers(), owned(), []

    async def batch():
        async with partition.lock:
            partition.outbox.discard("ended")

    async def read(_keys, _most):
        ending.append(asyncio.ensure_future(batch()))
        for _ in range(3):
            await asyncio.sleep(0)
        return [entry("ended", 0)], {}

    partition.outbox.resurrected([entry("ended", 0)])  # the scan before found it as well
    servers.outbox, servers.counts = read, {"default": 1}
    await step(servers, partition)
    await asyncio.gather(*ending)
    assert (len(ending), len(partition.outbox)) == (1, 0)


async def test_a_re_scan_reads_nothing_while_the_numbers_are_right():
    """However much waits, and whatever of it lies beyond the window: counting is enough."""
    servers, partition = Servers(), owned()
    partition.outbox.read([entry(str(i), i) for i in range(3)], {"default": 2.0})
    servers.counts = {"default": 3}
    await sending.rescan(servers, partition)
    with pytest.raises(AttributeError):  # it is not there, and was not asked for
        servers.outbox  # noqa: B018


async def test_what_redis_forgot_to_have_sent_waits_in_no_topic():
    """It is sent again at once: its old message, which may be lost, takes up no room."""
    servers, partition = Servers(), owned()
    servers.credits.join(partition)
    token = "01jz0000000000000000000000" + "00/n/1"
    partition.sent[token] = Sent(Where(TopicPartition("ns.tasks.default", 0), 7, "i"), 0.0)
    servers.counts = {}

    async def read(_keys, _most):
        return [entry(token, 1)], {}

    servers.outbox = read
    partition.outbox.windows["default"] = Window()
    for _ in range(2):
        await sending.rescan(servers, partition)
    assert (list(partition.sent), partition.outbox.granted) == ([], {"default": 1})


async def test_a_window_that_could_not_be_read_is_read_again(monkeypatch):
    """What does not fit into the window waits in Redis, and is not forgotten when Redis is away."""
    monkeypatch.setattr(outbox_module, "WINDOW", 2)
    servers, partition = Servers(), owned()
    partition.outbox.add([entry(str(i), i) for i in range(5)])
    for i in range(2):
        partition.outbox.discard(str(i))

    async def away(_keys, _most):
        raise UnavailableError("away")

    servers.outbox = away
    with contextlib.suppress(UnavailableError):
        await sending.load(servers, partition)
    assert partition.outbox.is_short


async def test_messages_go_where_none_are_stuck():
    """Behind a worker whose slots are taken messages lie; the next ones are spread evenly over the other lanes."""
    servers, partition = Servers(), owned()
    lanes = [TopicPartition("ns.tasks.default", n) for n in range(8)]
    for n in range(60):
        partition.sent[f"stuck{n}"] = Sent(Where(lanes[n % 3], n, "i"), 0.0)
    sender = sending.Sender(servers, 5)
    for round_ in range(10):
        sent = (await sender.send([entry(f"{round_}/{n}", n) for n in range(7)], partition.sent.lanes)).sent
        for one, where in sent:
            partition.sent[one.token] = Sent(where, 0.0)
    assert [partition.sent.lanes[lane] for lane in lanes] == [20, 20, 20, 14, 14, 14, 14, 14]


async def test_what_lies_past_the_end_of_its_topic_is_an_orphan():
    """The ends are asked for now and then only, yet what lies past one is seen there for a whole death time."""
    servers, partition = Servers(), owned()
    token = "01jz0000000000000000000000" + "00/n/1"
    partition.sent[token] = Sent(Where(TopicPartition("ns.tasks.q", 0), 7, "i"), 0.0)
    for step in range(5):
        await sweeps.orphans(servers, partition, look_at_ends=step == 0)
        servers.now += 2.0
    assert token in servers.condemned


async def test_what_a_worker_began_and_forgot_is_an_orphan():
    """It has no message anywhere: unclaimed for a whole death time it is lost, whoever owned the partition before."""
    servers, partition = Servers(), owned()
    ours, theirs, runs = (f"01jz000000000000000000000000/{node}/1" for node in ("ours", "theirs", "runs"))
    partition.begun |= {ours, runs}
    servers.begun_before = {theirs}
    servers.holds = {ours, theirs, runs}
    await sweeps.orphans(servers, partition)
    servers.holds = {runs}
    for _ in range(2):
        await sweeps.orphans(servers, partition)
        servers.now += 2.0
        assert servers.condemned == []
    await sweeps.orphans(servers, partition)
    assert servers.condemned == sorted([ours, theirs])
    assert [(event.node, event.reason) for event in servers.appended] == [("ours", "orphan"), ("theirs", "orphan")]


async def test_a_command_that_the_log_refuses_is_buried():
    """A broker that takes smaller records than the API does not end the service, again and again."""
    servers, partition = Servers(), owned()
    field = "x/create"
    servers.accepted = {field: pack_command(1, [b"record"], "")}
    servers.refuses = True
    await sweeps.accepted(servers, partition)
    servers.now += sweeps.ACCEPTED_SECONDS
    await sweeps.accepted(servers, partition)
    assert len(servers.buried) == 1
    assert servers.written == [("HDEL", partition.keys.accepted, field)]


async def test_a_command_is_not_given_up_while_the_partition_lags_behind():
    """A try counts when its record was passed: however long the owner needs, what only waits for its turn is kept."""
    servers, partition = Servers(), owned()
    servers.accepted = {f"{i}/create": pack_command(1, [b"record"], "") for i in range(3)}
    servers.log_end = 1000
    for _ in range(3 * sweeps.ACCEPTED_TRIES):
        await sweeps.accepted(servers, partition)
        servers.now += sweeps.ACCEPTED_SECONDS
    assert (servers.appended, servers.buried) == ([], [])
    assert servers.fetched == 0, "the bytes of what is not due are not read"
    partition.offset = 1000
    await sweeps.accepted(servers, partition)
    servers.now += sweeps.ACCEPTED_SECONDS
    await sweeps.accepted(servers, partition)
    assert len(servers.appended) == 3, "the copies were not passed yet"
    for tries in range(2, sweeps.ACCEPTED_TRIES + 2):
        partition.offset = servers.log_end
        servers.now += sweeps.ACCEPTED_SECONDS
        await sweeps.accepted(servers, partition)
        assert len(servers.appended) == 3 * min(tries, sweeps.ACCEPTED_TRIES)
    assert len(servers.buried) == 3


async def test_commands_that_wait_are_read_a_few_at_a_time(monkeypatch):
    """However many wait, one step reads and appends no more than `MOST`; the next step takes the others."""
    monkeypatch.setattr(sweeps, "MOST", 2)
    servers, partition = Servers(), owned()
    servers.accepted = {f"{i}/create": pack_command(1, [b"record"], "") for i in range(5)}
    servers.log_end = partition.offset
    counts = []
    for _ in range(5):
        await sweeps.accepted(servers, partition)
        counts.append(len(servers.appended))
        servers.now += sweeps.ACCEPTED_SECONDS / 2
        partition.offset = servers.log_end
    assert counts == [0, 0, 2, 4, 6]


async def test_a_lease_is_renewed_while_a_batch_is_folded():
    """The lock is held for as long as a large document compiles; leases last less."""
    servers, partition = Servers(), owned()
    ownership = Ownership(servers, Crew(), lambda _partition: None)
    async with asyncio.timeout(2), partition.lock:
        await ownership._renew(partition)
    assert servers.renewed == [(None, False)]
    assert not partition.closed
    await ownership._renew(partition)
    assert servers.renewed == [(None, False), (5, True)]


async def test_nothing_is_sent_before_the_partition_is_live():
    """What Redis holds after a roll-back may be older than the log: first everything that was there is folded."""
    servers, partition = Servers(), owned()
    partition.live, partition.catch_up = False, 6
    partition.outbox.add([entry("x/a/1", 1)])
    sender = sending.Sender(SimpleNamespace(task_partitions=1, incarnation="i"))
    servers.credits.join(partition)
    servers.credits.arrived(partition)
    assert not await sending.flush(servers, sender, partition)
    assert len(partition.outbox) == 1
    await go_live(servers, partition)
    assert (servers.renewed, partition.live) == ([], False)
    partition.offset = 5 + 1
    servers.stored = 6
    await go_live(servers, partition)
    assert (servers.renewed, partition.live) == ([(6, True)], True)


async def test_a_roll_back_makes_nothing_live():
    """The offset that Redis stores is not the owner's: it lets go, and remembers nothing."""
    servers, partition = Servers(), owned()
    partition.live, servers.stored = False, 4
    with pytest.raises(PartitionLostError, match="Redis rolled back: it stores offset 4, not 5"):
        await go_live(servers, partition)
    assert not partition.live


@pytest.mark.parametrize("condemned", [True, False])
async def test_an_attempt_is_lost_when_its_claim_was_taken_away_and_not_before(condemned):
    """A heartbeat between the judgement and the sentence saves the attempt: no record is appended."""
    servers, partition = Servers(), owned()
    servers.condemns = condemned
    token = "01jz0000000000000000000000" + "00/n/1"
    servers.found = Claims({token: "w"}, {"w": "7"})
    for _ in range(6):
        await sweeps.dead(servers, partition, await sweeps.look(servers, [partition]))
        servers.now += 1.0
    assert servers.condemned[:1] == [token]
    assert bool(servers.appended) is condemned


async def test_an_apply_whose_reply_was_lost_is_repeated_under_its_name():
    """The batch id tells the repetition: `DUP` is success, and the offset moves once."""
    servers, partition = Servers(), owned()
    names: list[str] = []

    async def apply(_keys, _nonce, _previous, _next, batch, _ops, **_moved):
        names.append(batch)
        if len(names) == 1:
            raise ConnectionError("the reply was lost")
        return "DUP"

    servers.apply = apply
    await checkpoint.apply(servers, partition, 9, [], "digest")
    assert (names[0] == names[1], partition.offset, partition.last) == (True, 9, "digest")


@pytest.mark.parametrize("answer", ["FENCED", "BEHIND"])
async def test_an_apply_that_is_refused_lets_the_partition_go(answer):
    """Another owner, or a roll-back: what is in memory is worth nothing any more."""
    servers, partition = Servers(), owned()

    async def apply(*_arguments, **_moved):
        return answer

    servers.apply = apply
    with pytest.raises(PartitionLostError, match=answer):
        await checkpoint.apply(servers, partition, 9, [], "digest")
    assert partition.offset == 5


async def test_workers_that_are_gone_are_taken_off_the_heartbeats():
    """Ids of workers are new per process: those that were silent for long and hold nothing would pile up."""
    servers, partition = Servers(), owned()
    servers.found = Claims({"x/a/1": "holds"}, {"holds": "1", "beats": "1", "gone": "1"})
    partition.watch.observe(servers.found.beats, [], 0.0, 0.0, gap=1.0)
    servers.now = sweeps.PRUNE_SECONDS + 1
    partition.watch.beats["beats"] = ("2", servers.now)
    await sweeps.prune(servers, partition)
    assert servers.written == [("HDEL", partition.keys.heartbeats, "gone")]


async def test_a_step_is_tried_again_soon():
    """However rare a step is, it does not wait for its next turn when a server was away for a moment."""
    slept: list[float] = []
    answers = iter([True, False, False, True])

    async def step():
        if not next(answers):
            raise UnavailableError("away")

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 4:
            raise asyncio.CancelledError

    context = SimpleNamespace(sleep=sleep, health=SimpleNamespace(failed=lambda _error: None))
    with contextlib.suppress(asyncio.CancelledError):
        await every(context, 1.0, step)
    assert slept == [1.0, 0.1, 0.2, 1.0]


async def test_a_step_that_fails_waits_although_it_is_woken():
    """Whatever wakes it, a server that is away is not asked again and again."""
    wake, slept = asyncio.Event(), list[float]()

    async def step():
        wake.set()
        raise UnavailableError("away")

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    context = SimpleNamespace(sleep=sleep, health=SimpleNamespace(failed=lambda _error: None))
    with contextlib.suppress(asyncio.CancelledError):
        await every(context, 0.05, step, wake=wake)
    assert slept == [0.1, 0.2, 0.4]


async def test_a_step_is_woken():
    """It does not wait for its next turn, and what woke it while it was under way wakes it once more."""
    wake, steps = asyncio.Event(), []

    async def step():
        steps.append(1)
        if len(steps) < 5:
            wake.set()
        else:
            raise asyncio.CancelledError

    async with asyncio.timeout(5):
        with contextlib.suppress(asyncio.CancelledError):
            await every(SimpleNamespace(), 3600.0, step, wake=wake)
    assert len(steps) == 5


@pytest.mark.parametrize("kind", ["withdraw", "queue"])
async def test_attempts_that_workers_keep_are_asked_for_less_and_less_often(kind):
    """A thousand claimed attempts under halt: within two minutes each is asked for a few times, not sixty."""
    asked: list[str] = []
    now = [1_000_000]

    async def withdraw(_keys, _nonce, tokens):
        asked.extend(tokens)
        return []

    async def claimed(_keys, _tokens):
        return set()

    partition = owned()
    partition.timers.horizon = 10**12
    for i in range(1000):
        partition.timers.set(f"{kind}|x/n{i}/1", now[0])
    context = SimpleNamespace(
        clock=SimpleNamespace(now_ms=lambda: now[0]),
        monotonic=lambda: now[0] / 1000,
        scripts=SimpleNamespace(withdraw=withdraw),
        queries=SimpleNamespace(claimed=claimed),
    )
    end = now[0] + 120_000
    while now[0] < end:
        await firing.fire(context, partition)
        now[0] += 50
    assert 5000 <= len(asked) <= 7000
    assert len(set(asked)) == 1000


async def test_a_newer_log_than_ours_is_not_taken_for_a_lost_one(monkeypatch):
    """The last owner knew of the new log before this orchestrator did: nothing is read from the beginning again."""
    context = SimpleNamespace(incarnation="old")

    async def look(it):
        it.incarnation = "new"

    monkeypatch.setattr(recovery, "look_at_incarnation", look)
    lease = Lease("nonce", 4, "new", 0, 0)
    assert await settle_offset(context, Doubts(), PartitionKeys.of("ns", 0), 0, lease, 9) is lease
