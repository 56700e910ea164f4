"""The parts of the shell that hold no connection."""

from __future__ import annotations

from wf_core.broker.protocol import Batch, TopicPartition
from wf_orchestrator import outbox as outbox_module
from wf_orchestrator.batches import chunks
from wf_orchestrator.outbox import Outbox
from wf_orchestrator.positions import Where, parse_where
from wf_orchestrator.queries import OutboxEntry
from wf_orchestrator.recovery import Doubts
from wf_orchestrator.timers import AGAIN_MS, Timers
from wf_orchestrator.watch import Watch


def entry(token, score):
    return OutboxEntry(float(score), token, "default", b"")


def test_the_outbox_gives_entries_by_score_and_keeps_them_until_they_are_sent():
    """Lower scores go first; what could not be sent comes again; what ended meanwhile does not."""
    box = Outbox()
    box.add([entry("late", 9), entry("early", 1), entry("middle", 5)])
    first = box.first(2)
    assert [e.token for e in first] == ["early", "middle"]
    box.discard("early")
    box.again(first)
    assert [e.token for e in box.first(10)] == ["middle", "late"]
    assert len(box) == 2


def test_the_outbox_keeps_a_window_and_says_that_there_is_more(monkeypatch):
    """Memory is bounded: what does not fit waits in Redis."""
    monkeypatch.setattr(outbox_module, "WINDOW", 2)
    box = Outbox()
    box.add([entry(str(i), i) for i in range(3)])
    assert (len(box), box.partial) == (2, True)


def test_an_entry_is_resurrected_when_two_scans_find_it_unknown():
    """One scan may race with a send; two in a row cannot."""
    box = Outbox()
    box.add([entry("pending", 1)])
    assert box.resurrected([entry("pending", 1), entry("back", 2)]) == []
    assert [e.token for e in box.resurrected([entry("back", 2)])] == ["back"]
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


def test_a_finding_is_believed_when_it_is_made_twice():
    """A new leader of the log may lag: one look is no proof."""
    doubts = Doubts()
    assert not doubts.confirmed(1, ("i", 9, 5))
    assert not doubts.confirmed(1, ("i", 9, 6))
    assert doubts.confirmed(1, ("i", 9, 6))
    assert not doubts.confirmed(1, ("i", 9, 6))
