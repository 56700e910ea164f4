"""APPLY and TRIM: the fold's one write, and the outbox's way out."""

from __future__ import annotations

import random

import pytest
from redis.asyncio import Redis

from wf_core.store.keys import PartitionKeys
from wf_core.store.ops import MOST_ARGUMENTS, Op
from wf_core.store.scripts import Applied, Scripts

LONG = 60_000


@pytest.fixture(autouse=True)
async def leased(scripts: Scripts, keys: PartitionKeys) -> None:
    await scripts.lease(keys, "owner", LONG)


async def apply(scripts: Scripts, keys: PartitionKeys, previous: int, following: int, *ops: Op, **over: str) -> Applied:
    nonce, batch = over.get("nonce", "owner"), over.get("batch", f"b{following}")
    return await scripts.apply(keys, nonce, previous, following, batch, ops, seq=following, ts=following)


async def test_ok_writes_everything(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """OK: state, offset, dispatch counter and time are written together."""
    assert await apply(scripts, keys, 0, 3, ("HSET", keys.in_flight, "t", 1)) == "OK"
    assert await redis.hgetall(keys.in_flight) == {b"t": b"1"}
    assert await redis.hmget(keys.meta, "off", "bid", "seq", "ts") == [b"3", b"b3", b"3", b"3"]


async def test_dup_is_the_retry_of_a_batch_that_landed(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """DUP: the same batch again, after a lost reply, changes nothing and is success."""
    await apply(scripts, keys, 0, 3)
    assert await apply(scripts, keys, 0, 3, ("HSET", keys.in_flight, "t", 1)) == "DUP"
    assert not await redis.exists(keys.in_flight)


async def test_behind_is_another_offset(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """BEHIND: a batch that does not start at the stored offset, or another batch to the same offset, is refused."""
    await apply(scripts, keys, 0, 3)
    assert await apply(scripts, keys, 7, 9, ("HSET", keys.in_flight, "t", 1)) == "BEHIND"
    assert await apply(scripts, keys, 0, 3, ("HSET", keys.in_flight, "t", 1), batch="other") == "BEHIND"
    assert not await redis.exists(keys.in_flight)


async def test_fenced_is_another_owner(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """FENCED: whoever does not own the partition writes nothing, even at the right offset."""
    assert await apply(scripts, keys, 0, 1, ("HSET", keys.in_flight, "t", 1), nonce="z") == "FENCED"
    assert await redis.hget(keys.meta, "off") is None


async def test_an_unowned_partition_is_fenced(scripts: Scripts, keys: PartitionKeys):
    """After a roll-back to before the lease nobody owns the partition."""
    await scripts.release(keys, "owner")
    assert await apply(scripts, keys, 0, 1) == "FENCED"


async def test_any_bytes_survive(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """Values are bytes or text of any content: outputs, cells, messages."""
    values = [random.randbytes(n) for n in (0, 1, 31, 32, 255, 256, 65_535, 65_536, 300_000)]
    values += [bytes(range(256)), "grüße 🎉\0".encode()]
    ops: list[Op] = [("HSET", keys.messages, f"f{i}", value) for i, value in enumerate(values)]
    assert await apply(scripts, keys, 0, 1, *ops, ("SETRANGE", keys.nodes("x"), 20, bytes(range(10)))) == "OK"
    assert await redis.hmget(keys.messages, [f"f{i}" for i in range(len(values))]) == values
    assert await redis.get(keys.nodes("x")) == bytes(20) + bytes(range(10))


async def test_integers_of_any_size_survive(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """Integers travel as text, so none is rounded to a double."""
    numbers = [0, -1, 2**53 + 1, 2**63 - 1, 10**30]
    await apply(scripts, keys, 0, 1, ("HSET", keys.messages, *(part for n in numbers for part in (str(n), n))))
    assert await redis.hmget(keys.messages, [str(n) for n in numbers]) == [str(n).encode() for n in numbers]


async def test_operations_with_many_arguments_are_split(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """A fan-out of thousands is one batch: no operation exceeds what Lua can unpack."""
    tokens = [f"x/n{i}/1" for i in range(9001)]
    await apply(
        scripts,
        keys,
        0,
        1,
        ("HSET", keys.in_flight, *(part for name in tokens for part in (name, 1))),
        ("ZADD", keys.outbox("q"), *(part for i, name in enumerate(tokens) for part in (i, name))),
        ("SADD", keys.queues, *tokens),
    )
    assert await redis.hlen(keys.in_flight) == await redis.zcard(keys.outbox("q")) == len(tokens)
    gone = [("HDEL", keys.in_flight, *tokens), ("ZREM", keys.outbox("q"), *tokens), ("SREM", keys.queues, *tokens)]
    await apply(scripts, keys, 1, 2, *gone)
    assert not await redis.exists(keys.in_flight, keys.outbox("q"), keys.queues)


async def test_many_operations_are_one_batch(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """A batch may touch thousands of keys."""
    ops: list[Op] = [("SET", keys.nodes(f"x{i}"), str(i)) for i in range(MOST_ARGUMENTS * 20)]
    assert await apply(scripts, keys, 0, 1, *ops, ("DEL", keys.nodes("x0"))) == "OK"
    assert await redis.exists(keys.nodes("x1"), keys.nodes(f"x{len(ops) - 1}"), keys.nodes("x0")) == 2


async def test_history_grows_even_when_offsets_repeat(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """An entry whose id is not above the last one, after the log lost its tail, comes after it, and says so."""
    stream = keys.history("x")
    await apply(scripts, keys, 0, 1, ("XADD", stream, "9-3", "lines", "a"))
    late: list[Op] = [("XADD", stream, "4-2", "lines", "b"), ("XADD", stream, "17592186044416-1", "lines", "c")]
    await apply(scripts, keys, 1, 2, *late)
    assert await redis.xrange(stream) == [
        (b"9-3", {b"lines": b"a"}),
        (b"9-1003", {b"shifted": b"1", b"lines": b"b"}),
        (b"17592186044416-1", {b"lines": b"c"}),
    ]


async def test_a_script_that_redis_forgot_is_sent_again(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """SCRIPT FLUSH and a restart of Redis go unnoticed."""
    await apply(scripts, keys, 0, 1)
    await redis.script_flush()
    assert await apply(scripts, keys, 1, 2) == "OK"


async def test_trim_notes_where_a_token_was_sent(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """TRIM takes what was sent out of each queue's outbox and keeps the place."""
    await owner.dispatch("x/a/1", queue="q1")
    await owner.dispatch("x/b/1", queue="q2")
    sent = [("x/a/1", "q1", "wf.tasks.q1-0:7:log-1"), ("x/b/1", "q2", "wf.tasks.q2-1:9:log-1")]
    assert await scripts.trim(keys, "owner", sent)
    assert await redis.hgetall(keys.sent) == {token.encode(): where.encode() for token, _, where in sent}
    assert not await redis.exists(keys.outbox("q1"), keys.outbox("q2"))


async def test_trim_forgets_what_is_not_in_flight(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """A token that ended while its message was on the way leaves the outbox and no trace."""
    await apply(scripts, keys, 0, 1, ("ZADD", keys.outbox("q"), 0, "x/a/1"))
    assert await scripts.trim(keys, "owner", [("x/a/1", "q", "t-0:1:i")])
    assert not await redis.exists(keys.outbox("q"), keys.sent)


async def test_trim_by_another_is_fenced(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """A former owner takes nothing out of the outbox."""
    await apply(scripts, keys, 0, 1, ("ZADD", keys.outbox("q"), 0, "x/a/1"))
    assert not await scripts.trim(keys, "z", [("x/a/1", "q", "t-0:1:i")])
    assert await redis.zcard(keys.outbox("q")) == 1
