"""Concurrency keys: executions of one partition, keys of another, and messages that are lost, late or doubled."""

from __future__ import annotations

import random
from typing import Any

import pytest

from wf_core import ids, wire
from wf_core.plan import Plan
from wf_orchestrator.machine import admission
from wf_orchestrator.machine.concurrency import MOST_WAITING, Key, pack, unpack
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import ClearTimer, KeepKey, Send, SetTimer
from wf_orchestrator.machine.state import Execution, PartitionState


def document(on_conflict: str = "queue", limit: int = 1, **more: Any) -> dict[str, Any]:
    concurrency = {"key": "k-${{ input.n }}", "limit": limit, "on_conflict": on_conflict}
    return {"concurrency": concurrency, "nodes": {"a": {"task": "t"}}, **more}


class Town:
    """Executions in one partition, the key in another; messages travel when a test lets them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = 1_000_000
        self.offset = 0
        self.executions: dict[str, Execution] = {}
        self.here, self.there = PartitionState(), PartitionState()
        self.timers: dict[tuple[str, str], None] = {}
        self.mail: list[wire.Event] = []
        self.stored: dict[str, bytes] = {}

    def fold(self, event: wire.Event) -> None:
        self.now += 10
        self.offset += 1
        if isinstance(event, wire.Acquire | wire.Holds | wire.Release):
            self.there.keys = {event.key: unpack(self.stored.get(event.key))}
            outcome = decide(self.there, None, event, self.offset)
        else:
            outcome = decide(self.here, self.executions.get(event.execution), event, self.offset, self.plan)
            if outcome.execution is not None:
                self.executions[event.execution] = outcome.execution
        assert not outcome.crash, outcome.crash
        for effect in outcome.effects:
            match effect:
                case SetTimer():
                    self.timers[effect.kind, effect.token] = None
                case ClearTimer():
                    self.timers.pop((effect.kind, effect.token), None)
                case Send():
                    self.mail.append(effect.record)
                case KeepKey():
                    self.stored[effect.name] = pack(effect.key)

    def record(self, kind: type[Any], execution: str, **values: Any) -> Any:
        return kind(execution=execution, ts=self.now, source="test", **values)

    def start(self, name: str, n: int = 0) -> str:
        execution = ids.derived_execution_id(name, 1)
        data = b'{"n":%d}' % n
        self.fold(self.record(wire.Created, execution, id="c", document=self.plan.hash, name="test", input=data))
        self.fold(self.record(wire.Triggered, execution, id="t"))
        return execution

    def fire(self) -> list[wire.Event]:
        """What the shell appends for timers that are due."""
        fired: list[wire.Event] = []
        for kind, token in self.timers:
            execution, key, era = ids.split_token(token)
            if kind == "acquire":
                request = admission.request(self.executions[execution])
                fired += [request] if request else []
            elif kind == "release":
                fired.append(self.record(wire.Release, execution, key=key, era=era))
            elif kind in ("grant", "evict"):
                answer = {"grant": "granted", "evict": "evicted"}[kind]
                fired.append(self.record(wire.KeyAnswer, execution, key=key, era=era, answer=answer))
        return fired

    def settle(self) -> None:
        """Lets everything travel until nothing is left to say."""
        for _ in range(50):
            said = [*self.fire(), *self.mail]
            self.mail = []
            if not said:
                return
            for event in said:
                self.fold(event)
            for x in self.executions.values():
                if x.hold and x.hold.state == "waiting":  # it asks again, but not so soon
                    self.timers.pop(("acquire", ids.token(x.id, x.hold.key, x.hold.era)), None)
        raise AssertionError(f"never settles: {self.timers} {self.mail}")

    def end(self, execution: str, *, fail: bool = False) -> None:
        x = self.executions[execution]
        outcome: dict[str, Any] = {"output": b"1"}
        if fail:
            outcome = {"status": "FAILED", "error": wire.Failure(type="Oops", message="m", fatal=True)}
        attempt = x.cells[0].attempt
        times = {"worker": "w", "started_at": 1, "ended_at": 2}
        self.fold(self.record(wire.Result, execution, node="a", attempt=attempt, **times, **outcome))
        if fail:
            said = {"delay_ms": None, "reason": "", "policy": "p"}
            self.fold(self.record(wire.Decision, execution, node="a", attempt=attempt, **said))

    def status(self, *executions: str) -> list[str]:
        return [str(self.executions[e].status) for e in executions]

    def runs(self, execution: str) -> bool:
        return str(self.executions[execution].cells[0].status) == "QUEUED"

    def key(self, n: int = 0) -> Key:
        return unpack(self.stored.get(f"k-{n}"))


@pytest.fixture
def town(world):
    def make(*arguments: Any, **fields: Any) -> Town:
        return Town(world(document(*arguments, **fields)).plan)

    return make


def test_nothing_starts_before_the_key_is_granted(town):
    """A triggered execution asks first; once it is granted its nodes start, and its end gives the key back."""
    t = town()
    x = t.start("one")
    assert (t.status(x), t.runs(x)) == (["RUNNING"], False)
    t.settle()
    assert t.runs(x)
    t.end(x)
    t.settle()
    assert (t.status(x), t.stored, t.timers) == (["COMPLETED"], {"k-0": b""}, {})


def test_queue(town):
    """The next one waits in order, and starts when the holder has ended, however it did."""
    t = town()
    first, second, third = t.start("one"), t.start("two"), t.start("three")
    t.settle()
    assert [t.runs(x) for x in (first, second, third)] == [True, False, False]
    t.end(first, fail=True)
    t.settle()
    assert [t.runs(x) for x in (second, third)] == [True, False]
    t.fold(t.record(wire.Cancelled, second, id="k"))
    t.settle()
    assert t.runs(third)
    assert t.executions[third].hold.state == "held"


def test_other_keys_are_free(town):
    """Executions with another key do not wait; with a limit of two, two run."""
    t = town(limit=2)
    xs = [t.start("one"), t.start("two"), t.start("three"), t.start("other", n=1)]
    t.settle()
    assert [t.runs(x) for x in xs] == [True, True, False, True]


def test_skip(town):
    """`skip`: the new execution ends CANCELLED, and says who holds the key."""
    t = town("skip")
    first, second = t.start("one"), t.start("two")
    t.settle()
    assert t.status(first, second) == ["RUNNING", "CANCELLED"]
    error = t.executions[second].error
    assert (error.type, error.message) == (
        "ConcurrencySkipped",
        f"the concurrency key 'k-0' (limit 1) is held by execution {first}",
    )
    t.end(first)
    t.settle()
    assert t.timers == {}


def test_reject(town):
    """`reject`: the new execution ends FAILED with ConcurrencyError; nothing of it runs, `finally` neither."""
    t = town("reject", **{"finally": {"z": {"task": "t"}}})
    first, second = t.start("one"), t.start("two")
    t.settle()
    assert t.status(first, second) == ["RUNNING", "FAILED"]
    assert t.executions[second].error.type == "ConcurrencyError"


def test_cancel_running(town):
    """`cancel_running`: the oldest holder is cancelled, and the new one starts when it has given the key back."""
    t = town("cancel_running", limit=2)
    first, second, third = t.start("one"), t.start("two"), t.start("three")
    t.settle()
    assert t.status(first, second, third) == ["CANCELLED", "RUNNING", "RUNNING"]
    assert t.runs(third)


def test_a_waiting_execution_can_be_cancelled_and_times_out(town):
    """While it waits an execution can be ended; its place in the queue goes."""
    t = town(timeout="1m")
    _first, second, third = t.start("one"), t.start("two"), t.start("three")
    t.settle()
    t.fold(t.record(wire.Cancelled, second, id="k"))
    t.fold(t.record(wire.Timer, third, timer="deadline"))
    t.settle()
    assert t.status(second, third) == ["CANCELLED", "FAILED"]
    assert (len(t.key().holders), t.key().queue) == (1, [])


def test_a_pause_while_it_waits(town):
    """Granted during a pause, the execution starts with the resume."""
    t = town()
    first, second = t.start("one"), t.start("two")
    t.settle()
    t.fold(t.record(wire.Paused, second, id="p"))
    t.fold(t.record(wire.Resumed, second, id="r"))
    assert not t.runs(second)
    t.fold(t.record(wire.Paused, second, id="p2"))
    t.end(first)
    t.settle()
    assert not t.runs(second)
    t.fold(t.record(wire.Resumed, second, id="r2"))
    assert t.runs(second)


def test_a_grant_for_nobody_is_given_back(town):
    """A late copy of a request, of an execution that has ended or was deleted, holds the key only until it is asked."""
    t = town()
    x = t.start("one")
    request = admission.request(t.executions[x])
    t.settle()
    t.end(x)
    t.settle()
    t.fold(request)
    assert len(t.key().holders) == 1
    t.settle()
    assert (t.key().holders, t.timers) == ([], {})
    del t.executions[x]
    t.fold(request)
    t.settle()
    assert (t.key().holders, t.timers) == ([], {})


def test_a_key_that_cannot_be_told(world):
    """A key that cannot be evaluated, or is too long, fails the execution."""
    assert world(document()).start({}).ended == "FAILED"
    long = {"concurrency": {"key": "${{ input.k }}", "limit": 1}, "nodes": {"a": {"task": "t"}}}
    w = world(long).start({"k": "x" * 1001})
    assert (w.ended, w.execution.error.type) == ("FAILED", "PayloadError")


def test_the_state_while_it_waits(world):
    """What an execution knows of its key is stored with it; a retry asks again, as another era."""
    w = world(document()).start({"n": 1})
    token = f"{w.execution.id}/k-1/0"
    assert w.timers() == {f"acquire|{token}": w.now}
    w.send(w.record(wire.KeyAnswer, key="k-1", era=0, answer="queued", holder="someone"))
    assert w.history("execution.waiting")
    assert w.execution.hold.holder == "someone"
    w.send(w.record(wire.KeyAnswer, key="k-1", era=0, answer="granted"))
    w.fail_for_good("a")
    assert w.timers() == {f"release|{token}": w.now}
    w.retry()
    assert (w.status("a"), w.execution.hold.era) == ("PENDING", 1)
    w.send(w.record(wire.KeyAnswer, key="k-1", era=0, answer="released"))
    w.send(w.record(wire.KeyAnswer, key="k-1", era=1, answer="granted"))
    assert (w.status("a"), w.attempt("a")) == ("QUEUED", 2)


def test_a_queue_has_an_end(town):
    """Beyond MOST_WAITING a request is refused, whatever it says."""
    t = town()
    first = t.start("one")
    t.settle()
    key = t.key()
    key.queue = [type(key.holders[0])(str(n), 0, 1, "queue") for n in range(MOST_WAITING)]
    t.stored["k-0"] = pack(key)
    second = t.start("two")
    for event in t.fire():
        t.fold(event)
    for event in t.mail:
        t.fold(event)
    assert t.status(first, second) == ["RUNNING", "FAILED"]
    assert "too many executions wait" in t.executions[second].error.message


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("on_conflict", ["queue", "skip", "cancel_running"])
def test_whatever_is_lost_late_or_doubled(town, on_conflict, seed):
    """Never more than `limit` run at once, and in the end everyone has ended and nobody holds the key."""
    rng = random.Random(seed)
    t = town(on_conflict, limit=2)
    started: list[str] = []
    late: list[wire.Event] = []
    for _ in range(400):
        if len(started) < 8 and rng.random() < 0.1:
            started.append(t.start(f"x{len(started)}"))
        late += [event for event in t.fire() if rng.random() < 0.5]
        late += [event for event in t.mail if rng.random() < 0.7]
        t.mail = []
        for event in rng.sample(late, min(len(late), 3)):
            t.fold(event)
            if rng.random() < 0.7:
                late.remove(event)
        late = late[-30:]
        running = [x for x in started if t.runs(x)]
        assert len(running) <= 2
        if running and rng.random() < 0.1:
            t.end(rng.choice(running))
    for _ in range(20):
        t.settle()
        for x in [x for x in started if t.runs(x)]:
            t.end(x)
    assert not [x for x in started if not t.executions[x].status.is_terminal]
    assert (t.key().holders, t.key().queue) == ([], [])


def test_clean_up_is_not_evicted(world):
    """`evicted` is said again until the key is given back: the second time must not end the clean-up."""
    w = world(document("cancel_running", **{"finally": {"f": {"task": "t"}}})).start({"n": 1})
    for said in ("granted", "evicted", "evicted"):
        w.send(w.record(wire.KeyAnswer, key="k-1", era=0, answer=said))
    assert (w.ended, w.status("a"), w.status("f")) == ("RUNNING", "CANCELLED", "QUEUED")
    w.done("f")
    assert w.ended == "CANCELLED"


def test_a_refusal_of_one_that_waits(world):
    """A key that forgot its queue, and is full by now, may refuse one that waits: it asks again, later."""
    w = world(document()).start({"n": 1})
    for said in ("queued", "refused"):
        w.send(w.record(wire.KeyAnswer, key="k-1", era=0, answer=said))
    assert w.timers() == {f"acquire|{w.execution.id}/k-1/0": w.now + admission.AGAIN_MS}


def test_the_time_of_a_container_that_goes_on_counts_from_the_admission(world):
    """After a retry a container is open before its execution has its key again."""
    node = {"kind": "map", "items": [1], "nodes": {"x": {"task": "t"}}, "timeout": "1m", "total_timeout": "2m"}
    w = world({"nodes": {"m": node}, "concurrency": {"key": "k"}}).start()
    w.send(w.record(wire.KeyAnswer, key="k", era=0, answer="granted"))
    w.fail_for_good("m[0]/x")
    w.retry()
    assert not [timer for timer in w.timers() if timer.startswith(("timeout", "total"))]
    w.now += 3_600_000
    w.send(w.record(wire.KeyAnswer, key="k", era=1, answer="granted"))
    token = w.execution.token(0)
    assert w.timers()[f"timeout|{token}"] == w.now + 60_000
    assert w.timers()[f"total|{token}"] == w.now + 120_000
    w.done("m[0]/x")
    assert w.ended == "COMPLETED"
