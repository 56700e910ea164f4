"""Tasks that run code."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from wf_core import Fatal
from wf_tasks_builtin import python, shell


async def test_a_text_goes_through_the_shell_and_a_list_does_not():
    """Both return exit code and output."""
    ran = await shell.run.function("echo $X; cat; echo err >&2", env={"X": "1"}, stdin="in")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "1\nin", "err\n")
    ran = await shell.run.function(["echo", "$X; rm"])
    assert ran.stdout == "$X; rm\n"


async def test_an_unexpected_exit_code_fails_with_the_end_of_the_error_output():
    """`expect` lists the codes that are fine."""
    with pytest.raises(shell.CommandFailedError, match="exited with 3: no such order"):
        await shell.run.function("echo no such order >&2; exit 3")
    assert (await shell.run.function("exit 3", expect=[0, 3])).exit_code == 3


async def test_only_the_newest_output_is_kept():
    """A talkative command cannot fill the memory."""
    ran = await shell.run.function("seq 100000", max_output=100)
    assert len(ran.stdout) == 100
    assert ran.stdout.endswith("100000\n")


async def test_a_cancel_ends_the_whole_process_group(tmp_path):
    """No grandchild outlives the attempt."""
    pid_file = tmp_path / "pid"
    running = asyncio.ensure_future(shell.run.function(f"sleep 300 & echo $! > {pid_file}; wait"))
    deadline = time.monotonic() + 10
    while not (pid_file.exists() and pid_file.read_text().strip()):
        assert time.monotonic() < deadline, "the command never started"
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    pid = int(pid_file.read_text())
    while _alive(pid):
        assert time.monotonic() < deadline, "the grandchild still runs"
        await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a zombie that nobody reaped is dead
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def test_python_call_calls_a_function_of_an_installed_module():
    """`module:function` with positional and keyword arguments."""
    assert python.call.function("statistics:mean", [[1, 2, 3]]) == 2
    assert python.call.function("json:dumps", [{"b": 1, "a": 2}], {"sort_keys": True}) == '{"a": 2, "b": 1}'


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere:f", "cannot be imported"),
        ("math:nothing", "cannot be imported"),
        ("math:pi", "cannot be called"),
        ("asyncio:sleep", "async"),
    ],
)
def test_python_call_names_what_is_wrong_with_the_target(target, message):
    """No retry can help, so the error is fatal."""
    with pytest.raises(Fatal, match=message):
        python.call.function(target)
