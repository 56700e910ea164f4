"""BEAT and progress: how far a running task is stands beside its claim, and only as long as that does."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import PROGRESS_MS, Scripts

A, B, C = "x/a/1", "x/b/1", "x/c/1"


@pytest.fixture
async def claimed(scripts: Scripts, keys: PartitionKeys, owner):
    """Two tokens that w1 holds, one of w2."""
    await owner.dispatch(A, B, C)
    await scripts.claim(keys, "w1", [A, B], [False, False])
    await scripts.claim(keys, "w2", [C], [False])
    return owner


async def test_the_newest_progress_is_kept(scripts: Scripts, keys: PartitionKeys, redis: Redis, claimed):
    """What a beat says replaces what was said before; what it does not mention stays."""
    await scripts.beat(keys, "w1", [A, B], [], [(A, b"1"), (B, b'{"a":"|\xc3\xa4"}')])
    await scripts.beat(keys, "w1", [A, B], [], [(A, b"2")])
    await scripts.beat(keys, "w1", [A, B], [])
    assert await redis.hgetall(keys.progress) == {A.encode(): b"2", B.encode(): b'{"a":"|\xc3\xa4"}'}


async def test_progress_of_what_is_not_held_is_dropped(scripts: Scripts, keys: PartitionKeys, redis: Redis, claimed):
    """A worker that lost its claim, or whose attempt is over, adds nothing."""
    await claimed.end(B)
    await scripts.beat(keys, "w1", [A, B, C], [], [(B, b"1"), (C, b"1"), ("x/unknown/1", b"1")])
    assert not await redis.exists(keys.progress)


async def test_progress_goes_with_the_claim(scripts: Scripts, keys: PartitionKeys, redis: Redis, claimed):
    """Any beat in the partition takes out what has no claim any more; without beats it all expires."""
    await scripts.beat(keys, "w1", [A, B], [], [(A, b"1"), (B, b"1")])
    await claimed.end(A)
    await scripts.beat(keys, "w2", [C], [])
    assert await redis.hkeys(keys.progress) == [B.encode()]
    assert PROGRESS_MS - 5_000 < await redis.pttl(keys.progress) <= PROGRESS_MS


async def test_progress_is_no_part_of_the_claim(scripts: Scripts, keys: PartitionKeys, redis: Redis, claimed):
    """A claim says who and since when; a condemned one loses its progress when it goes."""
    before = await redis.hget(keys.claims, A)
    await scripts.beat(keys, "w1", [A], [], [(A, b'"x|1"')])
    assert await redis.hget(keys.claims, A) == before
    counter = (await redis.hget(keys.heartbeats, "w1")).decode()
    assert await scripts.condemn(keys, "owner", A, "w1", counter)
    assert (await scripts.beat(keys, "w1", [A], [], [(A, b"2")])).cancel == [A]
    assert await redis.hget(keys.progress, A) == b'"x|1"'
