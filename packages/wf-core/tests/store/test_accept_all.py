"""ACCEPT_ALL: creations of one request, all or none."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Created, Creation, Scripts


def creations(namespace: str, count: int, command: bytes = b"c") -> list[Creation]:
    """Executions `x0`, `x1` … in turn in two partitions."""
    return [Creation(PartitionKeys.of(namespace, n % 2), f"x{n}", b"%b%d" % (command, n)) for n in range(count)]


async def stored(redis: Redis, namespace: str) -> dict[bytes, bytes]:
    """The commands that wait in both partitions."""
    found: dict[bytes, bytes] = {}
    for partition in (0, 1):
        found |= await redis.hgetall(PartitionKeys.of(namespace, partition).accepted)
    return found


async def test_all_are_kept(scripts: Scripts, namespace: str, redis: Redis):
    """Nothing is known: each command waits for its fold, byte for byte, whatever its partition."""
    wanted = creations(namespace, 1000, bytes(range(256)))
    assert await scripts.accept_all(wanted) == {}
    assert await stored(redis, namespace) == {f"{c.execution_id}/create".encode(): c.command for c in wanted}


async def test_one_that_waits_keeps_all_out(scripts: Scripts, namespace: str, redis: Redis):
    """One that waits already is told with its command, and no other is kept."""
    await scripts.accept_all(creations(namespace, 3)[2:])
    assert await scripts.accept_all(creations(namespace, 5, b"other")) == {2: Created(b"c2", "")}
    assert await stored(redis, namespace) == {b"x2/create": b"c2"}


async def test_one_that_was_folded_keeps_all_out(scripts: Scripts, namespace: str, redis: Redis):
    """One that was folded is told with the hash of its request, and no other is kept; a child has none."""
    first, second, third = creations(namespace, 3)
    await redis.hset(second.keys.execution("x1"), mapping={"status": "RUNNING", "request": "r"})
    await redis.hset(third.keys.execution("x2"), mapping={"status": "RUNNING"})
    assert await scripts.accept_all([first, second, third]) == {1: Created(b"", "r"), 2: Created(b"", "")}
    assert await stored(redis, namespace) == {}


async def test_a_document_that_is_not_there_keeps_all_out(scripts: Scripts, namespace: str, redis: Redis):
    """None: a document that the creations rely on is not there whole. With all of its parts they are kept."""
    wanted, document = creations(namespace, 3), PartitionKeys.of(namespace, 0).document("hash")
    assert await scripts.accept_all(wanted, [document]) is None
    await redis.hset(document, mapping={"parts": "2", "0": b"half"})
    assert await scripts.accept_all(wanted, [document]) is None
    assert await stored(redis, namespace) == {}
    await redis.hset(document, "1", b"half")
    assert await scripts.accept_all(wanted, [document]) == {}
    assert len(await stored(redis, namespace)) == 3


async def test_one_batch_five_times_in_parallel_is_kept_once(scripts: Scripts, namespace: str, redis: Redis):
    """Of batches that race exactly one is kept, whole, and the others learn of all of it."""
    replies = await asyncio.gather(
        *(scripts.accept_all(creations(namespace, 20, f"from {n}: ".encode())) for n in range(5))
    )
    assert sorted(len(reply) for reply in replies) == [0, 20, 20, 20, 20]
    assert len({command.partition(b":")[0] for command in (await stored(redis, namespace)).values()}) == 1
