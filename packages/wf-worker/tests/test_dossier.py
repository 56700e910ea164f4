"""What is kept of an attempt: who ran it, what it said, why it failed."""

from __future__ import annotations

import platform
from importlib import metadata

import pytest

from wf_core import wire
from wf_worker.tails import TAIL_BYTES, TAIL_LINES


@pytest.mark.parametrize("task", ["t.echo", "t.raise", "t.kill.self"])
async def test_who_ran_it(worker, desk, task):
    """Every record about an attempt names the worker's package, its host and the package of the task."""
    record = await desk.run(task, {"number": 9} if task == "t.kill.self" else {})
    assert record.worker_package == f"wf-worker {metadata.version('wf-worker')}"
    assert record.host == platform.node()
    assert record.package == ("talking.py" if task == "t.kill.self" else "sample.py")


@pytest.mark.parametrize("task", ["t.speak", "t.speak.thread", "t.speak.process"])
async def test_log_tail(worker, desk, task):
    """A failed attempt keeps what it logged with ctx.log and with logging, and what it printed, in order."""
    result = await desk.run(task)
    lines = result.log_tail.splitlines()
    assert [line.partition(" ")[2] for line in lines[:3]] == [f"INFO step number={n} ok=True" for n in range(3)]
    said = [line.partition(" ")[2] if line[:2].isdigit() else line for line in lines[3:]]
    assert said[:4] == ["WARNING by logging, with arguments", "printed", "printed to stderr", "INFO from a thread"]
    assert said[4] == "ERROR caught"
    assert said[-1] == "LookupError: inner"
    assert result.error.type == "ValueError"


async def test_no_log_tail_when_it_completes(worker, desk):
    """A completed attempt keeps no log."""
    assert (await desk.run("t.speak", {"ok": True})).log_tail == ""


async def test_logs_of_others_are_not_mixed_in(worker, desk):
    """Attempts that run at once in one child each keep their own lines."""
    names = [await desk.dispatch("t.speak", {"lines": lines}) for lines in (1, 2, 3, 4)]
    for lines, name in enumerate(names, 1):
        tail = (await desk.result(name)).log_tail
        assert tail.count("INFO step") == lines
        assert tail.count("printed\n") == tail.count("from a thread") == 1


async def test_log_tail_is_bounded(worker, desk):
    """However much an attempt prints, the last lines are kept, and the record is taken by the log."""
    result = await desk.run("t.speak.process", {"flood": 20_000})
    lines = result.log_tail.splitlines()
    assert len(lines) == TAIL_LINES
    assert lines[-1] == "line 19999: äöü \\ud83d"
    assert len(result.log_tail.encode()) <= TAIL_BYTES


@pytest.mark.parametrize("task", ["t.speak.hang", "t.speak.hang.thread"])
async def test_log_tail_of_what_timed_out(worker, desk, tmp_path, task):
    """What a hung attempt said is kept, though it never came to its end: a process is killed, a thread runs on."""
    params = {"text": "so far", "file": str(tmp_path / "x")} if task == "t.speak.hang" else {"text": "so far"}
    result = await desk.run(task, params, timeout_ms=500)
    assert result.status == "TIMED_OUT"
    assert result.log_tail.endswith("so far")


async def test_last_words(worker, desk):
    """An attempt whose process ends under it is lost with what it said before, and with the signal."""
    lost = await desk.run("t.kill.self", {"number": 11})
    assert isinstance(lost, wire.Lost)
    assert (lost.reason, lost.detail) == ("crash", "its process was ended by signal 11 (SIGSEGV)")
    assert lost.log_tail == "last words"


async def test_killed_from_outside(worker, desk):
    """SIGKILL that the worker did not send is what a lack of memory looks like, and said so."""
    lost = await desk.run("t.kill.self", {"number": 9})
    assert lost.detail == "its process was ended by signal 9 (SIGKILL), as the kernel does when memory runs out"


async def test_killed_for_another(start_worker, desk, tmp_path):
    """What shared a child with an attempt that does not end is told whose fault it is."""
    await start_worker(grace=0.3)
    other = await desk.dispatch("t.speak.hang.thread", {"text": "x"})
    name = await desk.dispatch("t.stubborn", {"file": str(tmp_path / "pid")}, timeout_ms=300)
    lost = await desk.result(other)
    assert lost.reason == "crash"
    assert f"ended by the worker: another attempt in it, {name}, did not end" in lost.detail
    assert (await desk.result(name)).status == "TIMED_OUT"


async def test_causes(worker, desk):
    """The errors behind an error are kept, the nearest first, and a `from None` ends them, as in Python."""
    error = (await desk.run("t.chain", {"length": 2})).error
    assert [(cause.type, cause.message) for cause in error.causes] == [
        ("RuntimeError", "link 1"),
        ("RuntimeError", "link 0"),
        ("KeyError", "'first'"),
    ]
    assert "direct cause of the following" in error.traceback
    hidden = (await desk.run("t.chain", {"length": 2, "suppressed": True})).error
    assert [cause.message for cause in hidden.causes] == ["link 1"]
    assert len((await desk.run("t.chain", {"length": 30})).error.causes) == 10


_AFTER = {
    "after": 1500,
    "after subclass": 2500,
    "after bare": None,
    "after negative": 0,
    "after zero": 0,
    "after nan": None,
    "after endless": None,
    "after ages": 100 * 365 * 86_400_000,
    "after text": None,
}


@pytest.mark.parametrize("task", ["t.asks", "t.asks.thread", "t.asks.process"])
async def test_fatal_and_retry_after(worker, desk, task):
    """Fatal, RetryAfter and their subclasses count on every executor; an absurd delay harms nobody."""
    for kind in ("fatal", "fatal subclass"):
        assert (await desk.run(task, {"kind": kind})).error.fatal
    found = {kind: (await desk.run(task, {"kind": kind})).error for kind in _AFTER}
    assert {kind: error.retry_after_ms for kind, error in found.items()} == _AFTER
    assert not any(error.fatal for error in found.values())
    assert (found["after subclass"].type, found["after subclass"].message) == ("BusyError", "the shop is busy")
    assert "RetryAfter" in found["after subclass"].classes
