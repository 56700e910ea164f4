"""Continuations: what a worker begins by itself, when it starts, and what keeps it from starting."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest

from wf_core import wire
from wf_core.broker.protocol import LogUnavailableError, RecordTooLargeError
from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.ids import new_execution_id, token
from wf_core.metrics import Counters
from wf_core.settings import Settings
from wf_core.states import AttemptStatus
from wf_worker.attempts import Attempt, Ended
from wf_worker.continuing import YIELD_MS, Continuing
from wf_worker.heartbeat import Heartbeat
from wf_worker.lanes import Lane, Lanes, Waiting
from wf_worker.reports import Reports

EXECUTION = new_execution_id(1, 1)
DONE = Ended(AttemptStatus.COMPLETED, output=b"1")


def name(node: str) -> str:
    return token(EXECUTION, node, 1)


def follower(node: str, task: str = "t", params: bytes = b"{}", **more: Any) -> wire.Following:
    return wire.Following(**{"node": node, "attempt": 1, "id": node, "task": task, "params": params, **more})


def message(node: str = "a", *after: wire.Following, **fields: Any) -> wire.TaskMessage:
    """A message of a node whose tail is `after`."""
    return wire.TaskMessage(
        **{
            "execution": EXECUTION, "node": node, "attempt": 1, "task": "t", "params": b"{}", "workflow": "w",
            "queued_at": 1, "id": node, "then": wire.Tail(following=after, limit=100) if after else None, **fields,
        }
    )  # fmt: skip


class Log:
    """Takes what is appended once it is told to; what it is told to raise it raises first."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.open = asyncio.Event()
        self.errors: list[Exception] = []

    async def append(self, _source: Any, records: Sequence[bytes], _key: bytes | None = None) -> list[int]:
        await self.open.wait()
        if self.errors:
            raise self.errors.pop()
        self.records += map(wire.decode_event, records)
        return list(range(len(self.records) - len(records), len(self.records)))


class World:
    """A worker's continuations, and everything around them. It runs attempts, but only on paper."""

    def __init__(self) -> None:
        self.catalogue = Catalogue(tasks={"t": TaskInfo(name="t")})
        self.slots = 2
        self.clock = 0.0
        self.held: set[str] = set()
        self.started: list[str] = []
        self.ended: list[tuple[str, Ended]] = []
        self.now = 1000
        self.leaving = False
        self.freed = 0
        self.log = Log()
        self.lanes = Lanes()
        self.reports = Reports(self.log, "wf", lambda: "log-1", Counters())
        self.it = Continuing(
            self,
            self.reports,
            self.lanes,
            now_ms=lambda: self.now,
            may_begin=lambda heard: self.clock - heard < 1,
            leaving=lambda: self.leaving,
            start=self.begins,
            on_end=lambda attempt, ended: self.ended.append((attempt.token, ended)),
            on_free=self._free,
        )
        self.claim("a")

    def claim(self, node: str) -> None:
        """An attempt that was claimed a moment ago runs."""
        self.it.run(name(node), message(node), self.clock)
        self.started.clear()

    def _free(self) -> None:
        self.freed += 1

    @property
    def free(self) -> int:
        return self.slots - len(self.held)

    def running(self) -> list[str]:
        return list(self.held)

    def runs(self, token: str) -> bool:
        return token in self.held

    def progress(self) -> dict[str, bytes]:
        return {}

    def begins(self, token: str, message: wire.TaskMessage, heard: float) -> None:
        """What the supervisor does."""
        self.it.run(token, message, heard)

    def run(self, token: str, _message: wire.TaskMessage) -> None:
        self.started.append(token)
        self.held.add(token)

    def cancel(self, token: str) -> bool:
        return token in self.held

    async def idle(self) -> None:
        return None

    def hand_back(self) -> None:
        self.held.clear()

    def end(self, said: wire.TaskMessage, ended: Ended = DONE, *, started_at: int = 1000) -> bool:
        """An attempt ends, as the supervisor has it; whether it was gone on with."""
        attempt = Attempt(1, token(EXECUTION, said.node, 1), said, "async", "", None, started_at)
        self.held.discard(attempt.token)
        begun = self.it.next_after(attempt, ended)
        record = wire.Result(
            execution=EXECUTION, ts=1, source="w", node=said.node, attempt=1, worker="w", started_at=1, ended_at=1,
            output=ended.output, begin=begun.begin if begun else None, v=wire.BEGINS if begun else 1,
        )  # fmt: skip
        told = None if begun is None else partial(self.it.settle, begun)
        self.reports.add(attempt.token, EXECUTION, record, told)
        return begun is not None

    def waits(self, priority: int, *, later: bool = False) -> None:
        """A message waits for a slot; with `later` for the owner of its partition."""
        one = Waiting.of(0, message("other", priority=priority))
        self.lanes.add(Lane(("topic", 0), "default", "key", 0, 1, waiting={0: one}))  # type: ignore[arg-type]
        if later:
            self.lanes.later(one.partition, asyncio.get_running_loop().time())

    async def acknowledged(self) -> None:
        """The log takes what waits for it."""
        self.log.open.set()
        assert await self.reports.flush(5)


async def test_a_successor_starts_when_the_log_has_the_result():
    """It holds the slot of the one before it until then, and counts as running."""
    w = World()
    assert w.end(message("a", follower("b")))
    assert (w.started, w.it.free, w.it.running()) == ([], 1, [name("b")])
    assert w.it.undecided() == {name("b"): name("a")}
    await w.acknowledged()
    assert (w.started, w.it.free, w.it.running()) == ([name("b")], 1, [name("b")])
    (record,) = w.log.records
    assert (record.v, record.begin) == (2, wire.Begin(node="b", attempt=1, params=b"{}"))
    assert w.it.undecided() == {name("b"): name("a")}
    w.it.decided([name("b")])
    assert (w.it.undecided(), w.started) == ({}, [name("b")])


@pytest.mark.parametrize(
    "ended", [Ended(AttemptStatus.FAILED), Ended(AttemptStatus.LOST), Ended(AttemptStatus.CANCELLED)]
)
async def test_only_what_completed_goes_on(ended):
    """What failed, was lost or cancelled begins nothing."""
    assert not World().end(message("a", follower("b")), ended)


async def test_nothing_follows():
    """Without a tail, or when its next task does not run here, the fold decides what comes."""
    w = World()
    assert not w.end(message("a"))
    w.claim("b")
    assert not w.end(message("b", follower("c", "unknown")))
    await w.acknowledged()
    assert [record.v for record in w.log.records] == [1, 1]


async def test_a_worker_that_was_not_heard_lately_begins_nothing():
    """What counts is when the claim, or a heartbeat that named the attempt, was sent."""
    w = World()
    w.clock += 1
    w.it.heard([name("other")], w.clock)
    assert not w.end(message("a", follower("b")))
    w = World()
    w.clock += 1
    w.it.heard([name("a")], 0.5)
    assert w.end(message("a", follower("b")))


async def test_a_worker_that_drains_begins_nothing():
    """It hands its partitions over, and ends what runs."""
    w = World()
    w.leaving = True
    assert not w.end(message("a", follower("b")))


async def test_a_worker_that_was_not_heard_meanwhile_asks_first():
    """When the acknowledgement comes too late, only a heartbeat that finds the successor in flight starts it."""
    w = World()
    w.end(message("a", follower("b")))
    w.clock += 1
    await w.acknowledged()
    assert (w.started, w.it.running(), w.it.free) == ([], [name("b")], 1)
    w.it.heard([name("b")], w.clock)
    w.it.decided([name("b")])
    assert (w.started, w.it.undecided()) == ([name("b")], {})


async def test_a_successor_is_as_old_as_the_one_before_it():
    """Until a heartbeat names it, and however many there are between."""
    w = World()
    w.end(message("a", follower("b"), follower("c")))
    w.it.heard([name("b")], 0.4)
    await w.acknowledged()
    w.clock = 1.3
    assert w.end(message("b", follower("c"), follower("d")))
    w.clock = 1.5
    await w.acknowledged()
    assert w.started == [name("b")]


async def test_a_successor_may_be_in_flight_before_the_acknowledgement():
    """An append may land and be folded although its answer is late; it starts once."""
    w = World()
    w.end(message("a", follower("b")))
    w.it.decided([name("b")])
    await w.acknowledged()
    assert w.started == [name("b")]


async def test_what_is_cancelled_meanwhile_never_starts():
    """Its slot comes free."""
    w = World()
    w.end(message("a", follower("b")))
    assert w.it.cancel(name("b"))
    assert (w.it.free, w.freed, w.it.running(), w.it.undecided()) == (2, 1, [], {})
    await w.acknowledged()
    assert w.started == []


@pytest.mark.parametrize("appended", [True, False])
async def test_when_the_result_is_not_wanted_any_more_a_heartbeat_decides(appended):
    """The attempt before it was cancelled, or folded, while its result was on its way: which, only Redis knows."""
    w = World()
    w.end(message("a", follower("b")))
    if appended:
        await asyncio.sleep(0)  # the append begins
    w.reports.forget([name("a")])
    await w.acknowledged()
    assert len(w.log.records) == appended
    assert (w.started, w.it.undecided()) == ([], {name("b"): name("a")})
    w.it.decided([name("b")])
    assert w.started == [name("b")]


async def test_appended_again_after_an_error(monkeypatch):
    """While the log does not answer the successor waits."""
    monkeypatch.setattr("wf_worker.reports._PAUSE", 0.0)
    w = World()
    w.log.errors = [LogUnavailableError("away")] * 3
    w.end(message("a", follower("b")))
    await w.acknowledged()
    assert (w.started, len(w.log.records)) == ([name("b")], 1)


async def test_a_record_that_is_too_large_goes_without():
    """What the log refuses for its size is appended without the node that it was to begin."""
    w = World()
    w.log.errors = [RecordTooLargeError("too large")]
    w.end(message("a", follower("b")))
    await w.acknowledged()
    (record,) = w.log.records
    assert (record.v, record.begin, record.status, record.output) == (1, None, "COMPLETED", b"1")
    assert (w.started, w.it.running(), w.it.free, w.freed, w.it.undecided()) == ([], [], 2, 1, {})


async def test_a_tail():
    """One after the other; the results of what is undecided are undecided as well."""
    w = World()
    w.end(message("a", follower("b"), follower("c")))
    await w.acknowledged()
    w.end(message("b", follower("c")))
    await w.acknowledged()
    assert w.started == [name("b"), name("c")]
    assert w.it.undecided() == {name("b"): name("a"), name("c"): name("b")}
    w.reports.forget([name("b")])
    assert w.it.undecided() == {name("c"): name("b")}
    w.held.clear()
    assert w.it.undecided() == {}


@pytest.mark.parametrize(
    ("priority", "later", "lasted", "begins"),
    [
        (6, False, 0, False),
        (6, True, YIELD_MS, True),
        (5, False, YIELD_MS - 1, True),
        (5, False, YIELD_MS, False),
        (4, False, YIELD_MS - 1, True),
        (4, False, YIELD_MS, False),
        (5, True, YIELD_MS, True),
    ],
)
async def test_who_waits_comes_first(priority, later, lasted, begins):
    """A higher priority at once, anyone after 100 ms; but not what waits for the owner of its partition."""
    w = World()
    w.waits(priority, later=later)
    w.now += lasted
    assert w.end(message("a", follower("b"))) is begins


async def test_the_time_counts_from_the_first_node_of_a_tail():
    """However short each node is."""
    w = World()
    assert w.end(message("a", follower("b"), follower("c")))
    await w.acknowledged()
    w.waits(5)
    w.now += YIELD_MS
    assert not w.end(message("b", follower("c")), started_at=w.now)


async def test_hand_back():
    """At the end of a drain what waits is handed back as lost, behind the result that begins it."""
    w = World()
    w.end(message("a", follower("b")))
    w.it.hand_back()
    assert w.ended == [(name("b"), Ended(AttemptStatus.LOST, reason="drain"))]
    async with asyncio.timeout(5):
        await w.it.idle()
    await w.acknowledged()
    assert (w.started, w.it.free) == ([], 2)


async def test_idle_waits_for_what_waits():
    """What waits for the log has not been reported."""
    w = World()
    w.end(message("a", follower("b")))
    idle = asyncio.create_task(w.it.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    w.it.cancel(name("b"))
    async with asyncio.timeout(5):
        await idle


@pytest.mark.parametrize(("heard", "doubts", "begins"), [(1.2, 0, True), (1.3, 0, False), (0.0, 1, False)])
async def test_half_the_death_time(heard, doubts, begins):
    """That is how old it may be, where Redis is known to be the one that was asked."""
    it = Heartbeat(*[None] * 2, Settings(), *[None] * 6)  # type: ignore[arg-type]
    for _ in range(doubts):
        it.doubt()
    assert it.may_begin(time.monotonic() - heard) is begins


# --- with servers


def tail(*nodes: wire.Following) -> wire.Tail:
    return wire.Tail(following=nodes, limit=10_000)


async def take_over(desk, token: str, worker: str) -> None:
    """What APPLY does when the fold takes over a begun node."""
    keys = desk.partition(token[:28])
    await desk.redis.hset(keys.in_flight, token, "1")
    await desk.redis.hset(keys.claims, token, f"{worker}|1")


async def beaten(desk, until, token: str, worker: str, times: int) -> None:
    """Waits for heartbeats that begin from now on."""
    before = await desk.beats(token, worker)

    async def more() -> bool:
        return await desk.beats(token, worker) > before + times

    await until("some heartbeats", more, 10)


async def test_a_chain(worker, desk, until):
    """A worker goes on to the end of its tail; each record has what it ran with, and one message was enough."""
    then = tail(
        follower("b", "t.echo", b'{"value":"${{ nodes.n.output }}!"}', template=True, attempt=4),
        follower("c", "t.process", b'{"value":"${{ nodes.b.output }}?"}', template=True),
        follower("d", "t.fatal"),
        follower("e", "t.echo"),
    )
    head = await desk.dispatch("t.echo", {"value": 7}, id="n", then=then)
    x = head[:28]
    await until("the last result", lambda: desk.first(f"{x}/d/1"))
    first, second, third, last = (desk.first(f"{x}/{rest}") for rest in ("n/1", "b/4", "c/1", "d/1"))
    assert (first.v, first.output) == (2, b"7")
    assert (first.begin, second.begin) == (
        wire.Begin(node="b", attempt=4, params=b'{"value":"7!"}'),
        wire.Begin(node="c", attempt=1, params=b'{"value":"7!?"}'),
    )
    assert second.output == b'"7!"'
    assert msgspec.json.decode(third.output)["value"] == "7!?"
    assert (last.status, last.begin, last.v) == ("FAILED", None, 1)
    assert desk.first(f"{x}/e/1") is None
    await desk.fold(head)
    await until("all is forgotten", lambda: len(worker.service.supervisor.reports) == 0)
    assert worker.service.executors.free == 8
    assert worker.service.counters.total("worker_attempts_continued_total") == 3


async def test_begun_and_taken_over(worker, desk, tmp_path, until, pids_in):
    """While its begin is not folded a node runs on, heartbeat after heartbeat; taken over, it is as any other."""
    params = msgspec.json.encode({"file": str(tmp_path / "pid")})
    then = tail(follower("b", "t.sleep", params))
    head = await desk.dispatch("t.echo", id="n", then=then)
    begun, me = f"{head[:28]}/b/1", worker.service.id
    await pids_in(tmp_path / "pid")
    await beaten(desk, until, head, me, 2)
    assert worker.service.executors.runs(begun)
    await take_over(desk, begun, me)
    await desk.fold(head)
    await beaten(desk, until, head, me, 2)
    assert worker.service.executors.runs(begun)
    await desk.fold(begun)
    await until("it is cancelled", lambda: worker.service.executors.free == 8, 5)
    assert desk.first(begun) is None


async def test_begun_and_refused(worker, desk, tmp_path, until, pids_in):
    """When the fold goes on without what was begun, the worker ends it and reports nothing."""
    params = msgspec.json.encode({"file": str(tmp_path / "pid")})
    then = tail(follower("b", "t.sleep", params))
    head = await desk.dispatch("t.echo", id="n", then=then)
    await pids_in(tmp_path / "pid")
    await desk.fold(head)
    await until("it is cancelled", lambda: worker.service.executors.free == 8, 5)
    assert desk.first(f"{head[:28]}/b/1") is None


async def test_drain_lets_what_was_begun_finish(worker, desk, tmp_path, pids_in):
    """A draining worker begins nothing, and lets finish what it has begun."""
    params = msgspec.json.encode({"file": str(tmp_path / "pid"), "seconds": 1.0})
    then = tail(follower("b", "t.sleep", params), follower("c", "t.echo"))
    head = await desk.dispatch("t.echo", id="n", then=then)
    await pids_in(tmp_path / "pid")
    await worker.stop()
    result = await desk.result(f"{head[:28]}/b/1")
    assert (result.status, result.begin) == ("COMPLETED", None)


def start_stopping(settings) -> subprocess.Popen[bytes]:
    """`wf worker` in a process of its own that stops, as by SIGSTOP, once the log has its first result."""
    said = settings.model_dump(exclude_none=True) | {"death_seconds": 1.0}
    environment = {f"APP_{name.upper()}": str(value) for name, value in said.items()}
    program = "from wf_worker.commands import worker; worker()"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **environment, "WF_FAIL_POINTS": "worker.reported=pause@#1"},
    )


async def test_a_worker_that_was_stopped_asks_before_it_starts(settings, desk, tmp_path, until):
    """Stopped when the log had the result, a worker wakes up late: the successor runs only once it is known as its own.

    Meanwhile it may have been given up, and another worker may be on its way with the next attempt.
    """
    worker = start_stopping(settings)
    try:
        params = msgspec.json.encode({"file": str(tmp_path / "ran")})
        head = await desk.dispatch("t.echo", id="n", then=tail(follower("b", "t.note", params)))
        begun = f"{head[:28]}/b/1"
        me, since = (await until("its result", lambda: desk.first(head))).worker, time.monotonic()
        before = await desk.beats(head, me)
        await until("a death time is over", lambda: time.monotonic() > since + 1.1)
        assert await desk.beats(head, me) == before
        worker.send_signal(signal.SIGCONT)
        await beaten(desk, until, head, me, 2)
        assert not (tmp_path / "ran").exists()
        await take_over(desk, begun, me)
        await desk.fold(head)
        assert (await desk.result(begun)).status == "COMPLETED"
        assert len((tmp_path / "ran").read_text().splitlines()) == 1
    finally:
        worker.kill()
        worker.wait()
