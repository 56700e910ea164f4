"""Redis' time on a local clock."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from wf_core.store.clock import Clock


class Hands:
    """A clock that a test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def redis_ms(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return seconds * 1000 + micros // 1000


async def test_a_wrong_local_clock_is_corrected(redis: Redis):
    """A host whose clock is hours off stamps Redis' time."""
    clock = Clock(wall=lambda: 5.0)
    before = await redis_ms(redis)
    await clock.sync(redis)
    assert before - 1 <= clock.now_ms() <= await redis_ms(redis) + 1000


def test_before_the_first_sync_it_tells_local_time():
    """A service stamps sensible times from its first moment."""
    assert Clock(Hands(7.0), Hands(1000.0)).now_ms() == 1_000_000


async def test_it_runs_between_syncs(redis: Redis):
    """Time passes with the monotonic clock, so a corrected wall clock does not move it."""
    hands = Hands(100.0)
    clock = Clock(hands)
    await clock.sync(redis)
    began = clock.now_ms()
    hands.now += 2.5
    assert clock.now_ms() - began == 2500


@pytest.mark.parametrize("rewound", [0.0, 10.0])
async def test_an_answer_that_took_too_long_changes_nothing(rewound: float):
    """A process that was stopped between question and answer does not know which of the two the time belongs to."""
    hands = Hands(100.0)

    class Stopped:
        pause = 0.0

        async def time(self) -> tuple[int, int]:
            hands.now += self.pause
            return round(hands.now - (rewound if self.pause else 0.0)), 0

    redis = Stopped()
    clock = Clock(hands, Hands(0.0))
    await clock.sync(redis)
    assert clock.now_ms() == 100_000
    redis.pause = 10.0
    await clock.sync(redis)
    assert clock.now_ms() == 110_000
