"""Heartbeats of tasks: an attempt that is silent for too long is ended, and how far it is can be read."""

from __future__ import annotations

import json

import pytest

from wf_core.settings import Settings

EXECUTORS = ["async", "thread", "process"]


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_silence_ends_an_attempt(worker, desk, executor, until):
    """An attempt that does not call ctx.heartbeat for the node's heartbeat is TIMED_OUT, and says how long it was."""
    result = await desk.run(f"t.beat.{executor}", {"beats": 3, "pause": 0.2, "then": 30.0}, heartbeat_ms=500)
    assert (result.status, result.error.type) == ("TIMED_OUT", "HeartbeatTimeoutError")
    assert {"HeartbeatTimeoutError", "TimeoutError"} <= set(result.error.classes)
    assert "longer than its heartbeat of 0.5 s" in result.error.message
    assert 850 <= result.ended_at - result.started_at < 3000
    await until("the slot is free", lambda: worker.service.executors.free == 8)


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_silence_counts_from_the_start(worker, desk, executor):
    """A task that never calls ctx.heartbeat is silent from its start on."""
    result = await desk.run(f"t.beat.{executor}", {"then": 30.0}, heartbeat_ms=300)
    assert result.error.type == "HeartbeatTimeoutError"
    assert result.ended_at - result.started_at >= 300


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_beating_keeps_an_attempt_alive(worker, desk, executor):
    """An attempt may take many times its heartbeat as long as it is not silent; one without a heartbeat may be."""
    result = await desk.run(f"t.beat.{executor}", {"beats": 12, "pause": 0.1}, heartbeat_ms=500)
    assert (result.status, result.output) == ("COMPLETED", b'"done"')
    assert (await desk.run(f"t.beat.{executor}", {"then": 0.5})).status == "COMPLETED"


async def test_timeout_of_what_beats(worker, desk):
    """Heartbeats do not prolong the timeout."""
    result = await desk.run("t.beat.async", {"beats": 100, "pause": 0.05}, heartbeat_ms=500, timeout_ms=600)
    assert (result.status, result.error.type) == ("TIMED_OUT", "TimeoutError")


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_progress(worker, desk, until, executor):
    """The newest progress stands beside the claim while the attempt runs, and is gone after it."""
    name = await desk.dispatch(f"t.beat.{executor}", {"beats": 4, "pause": 0.05, "then": 30.0})
    other = await desk.dispatch("t.beat.async", {"then": 30.0}, execution=name[:28], node="other")
    keys = desk.partition(name[:28])

    async def told() -> bool:
        return await desk.redis.hgetall(keys.progress) == {name.encode(): b'{"done":4,"of":4}'}

    await until("Redis knows the last progress", told, 5)
    assert 0 < await desk.redis.pttl(keys.progress) <= 15_000
    await desk.fold(name)

    async def gone() -> bool:
        return not await desk.redis.exists(keys.progress)

    await until("the next beat in the partition took it out", gone, 5)
    await desk.fold(other)


async def test_progress_after_a_restart_of_redis(start_worker, desk, redis_server, until):
    """A Redis that forgot the progress is told again, though it did not change."""
    await start_worker(death_seconds=1.0)
    name = await desk.dispatch("t.beat.async", {"beats": 1, "then": 30.0})
    keys = desk.partition(name[:28])

    async def told() -> bool:
        return bool(await desk.redis.hexists(keys.progress, name))

    await until("Redis knows the progress", told, 5)
    await desk.redis.delete(keys.progress)
    redis_server.restart()
    await until("Redis knows the progress again", told, 15)
    await desk.fold(name)


@pytest.mark.parametrize(("params", "said"), [({"size": 4096}, "4,098 bytes"), ({"value": "object"}, "is not JSON")])
async def test_unusable_progress(worker, desk, params, said):
    """A progress that is too long or no JSON fails the attempt at the call, with the reason."""
    error = (await desk.run("t.progress", params)).error
    assert error.type == "PayloadError"
    assert "ctx.heartbeat" in error.message
    assert said in error.message


async def test_longest_progress(worker, desk):
    """4 KiB of JSON are taken, and so is any value."""
    assert (await desk.run("t.progress", {"size": 4094})).status == "COMPLETED"
    assert (await desk.run("t.progress", {"value": [1, {"a": None}]})).status == "COMPLETED"


async def test_beats_without_number(worker, desk):
    """A task may beat in its innermost loop: what the supervisor hears is thinned out."""
    result = await desk.run("t.beat.thread", {"beats": 20_000, "pause": 0.0}, heartbeat_ms=1000)
    assert result.status == "COMPLETED"


async def test_broken_tasks_are_published(start_worker, desk, settings: Settings, tmp_path):
    """A file that does not import is named in the worker's entry and catalogue, with the line."""
    (tmp_path / "bad.py").write_text("x = 1\nnope\n")
    it = await start_worker(worker_task_paths=str(tmp_path))
    entry = json.loads(await desk.redis.get(desk.keys.worker(it.service.id)))
    reason = entry["broken"]["bad.py"]
    assert reason.endswith("NameError: name 'nope' is not defined (line 2)")
    catalogue = json.loads(await desk.redis.hget(desk.keys.catalogues, entry["catalogue"]))
    assert catalogue["broken"]["bad.py"] == reason
