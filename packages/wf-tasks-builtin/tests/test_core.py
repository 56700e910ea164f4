"""The small tasks."""

from __future__ import annotations

import asyncio

import pytest

from wf_core import Fatal
from wf_core.plugins import drivers, groups
from wf_tasks_builtin import core


def test_every_built_in_task_is_found_by_its_entry_point_and_has_a_schema():
    """Built-ins get no favours: an entry point names each, and its schema comes from its annotations."""
    ours = {n: p for n, p in drivers.installed(groups.TASKS).items() if p.distribution == "wf-tasks-builtin"}
    assert len(ours) == 10
    for name in ours:
        task = drivers.load(groups.TASKS, name)
        assert task.name == name
        assert task.parameters_schema()["type"] == "object"
        assert task.function.__doc__


def test_tasks_that_run_code_need_permission():
    """`shell.run` and `python.call` run only where the worker enables them."""
    names = {n for n in drivers.installed(groups.TASKS) if drivers.load(groups.TASKS, n).needs_permission}
    assert names == {"shell.run", "python.call"}


async def test_echo_and_noop():
    """`core.echo` returns what it got, `core.noop` nothing."""
    assert await core.echo.function(value={"a": [1, None]}) == {"a": [1, None]}
    assert await core.noop.function() is None


async def test_sleep_returns_its_value_and_can_be_cancelled():
    """A sleeping task ends at once when it is cancelled."""
    assert await core.sleep.function(seconds=0, value=7) == 7
    sleeping = asyncio.ensure_future(core.sleep.function(seconds=3600))
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping


@pytest.mark.parametrize(("attempt", "fails"), [(1, True), (2, True), (3, False)])
async def test_fail_fails_as_often_as_it_is_told(ctx, attempt, fails):
    """`core.fail` with `times: 2` succeeds in its third attempt."""
    ctx.attempt = attempt
    if fails:
        with pytest.raises(core.DeliberateError, match=f"attempt {attempt}"):
            await core.fail.function(ctx, times=2, value="ok")
    else:
        assert await core.fail.function(ctx, times=2, value="ok") == "ok"


async def test_fail_can_forbid_retries(ctx):
    """`fatal: true` raises the error that no retry follows."""
    with pytest.raises(Fatal):
        await core.fail.function(ctx, fatal=True)
