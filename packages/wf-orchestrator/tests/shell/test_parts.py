"""The parts of the shell that hold no connection."""

from __future__ import annotations

import asyncio
import itertools

from wf_core.broker.protocol import Batch, TopicPartition
from wf_core.policies import ReadyNode
from wf_orchestrator import outbox as outbox_module
from wf_orchestrator.batches import chunks
from wf_orchestrator.outbox import Outbox
from wf_orchestrator.positions import Sent, SentMessages, Where, parse_where
from wf_orchestrator.queries import OutboxEntry
from wf_orchestrator.ready import Order, Ranked
from wf_orchestrator.recovery import Doubts
from wf_orchestrator.timers import AGAIN_MS, LONGEST_MS, STEP_MS, Alarm, Timers
from wf_orchestrator.watch import Watch


def entry(token, score):
    return OutboxEntry(float(score), token, "default", b"")


def taken(box: Outbox, most: int, granted: int = 100) -> list[str]:
    """The tokens that may be sent now, when so many are granted."""
    box.granted = {"default": granted}
    return [e.token for e in box.first(most)]


def test_the_outbox_gives_entries_by_score_and_keeps_them_until_they_are_sent():
    """Lower scores go first; what could not be sent comes again; what ended meanwhile does not."""
    box = Outbox()
    early, middle = entry("early", 1), entry("middle", 5)
    box.add([entry("late", 9), early, middle])
    assert taken(box, 2) == ["early", "middle"]
    assert box.discard("early")
    box.again([early, middle])
    assert taken(box, 10) == ["middle", "late"]
    assert len(box) == 2


def test_the_outbox_gives_what_was_granted():
    """Credits are per queue, and are used up."""
    box = Outbox()
    box.add([entry(str(i), i) for i in range(5)])
    assert taken(box, 10, granted=2) == ["0", "1"]
    assert not box.may_send
    assert box.first(10) == []


def test_the_outbox_keeps_a_window_and_says_that_there_is_more(monkeypatch):
    """Memory is bounded: what does not fit waits in Redis, and what comes before it is taken in all the same."""
    monkeypatch.setattr(outbox_module, "WINDOW", 4)
    box = Outbox()
    box.add([entry(f"n{i}", i) for i in range(10, 19)])
    assert len(box) == 4
    assert box.known() == {"default": (13.0, 4)}
    box.add([entry("behind", 30), entry("before", 1)])
    assert len(box) == 5
    assert not box.is_short
    assert taken(box, 4) == ["before", "n10", "n11", "n12"]
    assert taken(box, 4) == ["n13"]
    assert box.is_short
    box.read([entry("n14", 14), entry("n15", 15), entry("n16", 16), entry("n17", 17)], {"default": 17.0})
    box.read([entry("n17", 17), entry("n18", 18), entry("behind", 30)], {})
    assert not box.is_short
    assert taken(box, 9) == ["n14", "n15", "n16", "n17", "n18", "behind"]


def test_what_a_policy_ranks_is_taken_in_wherever_it_lies(monkeypatch):
    """It may have to go before all that is in the window."""
    monkeypatch.setattr(outbox_module, "WINDOW", 4)
    box = Outbox()
    ranked = {f"x/n{i}/1": Ranked(ReadyNode(f"n{i}", i, 5, 0, i), Order(tall_first)) for i in (*range(9), 40)}
    box.add([entry(f"x/n{i}/1", i) for i in range(9)], ranked)
    box.add([entry("x/n40/1", 40)], ranked)
    assert box.known() == {"default": (3.0, 4)}
    assert taken(box, 2) == ["x/n40/1", "x/n3/1"]


def tall_first(ready):
    return sorted(ready, key=lambda node: -node.height)


def test_an_entry_is_resurrected_when_two_scans_find_it_unknown():
    """One scan may race with a send; two in a row cannot. What lies beyond the window is nothing new."""
    box = Outbox()
    box.read([entry("pending", 1)], {"default": 1.0})
    assert box.resurrected([entry("pending", 1), entry("back", 0), entry("beyond", 2)]) == []
    assert [e.token for e in box.resurrected([entry("back", 0), entry("beyond", 2)])] == ["back"]
    assert box.resurrected([]) == []


def test_timers_fire_oldest_first_and_again_only_after_a_pause():
    """A timer stays until it is cleared; its record may be lost, so it fires again after two seconds."""
    timers = Timers()
    timers.replace([("retry|b", 20), ("retry|a", 10), ("retry|far", 90_000)], 60_000)
    assert len(timers) == 2
    assert not timers.waits(5)
    assert timers.due(30, 1) == ["retry|a"]
    assert timers.due(30, 9) == ["retry|b"]
    assert timers.due(31, 9) == []
    timers.clear("retry|b")
    assert timers.due(31 + AGAIN_MS, 9) == ["retry|a"]


def test_a_timer_that_fires_in_vain_is_put_off():
    """Each time twice as long, a minute at most; one that is set anew, or cleared, is as new."""
    timers = Timers()
    timers.horizon = 10**9
    timers.set("withdraw|a", 10)
    fired, now = [], 10
    while now < 300_000:
        if timers.due(now, 9):
            fired.append(now)
            timers.put_off("withdraw|a", now)
        now += STEP_MS
    gaps = [round((b - a) / 1000) for a, b in itertools.pairwise(fired)]
    assert gaps[:7] == [4, 8, 16, 32, 60, 60, 60]
    timers.set("withdraw|a", now)
    assert timers.due(now, 9) == ["withdraw|a"]
    assert timers.due(now + AGAIN_MS, 9) == ["withdraw|a"]
    timers.clear("withdraw|a")
    timers.put_off("withdraw|a", now)
    assert timers.due(now + LONGEST_MS, 9) == []


def test_no_more_timers_fire_than_may_however_often_they_are_looked_at():
    """A look that something woke takes what the next one would have taken."""
    timers = Timers()
    timers.replace([(f"retry|{i}", 1) for i in range(10)], 60_000)
    assert [len(timers.due(now, 4)) for now in (100, 110, 149, 150, 151, 200)] == [4, 0, 0, 4, 0, 2]


async def test_the_alarm_rings_when_a_timer_is_due_that_was_just_set():
    """At once, or in a moment; what is further away is found by looking."""
    alarm = Alarm(lambda: 1000)
    alarm.set(1000 + STEP_MS)
    assert not alarm.rings.is_set()
    alarm.set(1000)
    assert alarm.rings.is_set()
    alarm.rings.clear()
    alarm.set(1001)
    assert not alarm.rings.is_set()
    async with asyncio.timeout(5):
        await alarm.rings.wait()


def test_a_reread_of_the_timers_drops_those_that_redis_does_not_hold():
    """The zset is the truth: a roll-back may bring timers back or take them away."""
    timers = Timers()
    timers.replace([("retry|a", 10)], 60_000)
    timers.replace([("retry|b", 20)], 60_000)
    assert timers.due(100, 9) == ["retry|b"]


def test_silence_counts_only_while_the_owner_itself_had_contact():
    """A counter that stands still means death only to an owner that watched all the time."""
    watch = Watch()
    watch.observe({"w": "1"}, ["w"], 10.0, 10.1, gap=1.0)
    watch.observe({"w": "1"}, ["w"], 11.0, 11.1, gap=1.0)
    assert round(watch.silent_for("w", 11.0), 1) == 0.9
    watch.observe({"w": "1"}, ["w"], 20.0, 20.1, gap=1.0)
    assert watch.silent_for("w", 20.5) < 0.5
    watch.observe({"w": "2"}, ["w"], 20.6, 20.7, gap=1.0)
    assert watch.silent_for("w", 20.7) == 0


def test_a_batch_is_cut_by_bytes_and_by_events():
    """One APPLY takes at most 500 events and 4 MiB; a single larger record travels alone."""
    small = Batch(TopicPartition("t", 0), 7, [b"x"] * 1200)
    assert [(offset, len(records)) for offset, records in chunks(small)] == [(7, 500), (507, 500), (1007, 200)]
    large = Batch(TopicPartition("t", 0), 0, [b"x" * 5 * 2**20, b"y", b"z"])
    assert [(offset, len(records)) for offset, records in chunks(large)] == [(0, 1), (1, 2)]


def test_a_position_survives_being_written():
    """Topics may hold dashes and dots."""
    where = Where(TopicPartition("wf.tasks.gpu-a.b", 3), 17, "abc")
    assert str(where) == "wf.tasks.gpu-a.b-3:17:abc"
    assert parse_where(str(where)) == where


def test_what_was_sent_is_counted_by_topic_and_by_task_partition():
    """A copy of a message counts once, where the newest lies; so does what workers have taken, until it ends."""
    sent = SentMessages()
    for i, name in enumerate("abcda"):
        sent[name] = Sent(Where(TopicPartition("t", i), i, "i"), 0.0)
    assert (sent.topics["t"], sum(sent.lanes.values()), sent.lanes[TopicPartition("t", 0)]) == (4, 4, 0)
    sent.look({"a", "b", "gone"}, "i")
    assert sent.taken["t"] == 2
    del sent["a"], sent["c"]
    assert (sent.topics["t"], sent.taken["t"]) == (2, 1)
    for claims, incarnation in ((None, "i"), (set(), "another log")):
        sent.look(claims, incarnation)
        assert sent.taken["t"] == 2


def test_a_finding_is_believed_when_it_is_made_twice():
    """A new leader of the log may lag: one look is no proof."""
    doubts = Doubts()
    assert not doubts.confirmed(1, ("i", 9, 5))
    assert not doubts.confirmed(1, ("i", 9, 6))
    assert doubts.confirmed(1, ("i", 9, 6))
    assert not doubts.confirmed(1, ("i", 9, 6))
