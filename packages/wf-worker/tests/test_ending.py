"""Timeouts, cancels and deaths: how attempts end that do not come to their own end."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a task says that it runs."""
    return tmp_path / "pid"


async def test_timeout_of_async_task(worker, desk, file):
    """An async task that takes longer than the message's timeout is cancelled and TIMED_OUT."""
    result = await desk.run("t.sleep", {"file": str(file)}, timeout_ms=150)
    assert (result.status, result.error.type) == ("TIMED_OUT", "TimeoutError")
    assert "0.15 s" in result.error.message
    assert result.ended_at - result.started_at >= 150
    assert (await desk.run("t.echo")).status == "COMPLETED"


async def test_timeout_of_the_task_itself(worker, desk):
    """Where the message says nothing, the task's own timeout holds."""
    assert (await desk.run("t.timed")).status == "TIMED_OUT"


@pytest.mark.parametrize("deaf", [False, True])
async def test_timeout_of_process_task(start_worker, desk, file, deaf, until, alive, pids_in):
    """A timed out process task is ended with SIGTERM, then SIGKILL, together with what it started."""
    await start_worker(grace=0.3)
    params = {"file": str(file), "deaf": deaf, "child": True}
    result = await desk.run("t.process.wait", params, timeout_ms=2000)
    assert result.status == "TIMED_OUT"
    pids = await pids_in(file)
    assert len(pids) == 2
    await until("both processes are gone", lambda: not any(map(alive, pids)))
    assert (await desk.run("t.process")).status == "COMPLETED"


async def test_timeout_of_thread_task(start_worker, desk, file, until):
    """A thread cannot be ended: the attempt is TIMED_OUT at once, its slot comes free when the thread ends."""
    it = await start_worker()
    params = {"file": str(file), "seconds": 30}
    result = await desk.run("t.thread.wait", params, timeout_ms=150)
    assert result.status == "TIMED_OUT"
    await until("the thread saw ctx.cancelled", lambda: file.exists() and file.read_text() == "cancelled")
    await until("the slot is free", lambda: it.service.executors.free == 8)


async def test_cancel_of_async_task(worker, desk, file, until, pids_in):
    """A published cancel reaches an async task at once; nothing is reported."""
    name = await desk.dispatch("t.sleep", {"file": str(file)})
    await pids_in(file)
    await desk.fold(name)
    await desk.redis.publish(desk.keys.cancel_channel, name)
    await until("the slot is free", lambda: worker.service.executors.free == 8, 2)
    assert desk.about(name) == []


async def test_cancel_by_heartbeat(worker, desk, file, until, alive, pids_in):
    """A token that left the in-flight set is cancelled by the next heartbeat, without any message."""
    name = await desk.dispatch("t.process.wait", {"file": str(file)})
    (pid,) = await pids_in(file)
    await desk.fold(name)
    await until("the process is gone", lambda: not alive(pid), 5)
    assert desk.about(name) == []


async def test_cancel_of_thread_task(worker, desk, file, until, pids_in):
    """A thread is told by ctx.cancelled; its slot comes free when it ends."""
    name = await desk.dispatch("t.thread.wait", {"file": str(file)})
    await pids_in(file)
    await desk.fold(name)
    await desk.redis.publish(desk.keys.cancel_channel, name)
    await until("the thread saw ctx.cancelled", lambda: file.read_text() == "cancelled", 3)
    await until("the slot is free", lambda: worker.service.executors.free == 8, 3)
    assert desk.about(name) == []


async def test_cancel_of_deaf_process_task(start_worker, desk, file, until, alive, pids_in):
    """A process that ignores SIGTERM is killed after the grace time, together with what it started."""
    it = await start_worker(grace=0.3)
    name = await desk.dispatch("t.process.wait", {"file": str(file), "deaf": True, "child": True})
    pids = await until("it runs", lambda: file.exists() and len(file.read_text().split()) == 2 and file.read_text())
    await desk.fold(name)
    await desk.redis.publish(desk.keys.cancel_channel, name)
    await until("both processes are gone", lambda: not any(alive(int(pid)) for pid in pids.split()), 5)
    await until("the slot is free", lambda: it.service.executors.free == 8, 3)
    assert desk.about(name) == []


async def test_claim_of_another_worker_cancels(worker, desk, file, until, pids_in):
    """An attempt whose claim was given to another, or condemned, is cancelled."""
    name = await desk.dispatch("t.sleep", {"file": str(file)})
    await pids_in(file)
    await desk.redis.hset(desk.partition(name[:28]).claims, name, "condemned|1")
    await until("the slot is free", lambda: worker.service.executors.free == 8, 5)
    assert desk.about(name) == []


async def test_killed_runner(worker, desk, file, until, pids_in):
    """When a child dies, each attempt in it is reported lost at once, and new attempts run in a fresh child."""
    names = [
        await desk.dispatch("t.sleep", {"file": str(file)}),
        await desk.dispatch("t.thread.wait", {"file": f"{file}2"}),
    ]
    (pid,) = await pids_in(file)
    await pids_in(Path(f"{file}2"))
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    for name in names:
        await until("the loss is in the log", lambda name=name: desk.first(name), 5)
    assert time.monotonic() - killed < 0.3
    for name in names:
        lost = await desk.result(name)
        assert (type(lost).__name__, lost.reason, lost.worker) == ("Lost", "crash", worker.service.id)
        assert lost.detail == "its process was ended by signal 9 (SIGKILL), as the kernel does when memory runs out"
    assert json.loads((await desk.run("t.thread")).output)["pid"] != pid


async def test_killed_process(worker, desk, file, pids_in):
    """When a process child dies only its own attempt is lost."""
    other = await desk.dispatch("t.sleep", {"file": f"{file}2", "seconds": 1.0})
    name = await desk.dispatch("t.process.wait", {"file": str(file)})
    (pid,) = await pids_in(file)
    os.kill(pid, signal.SIGKILL)
    assert (await desk.result(name)).reason == "crash"
    assert (await desk.result(other)).status == "COMPLETED"


async def test_exit_code(worker, desk):
    """What a task's process ended with is told with the loss."""
    assert (await desk.run("t.die", {"code": 3})).detail == "its process ended with exit code 3"


async def test_suspect_is_alone(worker, desk):
    """A task whose earlier attempt was lost may be what killed its child: it runs in a process of its own."""
    usual = json.loads((await desk.run("t.thread")).output)["pid"]
    suspect = json.loads((await desk.result(await desk.send(desk.message("t.thread", lost=1)))).output)["pid"]
    assert suspect != usual
    assert json.loads((await desk.result(await desk.send(desk.message("t.echo", b'{"value":1}', lost=1)))).output) == 1


async def test_blocked_loop(worker, desk, file, until, pids_in):
    """A task that blocks the runner's loop stops neither heartbeats nor threads nor processes."""
    name = await desk.dispatch("t.block", {"file": str(file), "seconds": 3.0})
    await pids_in(file)
    before = await desk.beats(name, worker.service.id)
    assert (await desk.run("t.thread")).status == "COMPLETED"
    assert (await desk.run("t.process")).status == "COMPLETED"

    async def beaten() -> bool:
        return await desk.beats(name, worker.service.id) >= before + 3

    await until("three heartbeats", beaten, 3)
    assert desk.about(name) == []
    assert (await desk.result(name)).output == b'"blocked"'


async def test_timeout_of_blocked_loop(start_worker, desk, file, alive, pids_in):
    """A blocked loop loses its child after the grace time: that attempt is TIMED_OUT, the others lost."""
    await start_worker(grace=0.3)
    other = await desk.dispatch("t.thread.wait", {"file": f"{file}2"})
    await pids_in(Path(f"{file}2"))
    result = await desk.run("t.block", {"file": str(file)}, timeout_ms=300)
    assert result.status == "TIMED_OUT"
    assert (await desk.result(other)).reason == "crash"
    (pid,) = await pids_in(file)
    assert not alive(pid)
    assert (await desk.run("t.echo")).status == "COMPLETED"


async def test_stubborn_task(start_worker, desk, file, until, alive, pids_in):
    """An async task that ignores its cancellation loses its child after the grace time."""
    await start_worker(grace=0.3)
    result = await desk.run("t.stubborn", {"file": str(file)}, timeout_ms=300)
    assert result.status == "TIMED_OUT"
    (pid,) = await pids_in(file)
    await until("the child is gone", lambda: not alive(pid))
