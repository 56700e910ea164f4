"""ACCEPT, the leases of task partitions, and INSTALL."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from wf_core.errors import SetupError
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.scripts import Installation, Scripts

LONG = 60_000
NONE = [""]


async def test_ok_keeps_the_command(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """OK: the command waits for its fold, byte for byte."""
    command = bytes(range(256))
    assert await scripts.accept(keys, "x", "create", command, NONE) == ("OK", command)
    assert await redis.hgetall(keys.accepted) == {b"x/create": command}


async def test_exists_returns_the_first_command(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """EXISTS: one command of a verb waits already; the caller compares requests."""
    await scripts.accept(keys, "x", "create", b"first", NONE)
    assert await scripts.accept(keys, "x", "create", b"second", NONE) == ("EXISTS", b"first")
    assert await redis.hget(keys.accepted, "x/create") == b"first"


async def test_one_key_five_times_in_parallel_is_one_command(scripts: Scripts, keys: PartitionKeys):
    """Of requests that race exactly one is accepted and the others learn which."""
    replies = await asyncio.gather(*(scripts.accept(keys, "x", "create", b"%d" % i, NONE) for i in range(5)))
    assert sorted(reply.kind for reply in replies) == ["EXISTS"] * 4 + ["OK"]
    assert len({reply.value for reply in replies}) == 1


async def test_state_refuses_by_status(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """STATE: the execution's status does not allow the command, which is told; nothing is kept."""
    await redis.hset(keys.execution("x"), "status", "COMPLETED")
    assert await scripts.accept(keys, "x", "cancel", b"c", ["PENDING", "RUNNING"]) == ("STATE", b"COMPLETED")
    assert await scripts.accept(keys, "x", "create", b"c", NONE) == ("STATE", b"COMPLETED")
    assert not await redis.exists(keys.accepted)


async def test_state_of_an_unknown_execution_is_empty(scripts: Scripts, keys: PartitionKeys):
    """STATE with no status: there is no such execution."""
    assert await scripts.accept(keys, "x", "cancel", b"c", ["PENDING", "RUNNING"]) == ("STATE", b"")


async def test_a_folded_execution_takes_commands(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """A status that allows the command accepts it."""
    await redis.hset(keys.execution("x"), "status", "RUNNING")
    assert (await scripts.accept(keys, "x", "cancel", b"c", ["PENDING", "RUNNING"])).kind == "OK"


async def test_an_accepted_execution_counts_as_pending(scripts: Scripts, keys: PartitionKeys):
    """An execution may be triggered before its creation was folded."""
    await scripts.accept(keys, "x", "create", b"c", NONE)
    assert (await scripts.accept(keys, "x", "trigger", b"t", ["PENDING"])).kind == "OK"
    assert await scripts.accept(keys, "x", "retry", b"r", ["FAILED"]) == ("STATE", b"PENDING")


async def test_a_task_partition_has_one_lessee(scripts: Scripts, namespace: str):
    """A worker takes a free task partition, renews it, and hands it on with its offset."""
    key = InstallationKeys(namespace).task_lease("default", 0)
    assert await scripts.task_lease(key, "w1", LONG) == 0
    assert await scripts.task_lease(key, "w2", LONG) is None
    assert await scripts.task_commit(key, "w1", 5, LONG)
    assert await scripts.task_lease(key, "w1", LONG) == 5
    assert await scripts.task_release(key, "w1")
    assert await scripts.task_lease(key, "w2", LONG) == 5


async def test_a_task_offset_never_goes_back(scripts: Scripts, namespace: str):
    """A late commit changes nothing: a task offset is evidence that everything below was claimed."""
    key = InstallationKeys(namespace).task_lease("default", 0)
    await scripts.task_lease(key, "w1", LONG)
    await scripts.task_commit(key, "w1", 5, LONG)
    assert await scripts.task_commit(key, "w1", 3, LONG)
    assert await scripts.task_lease(key, "w1", LONG) == 5


async def test_only_the_lessee_commits_and_releases(scripts: Scripts, namespace: str, redis: Redis):
    """A worker that lost its task partition moves nothing."""
    key = InstallationKeys(namespace).task_lease("default", 0)
    await scripts.task_lease(key, "w1", LONG)
    assert not await scripts.task_commit(key, "w2", 5, LONG)
    assert not await scripts.task_release(key, "w2")
    await redis.hset(key, "lease", "1")
    assert await scripts.task_lease(key, "w2", LONG) == 0


async def test_task_offsets_belong_to_one_log(scripts: Scripts, namespace: str):
    """Under another incarnation of the log a task partition is read from its beginning."""
    key = InstallationKeys(namespace).task_lease("default", 0)
    await scripts.task_lease(key, "w1", LONG)
    await scripts.task_commit(key, "w1", 5, LONG)
    assert await scripts.task_lease(key, "w1", LONG, incarnation="log-1") == 5
    assert await scripts.task_lease(key, "w1", LONG, incarnation="log-2") == 0
    assert await scripts.task_lease(key, "w1", LONG) == 0


async def test_the_first_installation_wins(scripts: Scripts, namespace: str):
    """Partition counts are fixed by the first service that starts; later ones learn them."""
    keys = InstallationKeys(namespace)
    assert await scripts.install(keys, 64, 32) == Installation(64, 32, "")
    assert await scripts.install(keys, 8, 4, incarnation="log-1") == Installation(64, 32, "log-1")
    assert await scripts.install(keys, 8, 4) == Installation(64, 32, "log-1")


async def test_an_installation_of_a_newer_release_is_left_alone(scripts: Scripts, namespace: str, redis: Redis):
    """A process that does not know an installation's version names both versions and changes nothing."""
    keys = InstallationKeys(namespace)
    await scripts.install(keys, 64, 32, incarnation="log-1")
    await redis.hset(keys.installation, "version", "2")
    with pytest.raises(SetupError, match=r"has version 2, and this release knows versions up to 1: upgrade"):
        await scripts.install(keys, 64, 32, incarnation="log-2")
    assert await redis.hget(keys.installation, "incarnation") == b"log-1"
