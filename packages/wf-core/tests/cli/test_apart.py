"""The service of `wf dev` that runs in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from wf_core.dev.apart import apart
from wf_core.errors import SetupError
from wf_core.settings import Settings


def listeners(port: int) -> list[int]:
    """The processes that hold a socket which listens on `port`."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if inodes & {str(file.readlink()) for file in (process / "fd").iterdir()}:
                found.append(int(process.name))
    return found


def test_the_api_that_dies_ends_wf_dev(start_dev):
    """`wf dev` does not go on without its API: it ends, and says which service ended."""
    dev = start_dev("--port", "0", "--memory")
    (pid,) = listeners(int(dev.url.rpartition(":")[2]))
    assert pid != dev.process.pid
    os.kill(pid, signal.SIGKILL)
    assert dev.process.wait(30) == 2
    assert "a service ended by itself" in (dev.folder / "stderr.log").read_text()


def test_the_api_ends_with_a_killed_wf_dev(start_dev):
    """However `wf dev` ends, its API ends with it."""
    dev = start_dev("--port", "0", "--memory")
    port = int(dev.url.rpartition(":")[2])
    dev.process.kill()
    dev.process.wait()
    deadline = time.monotonic() + 20
    while listeners(port):
        assert time.monotonic() < deadline, "it still listens"
        time.sleep(0.05)


async def test_a_service_that_does_not_start():
    """Who waits for it hears that it did not start, not for how long to wait."""
    with apart("no-such-service", Settings()) as service, pytest.raises(SetupError, match="no-such-service"):
        await service.start()
