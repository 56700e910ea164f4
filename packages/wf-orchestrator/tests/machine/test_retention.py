"""What retention deletes is gone without a trace, and no late copy of a record brings it back."""

from __future__ import annotations

import pytest

from wf_core import wire
from wf_core.states import ExecutionStatus
from wf_orchestrator.machine.decide import LATE_MS, decide
from wf_orchestrator.machine.effects import Accepted, Deleted
from wf_orchestrator.machine.snapshot import to_ops

NODES = {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}

ENDS = {
    "COMPLETED": lambda w: w.done("a", "b"),
    "FAILED": lambda w: w.fail_for_good("a"),
    "CANCELLED": lambda w: w.cancel(),
}


def changes_nothing(outcome):
    return not (outcome.history or outcome.changed_fields or outcome.moved) and not [
        effect for effect in outcome.effects if not isinstance(effect, Accepted)
    ]


@pytest.mark.parametrize("end", ENDS)
def test_an_ended_execution_is_deleted_whole(world, end):
    """No key and no index mentions it any more, however it ended, and its partition remembers how new it was."""
    w = world({"nodes": NODES, "timeout": "1h"}).start()
    ENDS[end](w)
    ended_at = w.execution.ended_at
    w.expire()
    assert w.x is None
    assert (w.partition.expired, w.store.get(w.keys.expired)) == (ended_at, str(ended_at).encode())
    assert set(w.store.keys) == {w.keys.expired, w.keys.queues}


def test_what_goes_with_it(world):
    """Commands about it that were accepted are done with: nothing could fold them."""
    w = world({"nodes": NODES}).start()
    w.done("a", "b")
    x = w.execution
    assert w.expire().effects == [
        Accepted(f"{x.id}/trigger"),
        Accepted(f"{x.id}/cancel"),
        Deleted(x.id, "test", {"team": "a"}, ExecutionStatus.COMPLETED, x.ended_at),
    ]


def test_deletions_may_come_in_any_order(world):
    """What keeps late copies away is the newest of the ends, whichever execution was deleted last."""
    w = world({"nodes": NODES}).start()
    w.done("a", "b")
    w.partition.expired = newest = w.execution.ended_at + 1
    w.expire()
    assert (w.partition.expired, w.store.get(w.keys.expired)) == (newest, str(newest).encode())


@pytest.mark.parametrize("after_ms", [-5, 0, LATE_MS - 1])
def test_what_ended_just_now_stays(world, after_ms):
    """An execution stays for ten minutes whatever is asked for, by the record's own time: old copies change nothing."""
    w = world({"nodes": NODES}).start()
    w.done("a", "b")
    event = wire.Expired(execution=w.execution.id, ts=w.execution.ended_at + after_ms, source="late")
    w.partition.ts += 2 * LATE_MS
    assert changes_nothing(w.send(event))
    assert w.ended == "COMPLETED"


@pytest.mark.parametrize("prepare", [lambda w: w.create(), lambda w: w.start(), lambda _: None])
def test_what_has_not_ended_is_not_deleted(world, prepare):
    """Neither an execution that was never triggered, nor one that runs; and there may be none."""
    w = world({"nodes": NODES})
    prepare(w)
    w.now += 100 * LATE_MS
    assert changes_nothing(w.send(w.record(wire.Expired)))
    assert w.partition.expired == 0


def test_late_copies_do_not_bring_it_back(world):
    """Every record of its life comes again, in any order, after ages: it is not made, and not run, a second time."""
    w = world({"nodes": NODES}).start()
    w.done("a", "b")
    w.expire()
    life = list(w.log)
    w.now += 1000 * LATE_MS
    for event in (*life, *reversed(life)):
        assert changes_nothing(w.send(event))
        assert w.x is None
    assert [effect.field for effect in w.send(life[0]).effects] == [f"{life[0].execution}/create"]


def test_a_new_request_under_the_same_id_is_another_execution(world):
    """An idempotency key lasts as long as its execution; then it makes a new one, which old commands leave alone."""
    w = world({"nodes": NODES}).start()
    w.cancel()
    w.expire()
    life = list(w.log)
    w.create()
    for event in life:
        assert changes_nothing(w.send(event))
    assert w.ended == "PENDING"
    w.trigger(command="another")
    for event in life:
        assert changes_nothing(w.send(event))
    w.done("a", "b")
    for event in life:
        assert changes_nothing(w.send(event))
    assert w.ended == "COMPLETED"


def test_a_command_that_waited_for_the_log_is_still_created(world):
    """A `created` may reach the log hours late: only what is older than something that was deleted is a late copy."""
    w = world({"nodes": NODES})
    late = w.record(wire.Created, id="c", document=w.plan.hash, name="test", labels={"team": "a"})
    w.partition.ts = w.now + 100 * LATE_MS
    w.partition.expired = late.ts - 1
    assert w.send(late).execution is not None
    other = world({"nodes": NODES})
    other.partition.expired = late.ts
    assert other.send(late).execution is None
    assert other.last.effects == [Accepted(f"{late.execution}/create")]


def test_lives_within_one_batch(world):
    """Created, ended, deleted, created again, all in one batch: what is written is what is known at its end."""
    w = world({"nodes": NODES}).create()
    events = [w.record(wire.Triggered, id="t"), w.result("a", 1, output=b"1"), w.result("b", 1, output=b"1")]
    w.now += LATE_MS
    events.append(w.record(wire.Expired))
    for _ in range(2):
        events += [
            w.record(wire.Created, id="c", document=w.plan.hash, name="test", labels={"team": "b"}),
            w.record(wire.Cancelled, id="k"),
        ]
        w.now += LATE_MS
        events.append(w.record(wire.Expired))
    events += [w.log[0], w.record(wire.Created, id="c", document=w.plan.hash, name="test", labels={"team": "a"})]
    outcomes = []
    for event in events:
        outcomes.append(decide(w.partition, w.x, event, 1 + len(outcomes), w.plan))
        w.x = outcomes[-1].execution
    w.store.apply(to_ops(w.keys, outcomes))
    w.verify()
    assert (w.ended, w.store.get(w.keys.index("l:team=b"))) == ("PENDING", {})
    assert len(w.history()) == 1
