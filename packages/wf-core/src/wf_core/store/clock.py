"""Redis' time, as told by a local clock: what records are stamped with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio import Redis

LONGEST_SECONDS = 1.0
"""A slower answer says too little: the process, or Redis, was stopped meanwhile, and nobody knows at which end."""


class Clock:
    """Unix milliseconds of Redis' clock. Runs on a monotonic clock, so a corrected wall clock does not move it.

    Until the first `sync` it tells this host's time.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._synced = False

    def now_ms(self) -> int:
        """Unix ms, as Redis sees it."""
        return round((self._monotonic() + self._offset) * 1000)

    async def sync(self, redis: Redis) -> None:
        """Measures the offset, off by at most half the round trip. Services call it with each heartbeat.

        Once there is a measurement, a slow one changes nothing: the monotonic clock is better than that.
        """
        before = self._monotonic()
        seconds, micros = cast("tuple[int, int]", await cast("Any", redis.time()))
        answered = self._monotonic()
        if self._synced and answered - before > LONGEST_SECONDS:
            return
        self._offset = seconds + micros / 1e6 - (before + answered) / 2
        self._synced = True
