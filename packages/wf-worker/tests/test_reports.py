"""Results on their way to the log: what is appended again, what the log refuses, and what must not cost one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from wf_core import wire
from wf_core.broker.protocol import RecordTooLargeError
from wf_core.catalogue import Catalogue
from wf_core.ids import new_execution_id, token
from wf_core.metrics import Counters
from wf_core.settings import Settings
from wf_core.states import AttemptStatus
from wf_worker.attempts import Attempt, Ended
from wf_worker.reports import Reports
from wf_worker.supervisor import Supervisor

EXECUTION = new_execution_id(1, 1)
LOST = {"reason": "crash", "worker": "w"}
RESULT = {"worker": "w", "started_at": 1, "ended_at": 1}


class Log:
    """Takes what is no longer than `longest` bytes."""

    def __init__(self, longest: int = 1000) -> None:
        self.longest = longest
        self.asked = 0
        self.records: list[Any] = []

    async def append(self, _source: Any, records: Sequence[bytes], _key: bytes | None = None) -> list[int]:
        self.asked += 1
        await asyncio.sleep(0)
        if max(map(len, records)) > self.longest:
            raise RecordTooLargeError("too large")
        self.records += map(wire.decode_event, records)
        return list(range(len(self.records) - len(records), len(self.records)))


def reports(log: Log) -> Reports:
    return Reports(log, "wf", lambda: "log-1", Counters())


def result(node: str, **more: Any) -> wire.Result:
    said = {"execution": EXECUTION, "ts": 1, "source": "w", "node": node, "attempt": 1, **RESULT, **more}
    return wire.Result(**said)


def lost(node: str, **more: Any) -> wire.Lost:
    said = {"execution": EXECUTION, "ts": 1, "source": "w", "node": node, "attempt": 1, **LOST, **more}
    return wire.Lost(**said)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wf_worker.reports._PAUSE", 0.01)


async def sent(it: Reports, *records: wire.Result | wire.Lost) -> None:
    """Takes the records, and waits until the log has all that it will ever have of them."""
    for record in records:
        it.add(token(EXECUTION, record.node, 1), EXECUTION, record)
    assert await it.flush(5)


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        (result("a", status="COMPLETED", output=b'"%b"' % (b"x" * 2000)), {"status": "FAILED", "output": None}),
        (result("a", status="FAILED", log_tail="x" * 2000), {"status": "FAILED", "log_tail": ""}),
        (lost("a", log_tail="x" * 2000), {"log_tail": "", "reason": "crash"}),
        (lost("a", detail="x" * 2000), {"detail": "", "reason": "crash"}),
    ],
)
async def test_what_the_log_refuses_is_shortened(record, kept):
    """The result becomes a failure that says so; then it goes without what the attempt said last."""
    log = Log()
    it = reports(log)
    await sent(it, record, result("b"))
    first, second = sorted(log.records, key=lambda one: one.node)
    assert {name: getattr(first, name) for name in kept} == kept
    assert second.node == "b"
    assert sorted(it.unsent()) == []


async def test_what_cannot_be_shortened_is_given_up():
    """Its attempt counts as lost when no heartbeat names it any more; the results behind it are not kept waiting."""
    log = Log(longest=1000)
    it = reports(log)
    await sent(it, lost("a", reason="x" * 2000), result("c", worker="w" * 2000), result("b"))
    assert [record.node for record in log.records] == ["b"]
    assert not it.holds(token(EXECUTION, "a", 1))
    assert not it.holds(token(EXECUTION, "c", 1))
    assert log.asked < 10


async def test_the_log_is_given_a_pause_after_each_refusal(monkeypatch):
    """A refusal costs a request and a line of the log: however many there are, they come at a pace."""
    monkeypatch.setattr("wf_worker.reports._PAUSE", 60)
    log = Log(longest=10)
    it = reports(log)
    it.add(token(EXECUTION, "a", 1), EXECUTION, result("a", output=b"1" * 100))
    assert not await it.flush(0.05)
    assert log.asked == 1
    await it.close()


async def test_what_is_due_is_appended_once():
    """Also when the log does not answer from one heartbeat to the next; and again when it is due again."""
    log = Log()
    counters = Counters()
    it = Reports(log, "wf", lambda: "log-1", counters)
    names = [f"n{i}" for i in range(250)]
    for copies in (2, 3):
        await sent(it, *map(result, names))
        for held in it._held.values():
            held.sent_at -= 1000
        it.again([])
        it.again([token(EXECUTION, name, 1) for name in names])
        assert await it.flush(5)
        assert len(log.records) == copies * len(names)


async def test_many_results_that_are_due_are_found_without_a_search():
    """What waits already is not compared with all that waits: at 10,000 that would hold up the heartbeat."""

    class Pending(list[Any]):
        def __contains__(self, _item: object) -> bool:
            raise AssertionError("searched")

    it = reports(Log())
    await sent(it, *(result(f"n{i}") for i in range(5)))
    for held in it._held.values():
        held.sent_at -= 1000
        it._pending[held.partition] = Pending()
    it.again([])
    assert await it.flush(5)


async def test_a_tail_that_cannot_be_gone_on_with_costs_no_result():
    """Whatever is raised: the result is reported, and the child that runs others is none the wiser."""
    log = Log()
    clock = SimpleNamespace(now_ms=lambda: 5)
    runner = SimpleNamespace(catalogue=Catalogue(), free=1, slots=1)
    installation = SimpleNamespace(partitions=4, task_partitions=4, incarnation="log-1")
    it = Supervisor(Settings(), "w", None, None, log, clock, installation, ["default"], runner, Counters())  # type: ignore[arg-type]

    def fails(*_args: Any) -> None:
        raise OverflowError("date value out of range")

    it.executors.next_after = fails  # type: ignore[method-assign,assignment]
    message = wire.TaskMessage(
        execution=EXECUTION, node="a", attempt=1, task="t", params=b"{}", workflow="w", queued_at=1
    )
    name = token(EXECUTION, "a", 1)
    it.ended(Attempt(1, name, message, "async", "", None, 1), Ended(AttemptStatus.COMPLETED, output=b"1"))
    assert await it.reports.flush(5)
    assert [(record.node, record.output) for record in log.records] == [("a", b"1")]
