"""CLAIM, BEAT, CONDEMN and WITHDRAW: who runs an attempt."""

from __future__ import annotations

import time

import pytest
from redis.asyncio import Redis

from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import BeatReply, Scripts

A, B, C = "x/a/1", "x/b/1", "x/c/1"


async def holder(redis: Redis, keys: PartitionKeys, token: str) -> str | None:
    value = await redis.hget(keys.claims, token)
    return value.decode().rpartition("|")[0] if value else None


async def counter(redis: Redis, keys: PartitionKeys, worker: str) -> str | None:
    value = await redis.hget(keys.heartbeats, worker)
    return value.decode() if value else None


async def send(scripts: Scripts, keys: PartitionKeys, *tokens: str, where: str = "t-0:1:log-1") -> None:
    await scripts.trim(keys, "owner", [(token, "default", where) for token in tokens])


async def test_ok_claims_a_token_in_flight(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """OK: the claim names the worker and Redis' time, and the worker's heartbeat counts on."""
    await owner.dispatch(A, B)
    assert await scripts.claim(keys, "w1", [A, B], [False, False]) == ["OK", "OK"]
    worker, _, since = (await redis.hget(keys.claims, A)).decode().rpartition("|")
    assert worker == "w1"
    assert abs(int(since) - time.time() * 1000) < 60_000
    assert await counter(redis, keys, "w1") == "1"


async def test_mine_is_a_claim_whose_reply_was_lost(scripts: Scripts, keys: PartitionKeys, owner):
    """MINE: the worker claimed before and does not know it."""
    await owner.dispatch(A)
    await scripts.claim(keys, "w1", [A], [False])
    assert await scripts.claim(keys, "w1", [A], [False]) == ["MINE"]


async def test_dup_is_a_copy_that_this_worker_took(scripts: Scripts, keys: PartitionKeys, owner):
    """DUP: the worker knows that it took the token, so this message is a copy; twice in one call too."""
    await owner.dispatch(A)
    assert await scripts.claim(keys, "w1", [A, A], [False, False]) == ["OK", "DUP"]
    assert await scripts.claim(keys, "w1", [A], [True]) == ["DUP"]


async def test_dup_is_a_token_that_another_holds(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """DUP: another worker runs it; asking gives no heartbeat."""
    await owner.dispatch(A)
    await scripts.claim(keys, "w1", [A], [False])
    assert await scripts.claim(keys, "w2", [A], [False]) == ["DUP"]
    assert await counter(redis, keys, "w2") is None


async def test_dup_is_a_condemned_token(scripts: Scripts, keys: PartitionKeys, owner):
    """DUP: a condemned attempt can never be claimed again."""
    await owner.dispatch(A)
    await scripts.withdraw(keys, "owner", [A])
    assert await scripts.claim(keys, "w1", [A], [False]) == ["DUP"]


async def test_stale_is_not_in_flight(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """STALE: the attempt has ended or never was; nothing is written."""
    assert await scripts.claim(keys, "w1", [A], [False]) == ["STALE"]
    assert not await redis.exists(keys.claims, keys.heartbeats)


async def test_later_is_a_partition_that_is_not_live(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """LATER: while the owner replays the log, the set of tokens in flight is older than the world."""
    await owner.dispatch(A)
    await owner.take(live=False)
    assert await scripts.claim(keys, "w1", [A, B], [False, False]) == ["LATER", "LATER"]
    assert not await redis.exists(keys.claims)


async def test_later_is_a_partition_whose_owner_has_not_been_there_since_redis_started(
    scripts: Scripts, keys: PartitionKeys, redis: Redis, owner
):
    """LATER: another run of the server may have forgotten claims, until the owner compared its offset with what is
    stored. An owner of an older release, which notes no run, is believed.
    """
    await owner.dispatch(A)
    await redis.hset(keys.meta, "run", "owner|0123abc")
    assert await scripts.claim(keys, "w1", [A], [False]) == ["LATER"]
    assert (await scripts.beat(keys, "w1", ["x/gone/1"], [])).cancel == []
    await redis.hset(keys.meta, "own", "")
    assert await scripts.claim(keys, "w1", [A], [False]) == ["LATER"]
    await redis.hset(keys.meta, mapping={"own": "older", "run": "owner|0123abc"})
    assert await scripts.claim(keys, "w1", [A], [False]) == ["OK"]


async def test_stale_is_a_message_of_another_dispatch(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """STALE: the message was queued at another time than the token in flight: its execution had a life before."""
    await owner.dispatch(A)
    queued = int(await redis.hget(keys.in_flight, A))
    assert await scripts.claim(keys, "w1", [A], [False], [queued - 1]) == ["STALE"]
    assert await scripts.claim(keys, "w1", [A], [False], [queued]) == ["OK"]


async def test_any_name_of_a_node_can_be_claimed(scripts: Scripts, keys: PartitionKeys, owner):
    """Ids of nodes are any text."""
    tokens = [f"x/{node}/1" for node in ("größe 🎉", "a|b", "%d", "n" * 200)]
    await owner.dispatch(*tokens)
    assert await scripts.claim(keys, "w|1", tokens, [False] * 4) == ["OK"] * 4
    assert await scripts.claim(keys, "w|1", tokens, [False] * 4) == ["MINE"] * 4


async def test_no_tokens_no_answers(scripts: Scripts, keys: PartitionKeys, owner):
    """An empty batch is allowed."""
    assert await scripts.claim(keys, "w1", [], []) == []
    assert await scripts.beat(keys, "w1", [], []) == BeatReply([], [], [], [])
    assert await scripts.withdraw(keys, "owner", []) == []


async def test_a_beat_counts(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """Heartbeats are counters: the owner watches them on its own clock."""
    for _ in range(3):
        await scripts.beat(keys, "w1", [], [])
    assert await counter(redis, keys, "w1") == "3"


async def test_a_beat_cancels_what_is_not_in_flight(scripts: Scripts, keys: PartitionKeys, owner):
    """A worker stops an attempt whose token left the in-flight set."""
    await owner.dispatch(A, B)
    await scripts.claim(keys, "w1", [A, B], [False, False])
    await owner.end(A)
    assert await scripts.beat(keys, "w1", [A, B], []) == BeatReply([A], [], [], [])


async def test_a_beat_cancels_what_another_holds(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """A worker stops an attempt that another claimed, or that was condemned."""
    await owner.dispatch(A, B)
    await scripts.claim(keys, "w2", [A], [False])
    await scripts.withdraw(keys, "owner", [B])
    assert await scripts.beat(keys, "w1", [A, B], []) == BeatReply([A, B], [], [], [])
    assert await holder(redis, keys, A) == "w2"


async def test_a_beat_asserts_a_forgotten_claim(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """A claim that a roll-back of Redis forgot is written again, for finished attempts too."""
    await owner.dispatch(A, B)
    assert await scripts.beat(keys, "w1", [A], [(B, 99, "log-1")]) == BeatReply([], [], [], [])
    assert await holder(redis, keys, A) == await holder(redis, keys, B) == "w1"


async def test_a_beat_judges_nothing_before_the_partition_is_live(scripts: Scripts, keys: PartitionKeys, owner):
    """While the owner replays the log nothing is reported gone."""
    await owner.take(live=False)
    assert await scripts.beat(keys, "w1", [A], [(B, 1, "log-1")]) == BeatReply([], [], [], [])


async def test_a_folded_result_may_be_forgotten(scripts: Scripts, keys: PartitionKeys, owner):
    """A worker keeps a result until its token left the in-flight set."""
    await owner.dispatch(A, B)
    await owner.end(A)
    assert await scripts.beat(keys, "w1", [], [(A, 1, "log-1"), (B, 99, "log-1")]) == BeatReply([], [A], [], [])


@pytest.mark.parametrize(
    ("offset", "incarnation", "again"), [(0, "log-1", True), (1, "log-1", False), (50, "log-0", True)]
)
async def test_a_result_that_the_fold_passed_by_is_sent_again(
    scripts: Scripts, keys: PartitionKeys, owner, offset: int, incarnation: str, again: bool
):
    """A result whose position was folded, or lies in another log, while its token is in flight, was lost."""
    await scripts.rebase(keys, "owner", "log-1", 0)
    await scripts.renew(keys, "owner", 60_000, 0, live=True)
    await owner.dispatch(A)
    reply = await scripts.beat(keys, "w1", [], [(A, offset, incarnation)])
    assert reply == BeatReply([], [], [A] if again else [], [])


async def test_the_result_of_a_condemned_attempt_is_kept(scripts: Scripts, keys: PartitionKeys, owner):
    """Until the fold decided between the result and the loss, the worker neither forgets nor repeats it."""
    await owner.dispatch(A)
    await scripts.withdraw(keys, "owner", [A])
    assert await scripts.beat(keys, "w1", [], [(A, 99, "log-1")]) == BeatReply([], [], [], [])


async def test_a_claim_that_its_holder_does_not_know_is_dropped(
    scripts: Scripts, keys: PartitionKeys, redis: Redis, owner
):
    """The reply to CLAIM never came and the message went elsewhere: after a while the token is unclaimed again."""
    await owner.dispatch(A, B, C)
    await scripts.claim(keys, "w1", [A, B], [False, False])
    await scripts.claim(keys, "w2", [C], [False])
    await scripts.beat(keys, "w1", [B], [])
    assert await holder(redis, keys, A) == "w1"
    await scripts.beat(keys, "w1", [B], [], forget_ms=-1)
    assert await redis.hkeys(keys.claims) == [B.encode(), C.encode()]


async def test_a_silent_holder_is_condemned(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """A claim is taken away when holder and counter are those that were judged."""
    await owner.dispatch(A)
    await scripts.claim(keys, "w1", [A], [False])
    assert await scripts.condemn(keys, "owner", A, "w1", "1")
    assert await holder(redis, keys, A) == "condemned"


async def test_a_holder_that_beat_meanwhile_is_spared(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """One heartbeat between judgement and sentence saves the attempt."""
    await owner.dispatch(A)
    await scripts.claim(keys, "w1", [A], [False])
    await scripts.beat(keys, "w1", [A], [])
    assert not await scripts.condemn(keys, "owner", A, "w1", "1")
    assert await holder(redis, keys, A) == "w1"


async def test_another_holder_is_spared(scripts: Scripts, keys: PartitionKeys, owner):
    """The judgement was about somebody else, or about nobody."""
    await owner.dispatch(A)
    await send(scripts, keys, A)
    await scripts.claim(keys, "w2", [A], [False])
    assert not await scripts.condemn(keys, "owner", A, "w1", "1")
    assert not await scripts.condemn(keys, "owner", A, None, None)


async def test_a_holder_whose_counter_is_gone_is_condemned(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """A worker that was pruned has no counter."""
    await owner.dispatch(A)
    await scripts.claim(keys, "w1", [A], [False])
    await redis.hdel(keys.heartbeats, "w1")
    assert not await scripts.condemn(keys, "owner", A, "w1", "1")
    assert await scripts.condemn(keys, "owner", A, "w1", None)


async def test_condemning_again_is_condemned(scripts: Scripts, keys: PartitionKeys, owner):
    """A token that was condemned stays so: its `lost` record may be missing."""
    await owner.dispatch(A)
    await scripts.claim(keys, "w1", [A], [False])
    await scripts.condemn(keys, "owner", A, "w1", "1")
    assert await scripts.condemn(keys, "owner", A, "w1", "1")
    assert await scripts.condemn(keys, "owner", A, "condemned", None)


async def test_what_is_not_in_flight_cannot_be_condemned(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """The attempt ended meanwhile."""
    assert not await scripts.condemn(keys, "owner", A, None, None)
    assert not await redis.exists(keys.claims)


async def test_condemning_by_another_is_fenced(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """Only the owner judges."""
    await owner.dispatch(A)
    await send(scripts, keys, A)
    assert not await scripts.condemn(keys, "z", A, None, None)
    assert await scripts.withdraw(keys, "z", [A]) == []
    assert not await redis.exists(keys.claims)


async def test_an_orphan_is_condemned(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """In flight, unclaimed, in no outbox and still where it was sent."""
    await owner.dispatch(A, B)
    await send(scripts, keys, A, B)
    assert await scripts.condemn(keys, "owner", A, None, None, where="t-0:1:log-1")
    assert await scripts.condemn(keys, "owner", B, None, None)
    assert await holder(redis, keys, A) == await holder(redis, keys, B) == "condemned"


async def test_a_token_that_was_sent_again_is_no_orphan(scripts: Scripts, keys: PartitionKeys, owner):
    """Another copy is on its way."""
    await owner.dispatch(A)
    await send(scripts, keys, A, where="t-0:8:log-1")
    assert not await scripts.condemn(keys, "owner", A, None, None, where="t-0:1:log-1")


async def test_a_token_in_an_outbox_is_no_orphan(scripts: Scripts, keys: PartitionKeys, owner):
    """It has not been sent yet, whatever its queue."""
    await owner.dispatch(A, queue="other")
    assert not await scripts.condemn(keys, "owner", A, None, None)


async def test_withdraw_condemns_what_nobody_claimed(scripts: Scripts, keys: PartitionKeys, redis: Redis, owner):
    """On halt: tokens in flight and unclaimed; what runs goes on."""
    await owner.dispatch(A, B)
    await scripts.claim(keys, "w1", [B], [False])
    assert await scripts.withdraw(keys, "owner", [A, B, C]) == [A]
    assert await holder(redis, keys, A) == "condemned"
    assert await holder(redis, keys, B) == "w1"


async def test_withdrawing_again_gives_the_same(scripts: Scripts, keys: PartitionKeys, owner):
    """The retry after a lost reply, or after a crash before `lost` was appended, names the token again."""
    await owner.dispatch(A)
    await scripts.withdraw(keys, "owner", [A])
    assert await scripts.withdraw(keys, "owner", [A]) == [A]


async def test_thousands_of_tokens_are_withdrawn(scripts: Scripts, keys: PartitionKeys, owner):
    """A wide fan-out halts in one step."""
    tokens = [f"x/n{i}/1" for i in range(10_000)]
    await owner.dispatch(*tokens)
    assert await scripts.withdraw(keys, "owner", tokens) == tokens
