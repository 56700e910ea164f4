"""Whether the API can take work: Redis and the log are really asked, each within a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from redis.asyncio import Redis

from wf_core.broker import topics
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.errors import UnavailableError
from wf_core.store.client import redis_errors

CHECK_SECONDS = 1.0
OK = "ok"
_AWAY: tuple[type[Exception], ...] = (UnavailableError, *redis_errors)


async def check_servers(redis: Redis, log: Log, namespace: str) -> dict[str, str]:
    """`ok`, or in a few words why not, of each server."""
    events = TopicPartition(topics.events(namespace), 0)
    names = ("redis", "log")
    states = await asyncio.gather(_check(redis.ping()), _check(log.end(events)))
    return dict(zip(names, states, strict=True))


async def _check(answer: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await answer
    except TimeoutError:
        return f"no answer in {CHECK_SECONDS:g} s"
    except _AWAY:
        return "does not answer"
    return OK
