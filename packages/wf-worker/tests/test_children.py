"""Children without a worker around them: the fork server, both sockets, what a blocked loop holds up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from wf_core.wire import TaskMessage
from wf_worker import forks as forks_module
from wf_worker.attempts import Attempt, Ended
from wf_worker.executors import Executors
from wf_worker.forks import Forks
from wf_worker.frames import Configure

TASKS = Path(__file__).parent / "sample_tasks"
CONFIGURE = Configure(
    worker="w",
    slots=8,
    allow=(),
    paths=(str(TASKS),),
    skip={},
    max_payload_bytes=2**20,
    log_level="INFO",
    log_format="json",
)


class Bench:
    """Executors, and how each attempt ended."""

    def __init__(self) -> None:
        self.ended: dict[str, Ended] = {}
        self.executors = Executors(CONFIGURE, now_ms=int, on_end=self._end, on_free=lambda: None, grace=2.0)

    def run(self, name: str, task: str, **params: Any) -> None:
        """Begins an attempt that is called `name`."""
        message = TaskMessage(
            execution=name,
            node="n",
            attempt=1,
            task=task,
            params=json.dumps(params).encode(),
            workflow="w",
            queued_at=0,
        )
        self.executors.run(name, message)

    def output(self, name: str) -> Any:
        """What the attempt returned."""
        return json.loads(self.ended[name].output or b"")

    def _end(self, attempt: Attempt, ended: Ended) -> None:
        self.ended[attempt.token] = ended


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """Executors whose runner has loaded the sample tasks."""
    it = Bench()
    await it.executors.start()
    keeping = asyncio.create_task(it.executors.runners.keep())
    yield it
    keeping.cancel()
    await asyncio.wait([keeping])
    await it.executors.close()


async def test_what_ended_is_told_although_the_loop_is_blocked_after_it(bench, until, pids_in, tmp_path):
    """Results that end in one pass of the loop are sent together, but never wait for a task that blocks that pass."""
    for name in "abc":
        bench.run(name, "t.echo", value=name)
    bench.run("block", "t.block", file=str(tmp_path / "pid"), seconds=30.0)
    await pids_in(tmp_path / "pid")
    await until("the others ended", lambda: set(bench.ended) >= set("abc"), 5)
    assert [bench.output(name) for name in "abc"] == list("abc")
    assert "block" not in bench.ended


async def test_threads_hear_cancels_although_the_loop_is_blocked(bench, until, pids_in, tmp_path):
    """Attempts for threads are begun, and told that they are cancelled, while a task blocks the loop."""
    bench.run("block", "t.block", file=str(tmp_path / "pid"), seconds=30.0)
    await pids_in(tmp_path / "pid")
    bench.run("waits", "t.thread.wait", file=str(tmp_path / "thread"))
    await pids_in(tmp_path / "thread")
    assert bench.executors.cancel("waits")
    await until("it saw that", lambda: (tmp_path / "thread").read_text() == "cancelled", 5)
    assert "block" not in bench.ended


async def test_cancelled_before_it_is_read(bench, until, pids_in, tmp_path):
    """A cancel that comes with its attempt, or while the loop is blocked, ends that attempt and nothing else."""
    child = bench.executors.runners.current
    bench.run("block", "t.block", file=str(tmp_path / "pid"), seconds=0.5)
    await pids_in(tmp_path / "pid")
    for name in ("behind", "next"):
        bench.run(name, "t.sleep", file=str(tmp_path / name))
        bench.executors.cancel(name)
    await until("all ended", lambda: len(bench.ended) == 3, 10)
    assert bench.output("block") == "blocked"
    assert {str(bench.ended[name].status) for name in ("behind", "next")} == {"CANCELLED"}
    assert bench.executors.runners.current is child


async def test_each_slot_has_a_thread(bench, until, tmp_path):
    """As many plain tasks as there are slots run at once, and later ones reuse their threads."""
    for turn in range(3):
        files = [tmp_path / f"{turn}-{n}" for n in range(8)]
        for file in files:
            bench.run(file.name, "t.thread.wait", file=str(file))
        await until("all run", lambda files=files: all(file.exists() for file in files), 10)
        for file in files:
            bench.executors.cancel(file.name)
        await until("all slots are free", lambda: bench.executors.free == 8, 10)


async def test_a_long_output_in_many_pieces(bench, until):
    """A frame that no socket takes at once arrives whole, among others."""
    for turn in range(4):
        bench.run(f"big{turn}", "t.big", size=1_000_000)
        bench.run(f"echo{turn}", "t.echo", value=turn)
        bench.run(f"thread{turn}", "t.thread", value="y" * 500_000)
        await until("all ended", lambda: bench.executors.free == 8, 10)
    assert [len(bench.output(f"big{turn}")) for turn in range(4)] == [1_000_000] * 4
    assert [len(bench.output(f"thread{turn}")["value"]) for turn in range(4)] == [500_000] * 4


async def test_the_fork_server_is_replaced(bench, until, alive):
    """When it dies its children go on; the next child brings another one."""
    forks = bench.executors.forks
    first = forks.server
    os.kill(first, signal.SIGKILL)
    await until("it is gone", lambda: not alive(first), 5)
    bench.run("async", "t.echo", value=1)
    bench.run("process", "t.process", value=2)
    await until("both ended", lambda: len(bench.ended) == 2, 20)
    assert bench.output("process")["value"] == 2
    assert forks.server != first
    child = bench.executors.runners.current
    os.kill(child.pid, signal.SIGKILL)  # an orphan of the first one
    await until("a new runner", lambda: bench.executors.runners.current not in (None, child), 20)


async def test_a_fork_server_that_hangs_is_replaced(bench, until, monkeypatch):
    """An attempt whose process does not come is lost, after a while; the next one gets its process."""
    monkeypatch.setattr(forks_module, "FORK_SECONDS", 1.0)
    os.kill(bench.executors.forks.server, signal.SIGSTOP)
    bench.run("lost", "t.process", value=1)
    await until("it is lost", lambda: "lost" in bench.ended, 20)
    assert str(bench.ended["lost"].status) == "LOST"
    monkeypatch.undo()
    bench.run("next", "t.process", value=2)
    await until("it ended", lambda: "next" in bench.ended, 20)
    assert bench.output("next")["value"] == 2


async def test_exit_codes_of_forks():
    """How a fork ended is known; one whose sockets are closed ends by itself."""
    forks = Forks()
    ours, theirs = socket.socketpair()
    try:
        forked = await forks.fork("process", theirs, theirs)
        theirs.close()
        ours.close()
        assert await asyncio.wait_for(forked.ended, 20) == -signal.SIGKILL
    finally:
        await forks.close()


PARENT = r"""
import os, subprocess, sys, time
code = "import sys, os, time; from wf_worker import lifeline; lifeline.tie(int(sys.argv[1])); "
code += "os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)"
reading, writing = os.pipe()
for _ in range(3):
    subprocess.Popen([sys.executable, "-c", code, str(reading)], pass_fds=[reading], start_new_session=True)
time.sleep(60)
"""


async def test_a_supervisor_that_dies_takes_every_child_with_it(until, alive):
    """All process groups end, of children that neither read nor run Python code too."""
    command = [sys.executable, "-c", PARENT]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    pids = [int(await process.stdout.readline()) for _ in range(3)]
    process.kill()
    await process.wait()
    await until("all are gone", lambda: not any(map(alive, pids)), 5)


EARLY = """
import asyncio, json, os, random, sys, threading
from wf_worker.forks import Forks
held = open(os.devnull)
random.seed(1)
sys.stdout.write("not yet flushed ")
forks = Forks.early()
assert forks.server, "it must have been forked"
from wf_core.wire import TaskMessage
from wf_worker import forks as forks_module
from wf_worker.executors import Executors
from wf_worker.frames import Configure

async def main():
    ended = {}
    settings = {"max_payload_bytes": 9999, "log_level": "INFO", "log_format": "json"}
    configure = Configure(worker="w", slots=4, allow=(), paths=(sys.argv[1],), skip={}, **settings)
    free = asyncio.Event()
    keep = lambda attempt, end: ended.update({attempt.token: json.loads(end.output)})
    executors = Executors(configure, int, keep, free.set, forks=forks)
    await executors.start()
    for task in ("t.around", "t.around.thread", "t.around.process"):
        free.clear()
        said = {"execution": "e", "node": "n", "attempt": 1, "params": b"{}", "workflow": "w", "queued_at": 0}
        executors.run(task, TaskMessage(task=task, **said))
        await free.wait()
    await executors.close()
    print(json.dumps(ended))

asyncio.run(main())
"""


def test_forked_early(tmp_path):
    """A child that shares its supervisor's pages is otherwise as one that was started.

    It inherits no files, no session and no path of the command; what it prints is out at once, and its random numbers
    are its own.
    """
    script = tmp_path / "early.py"
    script.write_text(EARLY)
    done = subprocess.run(
        [sys.executable, script, TASKS], stdin=subprocess.PIPE, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not yet flushed") == 1
    ended = json.loads(done.stdout.splitlines()[-1])
    assert len({around["pid"] for around in ended.values()}) == 2
    for around in ended.values():
        assert around["session"] == around["pid"]
        assert around["stdin"] == os.devnull
        assert not set(around["files"]) & {str(script), os.devnull}
        assert str(tmp_path) not in around["path"]
        assert around["threshold"] == around["usual"]
        assert around["main"] == "wf_worker.child"
    assert "said by a task" in done.stderr
    assert len({around["random"] for around in ended.values()}) == 3
