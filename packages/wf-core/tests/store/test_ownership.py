"""LEASE, RENEW, RELEASE and REBASE: who owns a partition."""

from __future__ import annotations

import asyncio
import time

from redis.asyncio import Redis

from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Lease, Scripts

LONG = 60_000


async def expire(redis: Redis, key: str) -> None:
    await redis.hset(key, "lease", "1")


async def test_a_free_partition_is_leased_from_its_beginning(scripts: Scripts, keys: PartitionKeys):
    """A partition that nobody ever owned starts at offset 0, without an incarnation."""
    assert await scripts.lease(keys, "a", LONG) == Lease("a", 0, "", 0, 0, 0)


async def test_a_held_partition_is_not_leased(scripts: Scripts, keys: PartitionKeys):
    """While one owner's lease lasts another gets nothing."""
    await scripts.lease(keys, "a", LONG)
    assert await scripts.lease(keys, "b", LONG) is None


async def test_leasing_again_after_a_lost_reply_succeeds(scripts: Scripts, keys: PartitionKeys):
    """An owner may take what is its own: the retry of LEASE after a lost reply is success."""
    await scripts.lease(keys, "a", LONG)
    assert await scripts.lease(keys, "a", LONG) == Lease("a", 0, "", 0, 0, 0)


async def test_an_expired_lease_is_free(scripts: Scripts, keys: PartitionKeys):
    """Redis' clock alone decides that a lease has ended."""
    await scripts.lease(keys, "a", 1)
    deadline = time.monotonic() + 5
    while await scripts.lease(keys, "b", LONG) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    assert await scripts.renew(keys, "a", LONG, 0, live=True) is None


async def test_a_lease_tells_what_was_applied(scripts: Scripts, keys: PartitionKeys):
    """A new owner goes on from the stored offset, incarnation, dispatch counter and time."""
    await scripts.lease(keys, "a", LONG)
    await scripts.rebase(keys, "a", "log-1", 0)
    await scripts.apply(keys, "a", 0, 7, "b", [], seq=3, ts=1_800_000_000_123)
    await scripts.release(keys, "a")
    assert await scripts.lease(keys, "b", LONG) == Lease("b", 7, "log-1", 3, 1_800_000_000_123, 0)


async def test_a_lease_clears_live(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """After LEASE the partition is not live until its owner has caught up."""
    await scripts.lease(keys, "a", LONG)
    await scripts.renew(keys, "a", LONG, 0, live=True)
    assert await redis.hget(keys.meta, "live") == b"1"
    await scripts.lease(keys, "a", LONG)
    assert await redis.hget(keys.meta, "live") == b""


async def test_renew_returns_the_stored_offset(scripts: Scripts, keys: PartitionKeys):
    """RENEW tells the owner where Redis stands, so that it notices a roll-back."""
    await scripts.lease(keys, "a", LONG)
    await scripts.apply(keys, "a", 0, 5, "b", [], seq=0, ts=0)
    assert await scripts.renew(keys, "a", LONG, 5) == 5


async def test_renew_prolongs_the_lease(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """An owner that renews in time keeps its partition; live stays as it was said."""
    await scripts.lease(keys, "a", 1)
    await scripts.renew(keys, "a", LONG, 0, live=True)
    await scripts.renew(keys, "a", LONG, None)
    assert await scripts.lease(keys, "b", LONG) is None
    assert await redis.hget(keys.meta, "live") == b"1"


async def test_an_owner_that_redis_is_behind_makes_nothing_live(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """After a roll-back claims are older than the world: live is cleared, and set only at the stored offset."""
    await scripts.lease(keys, "a", LONG)
    await scripts.apply(keys, "a", 0, 5, "b", [], seq=0, ts=0)
    assert await scripts.renew(keys, "a", LONG, 7, live=True) == 5
    assert await redis.hget(keys.meta, "live") == b""
    await scripts.renew(keys, "a", LONG, 5, live=True)
    assert await redis.hget(keys.meta, "live") == b"1"
    await scripts.renew(keys, "a", LONG, 7, live=False)
    assert await redis.hget(keys.meta, "live") == b""


async def test_a_lease_tells_the_record_before_its_offset(scripts: Scripts, keys: PartitionKeys):
    """The digest that the last APPLY noted; housekeeping that moves no offset carries it along."""
    await scripts.lease(keys, "a", LONG)
    await scripts.apply(keys, "a", 0, 5, "b1", [], seq=0, ts=0, last="d5")
    await scripts.apply(keys, "a", 5, 5, "b2", [], seq=0, ts=0, last="d5")
    lease = await scripts.lease(keys, "a", LONG)
    assert lease is not None
    assert (lease.offset, lease.last) == (5, "d5")


async def test_a_digest_of_another_batch_is_none(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """An older release moves the offset and notes nothing, and REBASE begins anew: then there is nothing to compare."""
    await scripts.lease(keys, "a", LONG)
    await scripts.rebase(keys, "a", "log-1", 0)
    for change in ({"bid": "older"}, {"off": "4"}):
        await scripts.rebase(keys, "a", "log-1", 0)
        await scripts.apply(keys, "a", 0, 5, "b1", [], seq=0, ts=0, last="d5")
        await redis.hset(keys.meta, mapping=change)
        lease = await scripts.lease(keys, "a", LONG)
        assert lease is not None
        assert lease.last == ""
    await scripts.rebase(keys, "a", "log-1", 0)
    await scripts.apply(keys, "a", 0, 5, "b1", [], seq=0, ts=0, last="d5")
    await scripts.rebase(keys, "a", "log-1", 5)
    lease = await scripts.lease(keys, "a", LONG)
    assert lease is not None
    assert lease.last == ""


async def test_renew_by_another_is_fenced(scripts: Scripts, keys: PartitionKeys):
    """An owner that lost its partition learns it."""
    await scripts.lease(keys, "a", LONG)
    assert await scripts.renew(keys, "z", LONG, 0, live=True) is None


async def test_a_released_partition_is_free_at_once(scripts: Scripts, keys: PartitionKeys):
    """RELEASE hands over without waiting for the lease to end."""
    await scripts.lease(keys, "a", LONG)
    assert await scripts.release(keys, "a")
    assert await scripts.lease(keys, "b", LONG) is not None


async def test_only_the_owner_releases(scripts: Scripts, keys: PartitionKeys):
    """A late RELEASE of a former owner takes nothing away."""
    await scripts.lease(keys, "a", LONG)
    assert not await scripts.release(keys, "z")
    assert await scripts.lease(keys, "b", LONG) is None


async def test_rebase_moves_to_another_log(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """REBASE sets the incarnation and the offset, and the partition is not live any more."""
    await scripts.lease(keys, "a", LONG)
    await scripts.renew(keys, "a", LONG, 0, live=True)
    assert await scripts.rebase(keys, "a", "log-1", 4)
    assert await redis.hmget(keys.meta, "inc", "off", "live") == [b"log-1", b"4", b""]


async def test_the_generation_grows_when_offsets_repeat(scripts: Scripts, keys: PartitionKeys):
    """A new log and a log that lost its tail begin a generation; the first log and a retry of REBASE do not."""
    await scripts.lease(keys, "a", LONG)
    seen = []
    for incarnation, offset in (("log-1", 9), ("log-1", 9), ("log-1", 5), ("log-2", 0), ("log-2", 0)):
        await scripts.rebase(keys, "a", incarnation, offset)
        lease = await scripts.lease(keys, "a", LONG)
        assert lease is not None
        seen.append(lease.generation)
    assert seen == [0, 0, 1, 2, 2]


async def test_a_generation_begins_when_the_tail_was_replaced(scripts: Scripts, keys: PartitionKeys):
    """A log that lost its tail and went on ends at or above the offset: what it held before is not what was folded."""
    await scripts.lease(keys, "a", LONG)
    await scripts.rebase(keys, "a", "log-1", 0)
    seen = []
    for offset in (3, 3, 9):
        await scripts.apply(keys, "a", 0, 3, "b", [], seq=0, ts=0)
        await scripts.rebase(keys, "a", "log-1", offset)
        lease = await scripts.lease(keys, "a", LONG)
        assert lease is not None
        seen.append((lease.offset, lease.generation))
    assert seen == [(3, 1), (3, 1), (9, 2)]


async def test_rebase_by_another_is_fenced(scripts: Scripts, keys: PartitionKeys, redis: Redis):
    """A former owner moves nothing."""
    await scripts.lease(keys, "a", LONG)
    assert not await scripts.rebase(keys, "z", "log-9", 0)
    assert await redis.hget(keys.meta, "inc") is None
