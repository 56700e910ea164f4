"""Redis restarts, with and without its last writes, or only its connections break."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wf_testservers.redis import RedisServer, start_redis

from wf_core.store.scripts import Scripts


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which it may rob of its last writes."""
    with start_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def roll_back(redis_server: RedisServer) -> Callable[[], Callable[[], None]]:
    """Marks a moment; what it returns kills Redis and starts it again as it was at that moment."""

    def mark() -> Callable[[], None]:
        files = [*redis_server.directory.glob("appendonlydir/*.incr.aof"), redis_server.directory / "appendonly.aof"]
        file = files[0]  # the one file of Redis 6
        size = file.stat().st_size

        def back() -> None:
            redis_server.kill()
            with file.open("r+b") as log:
                log.truncate(size)
            redis_server.start()

        return back

    return mark


def lines(file: Path) -> int:
    """How often a task has noted that it ran."""
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_offsets_that_are_used_again(start_worker, desk, roll_back, tmp_path, pids_in, until):
    """When the log goes back with Redis, what is appended then at offsets that were read before is not skipped."""
    it = await start_worker(worker_slots=1, death_seconds=1.0)
    for _ in range(4):
        await desk.run("t.echo")
    running = await desk.dispatch("t.sleep", {"file": str(tmp_path / "pid"), "seconds": 4.0})
    await pids_in(tmp_path / "pid")
    lanes = it.service.supervisor.leases._lanes
    await until("the offset is committed", lambda: sum(lane.committed for lane in lanes) == 5)
    back = roll_back()
    forgotten = [await desk.dispatch("t.echo", {"value": "old"}) for _ in range(4)]
    await until("they were read", lambda: lanes.waiting == 4)
    back()
    await desk.follow_anew()
    names = [await desk.dispatch("t.echo", {"value": "new"}) for _ in range(4)]
    results = [await desk.result(name) for name in [running, *names]]
    assert [result.output for result in results] == [b'"slept"', *[b'"new"'] * 4]
    assert [desk.about(name) for name in forgotten] == [[]] * 4


async def test_offsets_that_redis_forgot(start_worker, desk, roll_back, until):
    """A lane that stands beyond what Redis remembers goes back, and no commit hides what Redis forgot."""
    it = await start_worker(death_seconds=1.0)
    await desk.run("t.echo")
    back = roll_back()
    for _ in range(6):
        await desk.run("t.echo")
    lanes = it.service.supervisor.leases._lanes
    await until("the offsets are committed", lambda: sum(lane.committed for lane in lanes) == 7)
    back()
    await desk.follow_anew()
    for value in range(6):
        assert (await desk.run("t.echo", {"value": value})).output == str(value).encode()
    await until("the offsets are committed again", lambda: sum(lane.committed for lane in lanes) == 7)


async def test_forgotten_claim(start_worker, desk, roll_back, tmp_path, pids_in, until):
    """An attempt whose claim Redis forgot does not run again, although its message is read again."""
    await start_worker(worker_slots=1, death_seconds=1.0)
    first = await desk.dispatch("t.sleep", {"file": str(tmp_path / "pid"), "seconds": 1.0})
    await pids_in(tmp_path / "pid")
    name = await desk.dispatch("t.long.note", {"file": str(tmp_path / "notes"), "seconds": 3.0})
    back = roll_back()
    await desk.result(first)
    await until("it runs", lambda: lines(tmp_path / "notes"))
    back()
    await desk.follow_anew()
    assert (await desk.result(name)).status == "COMPLETED"
    assert (await desk.run("t.echo")).status == "COMPLETED"
    assert lines(tmp_path / "notes") == 1
    assert len(desk.about(name)) == 1


async def test_work_goes_on_soon_after_a_restart(start_worker, desk, redis_server, until):
    """Once every worker has beaten under the new Redis messages are claimed: within 2 s, not after a death time."""
    workers = [await start_worker(death_seconds=30.0) for _ in range(2)]
    await desk.run("t.echo")
    redis_server.restart()
    back = time.monotonic()
    assert (await desk.run("t.echo")).status == "COMPLETED"
    assert time.monotonic() - back < 2
    await until("both claim", lambda: all(it.service.supervisor.heartbeat.may_claim() for it in workers))


async def test_a_worker_that_does_not_come_back_is_waited_for(start_worker, desk, redis_server, until):
    """What a silent worker claimed may be forgotten: nothing is claimed before it counts as dead."""
    one = await start_worker(death_seconds=1.5)
    other = await start_worker(death_seconds=1.5)
    await until("they know each other", lambda: len(one.service.supervisor.registration._heard) == 2)
    await silence(other)
    redis_server.restart()
    heartbeat = one.service.supervisor.heartbeat
    await until("the restart is noticed", lambda: not heartbeat.may_claim(), 5)
    noticed = time.monotonic()
    await until("messages are claimed again", heartbeat.may_claim, 10)
    assert time.monotonic() - noticed > 1.2


async def silence(worker) -> None:
    """Lets no more heartbeat of this worker through."""
    last = asyncio.Event()

    async def beat() -> None:
        last.set()
        await asyncio.Event().wait()

    worker.service.supervisor.heartbeat.beat = beat
    await last.wait()


async def test_what_runs_here_is_not_begun_again(start_worker, desk, tmp_path, until):
    """When Redis forgot a claim, and nobody has noticed, a copy of the message is claimed again but not run."""
    it = await start_worker(death_seconds=30.0)
    message = desk.message("t.long.note", json.dumps({"file": str(tmp_path / "notes"), "seconds": 3.0}).encode())
    name = await desk.send(message)
    await until("it runs", lambda: lines(tmp_path / "notes"))
    await silence(it)
    await desk.redis.hdel(desk.partition(name[:28]).claims, name)
    await desk.send(message)

    async def claimed() -> bool:
        return await desk.claim_of(name) == it.service.id

    await until("it is claimed again", claimed)
    assert (await desk.result(name)).status == "COMPLETED"
    assert lines(tmp_path / "notes") == 1
    assert len(desk.about(name)) == 1


async def test_connections_break(start_worker, desk, until):
    """When Redis answers again under the same name it forgot nothing: there is nothing to wait for."""
    it = await start_worker(death_seconds=30.0)
    heartbeat = it.service.supervisor.heartbeat
    server = it.service.supervisor.registration.server
    for _ in range(3):
        await desk.redis.client_kill_filter(_type="normal", skipme=True)
        heartbeat.doubt()
        assert not heartbeat.may_claim()
        assert not heartbeat.may_commit()
        await until("messages are claimed again", heartbeat.may_claim, 2)
        assert (await desk.run("t.echo")).status == "COMPLETED"
    assert it.service.supervisor.registration.server == server


async def test_start_beside_a_worker_that_has_not_beaten(start_worker, desk, until):
    """A worker that starts while another one has not beaten since Redis restarted waits for that one, too."""
    await desk.redis.set(desk.keys.worker("w1"), b'{"id": "w1", "queues": ["default"], "free": 1, "redis": "older"}')
    await desk.redis.zadd(desk.keys.workers, {"w1": round(time.time() * 1000)})
    it = await start_worker(death_seconds=30.0)
    heartbeat = it.service.supervisor.heartbeat
    assert not heartbeat.may_claim()
    entry = {"id": "w1", "redis": it.service.supervisor.registration.server}
    await desk.redis.set(desk.keys.worker("w1"), json.dumps(entry))
    await until("messages are claimed", heartbeat.may_claim, 5)


async def test_a_commit_that_would_hide_a_roll_back(desk):
    """A position is not committed on top of less than was committed before: the lane is leased anew, from there."""
    scripts, key = Scripts(desk.redis), desk.keys.task_lease("other", 0)
    await scripts.task_lease(key, "w1", 10_000)
    assert await scripts.task_commit(key, "w1", 5, 10_000, known=0)
    assert await scripts.task_commit(key, "w1", 7, 10_000, known=5)
    await desk.redis.hset(key, "off", "4")
    assert not await scripts.task_commit(key, "w1", 8, 10_000, known=7)
    assert await scripts.task_lease(key, "w1", 10_000) == 4
