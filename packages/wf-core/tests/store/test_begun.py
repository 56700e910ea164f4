"""BEAT and continuations: what a worker began by itself is undecided until the result that begins it was folded."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import BeatReply, Scripts

A, B, C = "x/a/1", "x/b/1", "x/c/1"


@pytest.fixture
async def head(scripts: Scripts, keys: PartitionKeys, owner):
    """A, claimed by w1, which went on with B and C."""
    await owner.dispatch(A)
    await scripts.claim(keys, "w1", [A], [False])
    return owner


async def take_over(redis: Redis, keys: PartitionKeys, token: str, worker: str = "w1") -> None:
    """What APPLY does when the fold takes over a begun node."""
    await redis.hset(keys.in_flight, token, "1")
    await redis.hset(keys.claims, token, f"{worker}|1")


async def test_undecided(scripts: Scripts, keys: PartitionKeys, head):
    """While the attempt before it is in flight a begun token is neither cancelled nor folded; so are those after it."""
    finished = [(A, 99, "log-1"), (B, 99, "log-1")]
    assert await scripts.beat(keys, "w1", [C], finished, begun=[(B, A), (C, B)]) == BeatReply([], [], [], [])
    assert await scripts.beat(keys, "w1", [C, B], finished[:1], begun=[(C, B), (B, A)]) == BeatReply([], [], [], [])


async def test_refused(scripts: Scripts, keys: PartitionKeys, head):
    """Once the attempt before it left the in-flight set without it, its turn never comes: it is cancelled."""
    await head.end(A)
    reply = await scripts.beat(keys, "w1", [C], [(A, 1, "log-1"), (B, 2, "log-1")], begun=[(B, A), (C, B)])
    assert reply == BeatReply([C], [A, B], [], [])


async def test_taken_over(scripts: Scripts, keys: PartitionKeys, redis: Redis, head):
    """One that is in flight and its worker's own is reported so, also when it ended; those after it are undecided."""
    await head.end(A)
    await take_over(redis, keys, B)
    begun = [(B, A), (C, B)]
    assert await scripts.beat(keys, "w1", [B, C], [(A, 1, "log-1")], begun=begun) == BeatReply([], [A], [], [B])
    reply = await scripts.beat(keys, "w1", [C], [(A, 1, "log-1"), (B, 99, "log-1")], begun=begun)
    assert reply == BeatReply([], [A], [], [B])


async def test_of_another(scripts: Scripts, keys: PartitionKeys, redis: Redis, head):
    """One that another worker holds, or that was condemned, is cancelled."""
    await take_over(redis, keys, B, "w2")
    await take_over(redis, keys, C)
    await scripts.beat(keys, "w1", [C], [], begun=[(C, B)])
    counter = (await redis.hget(keys.heartbeats, "w1")).decode()
    assert await scripts.condemn(keys, "owner", C, "w1", counter)
    assert await scripts.beat(keys, "w1", [B, C], [], begun=[(B, A), (C, B)]) == BeatReply([B, C], [], [], [])


async def test_a_result_that_was_passed_by_is_resent_though_begun(
    scripts: Scripts, keys: PartitionKeys, redis: Redis, owner
):
    """A begun token that is in flight is as any other: its result is appended again when the fold went past it."""
    await scripts.rebase(keys, "owner", "log-1", 5)
    await scripts.renew(keys, "owner", 60_000, 5, live=True)
    await take_over(redis, keys, B)
    assert await scripts.beat(keys, "w1", [], [(B, 1, "log-1")], begun=[(B, A)]) == BeatReply([], [], [B], [B])


async def test_nothing_is_decided_before_the_partition_is_live(scripts: Scripts, keys: PartitionKeys, head):
    """While the owner replays the log, a begun token is undecided as everything is."""
    await head.end(A)
    await head.take(live=False)
    reply = await scripts.beat(keys, "w1", [B], [(A, 1, "log-1")], begun=[(B, A)])
    assert reply == BeatReply([], [], [], [])


async def test_a_long_tail(scripts: Scripts, keys: PartitionKeys, head):
    """A whole tail that ran while its owner was slow is undecided at once, and decided at once."""
    tokens = [A, *(f"x/n{n}/1" for n in range(40))]
    begun = list(zip(tokens[1:], tokens, strict=False))[::-1]
    finished = [(token, n, "log-1") for n, token in enumerate(tokens)]
    assert await scripts.beat(keys, "w1", [], finished, begun=begun) == BeatReply([], [], [], [])
    await head.end(A)
    assert await scripts.beat(keys, "w1", [], finished, begun=begun) == BeatReply([], tokens, [], [])
