"""What a worker owes the protocol: claims, heartbeats, results that stay until they are folded, drain."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.ids import new_execution_id, partition_of


async def test_registration(worker, desk, until):
    """A worker publishes who it is and what it can run, by the hash of its catalogue; it leaves with a drain."""
    service = worker.service
    entry = msgspec.json.decode(await desk.redis.get(desk.keys.worker(service.id)))
    assert (entry["id"], entry["queues"], entry["slots"], entry["free"]) == (service.id, ["default"], 8, 8)
    catalogue = msgspec.json.decode(await desk.redis.hget(desk.keys.catalogues, entry["catalogue"]))
    assert catalogue["tasks"]["t.total"]["params"]["required"] == ["order"]
    assert "t.guarded" in catalogue["refused"]
    assert [member.decode() for member in await desk.redis.zrange(desk.keys.workers, 0, -1)] == [service.id]
    await worker.stop()
    assert await desk.redis.zcard(desk.keys.workers) == 0
    assert await desk.redis.exists(desk.keys.worker(service.id)) == 0


async def test_offset_is_committed_with_the_claim(worker, desk, tmp_path, until, pids_in):
    """Once claimed, a message is committed although its task still runs: nothing waits behind a long task."""
    name = await desk.dispatch("t.sleep", {"file": str(tmp_path / "pid")})
    await pids_in(tmp_path / "pid")
    assert await desk.claim_of(name) == worker.service.id

    async def committed() -> bool:
        keys = [desk.keys.task_lease("default", n) for n in range(desk.settings.task_partitions)]
        return sum([int(await desk.redis.hget(key, "off") or 0) for key in keys]) == 1

    await until("the offset is committed", committed, 2)


async def test_full_worker_leaves_messages_unclaimed(start_worker, desk, tmp_path, until, pids_in):
    """A message beyond the free slots is neither claimed nor committed; it runs when a slot comes free."""
    await start_worker(worker_slots=1)
    first = await desk.dispatch("t.sleep", {"file": str(tmp_path / "a"), "seconds": 1.0})
    await pids_in(tmp_path / "a")
    second = await desk.dispatch("t.echo")
    assert (await desk.claim_of(second)) == ""
    assert (await desk.result(first)).status == "COMPLETED"
    assert (await desk.result(second)).status == "COMPLETED"


async def test_later(worker, desk, until):
    """While a partition's owner has not caught up its messages wait unclaimed; others pass them."""
    blocked = desk.message("t.echo", b'{"value":1}')
    keys = desk.partition(blocked.execution)
    await desk.redis.hset(keys.meta, "live", "0")
    name = await desk.send(blocked)
    for _ in range(2):  # in both task partitions
        assert (await desk.run("t.echo", execution=other_partition(desk, blocked.execution))).status == "COMPLETED"
    assert desk.about(name) == []
    await desk.redis.hset(keys.meta, "live", "1")
    assert (await desk.result(name, 3)).status == "COMPLETED"


def other_partition(desk, execution):
    """A new execution id in another partition than this one's."""
    return new_execution_id((partition_of(execution) + 1) % desk.settings.partitions, 1)


async def test_stale_message(worker, desk):
    """A message whose token is not in flight is dropped."""
    stale = await desk.send(desk.message("t.echo"), in_flight=False)
    for _ in range(2):
        await desk.run("t.echo")
    assert desk.about(stale) == []


async def test_lost_reply_to_a_claim(worker, desk):
    """A claim whose reply was lost is MINE when it is asked again: the attempt runs."""
    message = desk.message("t.echo")
    keys = desk.partition(message.execution)
    name = wire_token(message)
    await desk.redis.hset(keys.claims, name, f"{worker.service.id}|1")
    await desk.redis.hset(keys.in_flight, name, "1")
    assert (await desk.result(await desk.send(message))).status == "COMPLETED"


async def test_a_partition_that_nobody_serves_does_not_stop_the_others(worker, desk):
    """More messages than a worker reads ahead wait for an owner: messages of other partitions are run meanwhile."""
    blocked = desk.message("t.echo")
    await desk.redis.hset(desk.partition(blocked.execution).meta, "live", "0")
    for n in range(140):
        await desk.send(msgspec.structs.replace(blocked, node=f"n{n}"))
    for _ in range(2):  # in both task partitions
        assert (await desk.run("t.echo", execution=other_partition(desk, blocked.execution))).status == "COMPLETED"


async def test_an_attempt_that_ended_here_is_not_begun_again(worker, desk, until):
    """A roll-back of Redis brings a token back without its claim: the worker that ran it leaves it to the sweeps."""
    message = desk.message("t.echo")
    name = await desk.send(message)
    await desk.result(name)
    await until("the worker forgot the result", lambda: len(worker.service.supervisor.reports) == 0)
    await desk.send(message)
    for _ in range(2):
        await desk.run("t.echo")
    assert len(desk.about(name)) == 1


async def test_an_execution_that_was_created_again(worker, desk, until):
    """A token that ran here runs again when it was dispatched anew: its execution was deleted, and has another life."""
    message = desk.message("t.echo")
    name = await desk.send(message)
    await desk.result(name)
    await until("the worker forgot the result", lambda: len(worker.service.supervisor.reports) == 0)
    await desk.send(msgspec.structs.replace(message, queued_at=message.queued_at + 1))
    await until("it ran again", lambda: len(desk.about(name)) == 2)


async def test_a_partition_that_is_not_installed(worker, desk, until):
    """A message of an execution that can have no owner is a dead letter; it does not hold up the offset."""
    await desk.send(desk.message("t.echo", execution=new_execution_id(desk.settings.partitions, 1)))
    letters = desk.log.reader()
    letters.assign({TopicPartition(topics.dead_letters(desk.settings.namespace), 0): 0})
    batch, *_ = await until("a dead letter", lambda: letters.read(0.5))
    await letters.close()
    letter = msgspec.msgpack.decode(batch.records[0], type=wire.DeadLetter)
    assert "4 are installed" in letter.reason
    lanes = worker.service.supervisor.leases._lanes
    await until("the offset is committed", lambda: sum(lane.committed for lane in lanes) == 1)


def wire_token(message: wire.TaskMessage) -> str:
    """The token of a message."""
    return f"{message.execution}/{message.node}/{message.attempt}"


async def test_result_is_kept_and_appended_again(worker, desk, until):
    """A result that the fold passed without taking it is appended again, the same bytes; once folded it is dropped."""
    name = await desk.dispatch("t.echo")
    record = await until("the result", lambda: desk.first(name))
    keys = desk.partition(name[:28])
    assert len(worker.service.supervisor.reports) == 1
    await desk.redis.hset(keys.meta, "off", "1000")
    await until("it comes again", lambda: len(desk.about(name)) > 1, 5)
    assert desk.about(name)[1] == record
    await desk.fold(name)
    await until("it is forgotten", lambda: len(worker.service.supervisor.reports) == 0, 5)


async def test_unfolded_result_is_beaten(worker, desk, until):
    """A finished attempt stays claimed, and its worker beats for it, until its result was folded."""
    name = await desk.dispatch("t.echo")
    await until("the result", lambda: desk.first(name))
    before = await desk.beats(name, worker.service.id)

    async def beaten() -> bool:
        return await desk.beats(name, worker.service.id) > before

    await until("a heartbeat", beaten, 3)
    assert await desk.claim_of(name) == worker.service.id


async def test_forgotten_claim_is_asserted(worker, desk, tmp_path, pids_in, until):
    """A claim that Redis forgot in a roll-back is asserted again by the heartbeat of who runs it."""
    name = await desk.dispatch("t.sleep", {"file": str(tmp_path / "pid")})
    await pids_in(tmp_path / "pid")
    await desk.redis.hdel(desk.partition(name[:28]).claims, name)

    async def claimed() -> bool:
        return await desk.claim_of(name) == worker.service.id

    await until("the claim is back", claimed, 3)


async def test_rewound_offset(worker, desk, tmp_path, until):
    """When Redis forgets committed offsets the messages are read again, and none runs twice."""
    file = tmp_path / "ran"
    names = [await desk.dispatch("t.note", {"file": str(file)}) for _ in range(4)]
    for name in names:
        await until("the result", lambda name=name: desk.first(name))
    keys = [desk.keys.task_lease("default", number) for number in range(desk.settings.task_partitions)]

    async def committed() -> bool:
        return sum([int(await desk.redis.hget(key, "off") or 0) for key in keys]) == 4

    await until("all is committed", committed)
    for key in keys:
        await desk.redis.hset(key, "off", "0")
    await until("all was read and committed again", committed)
    assert (await desk.run("t.echo")).status == "COMPLETED"
    assert len(file.read_text().splitlines()) == 4


async def test_two_workers_share(start_worker, desk, until):
    """Workers on one queue divide its task partitions among them."""
    one = await start_worker()
    other = await start_worker()

    async def owners() -> bool:
        keys = [desk.keys.task_lease("default", n) for n in range(desk.settings.task_partitions)]
        return {await desk.redis.hget(key, "own") for key in keys} == {
            one.service.id.encode(),
            other.service.id.encode(),
        }

    await until("each has one of two partitions", owners, 10)


async def test_drain_lets_tasks_finish(worker, desk, tmp_path, pids_in):
    """A draining worker claims nothing more, lets what runs finish, and its results are in the log when it leaves."""
    name = await desk.dispatch("t.sleep", {"file": str(tmp_path / "pid"), "seconds": 1.0})
    await pids_in(tmp_path / "pid")
    await worker.stop()
    assert (await desk.result(name)).status == "COMPLETED"
    late = await desk.dispatch("t.echo")
    assert await desk.claim_of(late) == ""
    keys = [desk.keys.task_lease("default", n) for n in range(desk.settings.task_partitions)]
    assert not any([await desk.redis.hget(key, "own") for key in keys])


async def test_drain_hands_back(start_worker, desk, tmp_path, pids_in, alive, until):
    """What does not finish within the grace time is ended and handed back as lost to the drain."""
    it = await start_worker(worker_grace=0.2)
    names = [
        await desk.dispatch("t.sleep", {"file": str(tmp_path / "a")}),
        await desk.dispatch("t.process.wait", {"file": str(tmp_path / "b")}),
    ]
    pids = await pids_in(tmp_path / "a") + await pids_in(tmp_path / "b")
    await it.stop()
    assert [(await desk.result(name)).reason for name in names] == ["drain", "drain"]
    assert not any(map(alive, pids))


def start_command(settings):
    """`wf worker` in a process of its own."""
    said = {f"APP_{name.upper()}": str(value) for name, value in settings.model_dump(exclude_none=True).items()}
    program = "from wf_worker.commands import worker; worker()"
    return subprocess.Popen([sys.executable, "-c", program], env={**os.environ, **said})


async def test_killed_supervisor(settings, desk, tmp_path, pids_in, alive, until):
    """When a supervisor is killed its children die with it, and what they started."""
    supervisor = start_command(settings)
    try:
        names = [
            await desk.dispatch("t.block", {"file": str(tmp_path / "a")}),
            await desk.dispatch("t.process.wait", {"file": str(tmp_path / "b"), "deaf": True, "child": True}),
        ]
        pids = await pids_in(tmp_path / "a") + await pids_in(tmp_path / "b")
        assert len(pids) == 3
    finally:
        supervisor.kill()
        supervisor.wait()
    await until("all are gone", lambda: not any(map(alive, pids)), 2)
    assert [desk.about(name) for name in names] == [[], []]


async def test_sigterm_drains_the_command(settings, desk, tmp_path, pids_in):
    """SIGTERM ends `wf worker` with exit code 0, after it handed back what ran."""
    supervisor = start_command(settings.model_copy(update={"worker_grace": 0.0}))
    try:
        name = await desk.dispatch("t.sleep", {"file": str(tmp_path / "a")})
        await pids_in(tmp_path / "a")
        supervisor.send_signal(signal.SIGTERM)
        assert (await desk.result(name, 10)).reason == "drain"
        assert await asyncio.to_thread(supervisor.wait, 10) == 0
    finally:
        supervisor.kill()
        supervisor.wait()


async def test_oversized_record(start_worker, desk):
    """A result that the log refuses for its size becomes a failure that says so."""
    await start_worker(max_payload_bytes=8 * 2**20)
    result = await desk.run("t.big", {"size": 2 * 2**20})
    assert (result.status, result.error.type, result.error.fatal) == ("FAILED", "PayloadError", True)


async def test_queue_of_its_own(start_worker, desk):
    """A worker takes from the queues it was given, and creates their topics."""
    await start_worker(worker_queues="default, gpu")
    message = desk.message("t.echo")
    assert (await desk.result(await desk.send(message, queue="gpu"))).status == "COMPLETED"


async def test_changed_task_file(start_worker, desk, tmp_path, until):
    """A changed task file is used by new attempts without a restart of the worker."""
    file = tmp_path / "tasks" / "mine.py"
    file.parent.mkdir()
    source = "from wf_core import task\n@task('mine')\nasync def mine() -> str:\n    return '{}'\n"
    file.write_text(source.format("old"))
    await start_worker(worker_task_paths=str(file.parent))
    assert (await desk.run("mine")).output == b'"old"'
    file.write_text(source.format("newer"))

    async def newer() -> bool:
        return (await desk.run("mine")).output == b'"newer"'

    await until("the new code runs", newer, 15)


async def test_broken_plugins(start_worker, desk):
    """Tasks that raise, or end the process, at import are left out with the reason; the others run."""
    it = await start_worker(worker_task_paths=str(Path(__file__).parent / "broken_tasks"))
    broken = it.service.executors.catalogue.broken
    assert "broken on purpose" in broken["a_raises.py"]
    assert "exit code 7" in broken["b_exits.py"]
    assert "annotations" in broken["b.hints"]
    assert (await desk.run("b.fine")).output == b'"fine"'
    assert (await desk.run("b.hints")).error.type == "PluginError"


async def test_redis_away(start_worker, desk, redis_server, tmp_path, pids_in, until):
    """While Redis is away what runs goes on; back again, the worker beats first and then takes messages."""
    it = await start_worker(death_seconds=1.0)
    name = await desk.dispatch("t.sleep", {"file": str(tmp_path / "pid"), "seconds": 2.0})
    await pids_in(tmp_path / "pid")
    redis_server.restart()
    await until("the restart is noticed", lambda: not it.service.supervisor.heartbeat.may_claim(), 10)
    assert json.loads((await desk.result(name, 20)).output) == "slept"
    assert (await desk.run("t.echo")).status == "COMPLETED"
