"""Fail points: what `WF_FAIL_POINTS` may say, and what happens at a point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from wf_core import failpoints
from wf_core.errors import SetupError
from wf_core.failpoints import FailPointError, FailPoints, fail_point

PROGRAM = """
import os
from wf_core import failpoints
failpoints.activate(os.environ)
for n in range(3):
    failpoints.fail_point("worker.claimed")
    print(n, flush=True)
"""


@pytest.fixture(autouse=True)
def _inactive() -> Iterator[None]:
    """No fail point outlives its test."""
    yield
    failpoints.activate({})


def times(points: FailPoints, number: int) -> list[int]:
    """Which of so many passes of `worker.read` raise."""
    raised = []
    for n in range(1, number + 1):
        try:
            points.reach("worker.read")
        except FailPointError:
            raised.append(n)
    return raised


def test_nothing_fails_unless_it_is_asked_for():
    """Without the variable, or with an empty one, a fail point does nothing."""
    for environment in ({}, {"WF_FAIL_POINTS": "  "}):
        failpoints.activate(environment)
        fail_point("worker.claimed")


def test_a_point_that_raises():
    """`raise` raises at its own point each time, and names it; other points are passed."""
    failpoints.activate({"WF_FAIL_POINTS": "worker.read=raise"})
    fail_point("worker.claimed")
    for _ in range(2):
        with pytest.raises(FailPointError, match=r"worker\.read"):
            fail_point("worker.read")


def test_several_points():
    """Entries are separated by semicolons; spaces and empty entries do not matter."""
    points = FailPoints(" worker.read=raise@#2 ;; api.accepted=raise ; ")
    assert times(points, 3) == [2]
    with pytest.raises(FailPointError):
        points.reach("api.accepted")


def test_the_nth_time():
    """`@#n` acts once, the n-th time that the point is reached."""
    assert times(FailPoints("worker.read=raise@#3"), 10) == [3]


def test_chances_repeat_with_a_seed():
    """`@chance` acts now and then; with a seed at the same times in each run."""
    found = times(FailPoints("worker.read=raise@0.3", seed="7"), 1000)
    assert 200 < len(found) < 400
    assert times(FailPoints("worker.read=raise@0.3", seed="7"), 1000) == found
    assert times(FailPoints("worker.read=raise@0.3", seed="8"), 1000) != found
    assert times(FailPoints("worker.read=raise@0"), 100) == []


@pytest.mark.parametrize(
    "text",
    [
        "worker.read",
        "worker.nowhere=kill",
        "worker.read=explode",
        "worker.read=kill@often",
        "worker.read=kill@#x",
        "worker.read=kill@#0",
        "worker.read=kill@1.5",
        "worker.read=kill@nan",
        "worker.read=kill@-0.1",
        "worker.read=kill; worker.read=pause",
    ],
)
def test_what_does_not_exist_is_refused(text):
    """A point, an action or a time that does not exist, and a point named twice: a test would prove nothing."""
    with pytest.raises(SetupError, match="WF_FAIL_POINTS"):
        FailPoints(text)


def test_a_process_is_killed():
    """`kill` ends the process with SIGKILL at the point: nothing after it runs."""
    environment = {**os.environ, "WF_FAIL_POINTS": "worker.claimed=kill@#2"}
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "0\n")


def test_a_process_is_paused():
    """`pause` stops the process at the point until somebody continues it."""
    environment = {**os.environ, "WF_FAIL_POINTS": "worker.claimed=pause@#2"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED)
            assert found is not None
            assert found.si_code == os.CLD_STOPPED
            os.kill(process.pid, signal.SIGCONT)
            assert process.communicate(timeout=30)[0] == "0\n1\n2\n"
        finally:
            process.kill()
