"""The servers that operators' commands work on: those of the `APP_*` variables, or of the `wf dev` of this folder."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wf_core import logging as wf_logging
from wf_core.broker.open import open_log
from wf_core.cli.address import STATE
from wf_core.dev.state import running
from wf_core.errors import UnavailableError
from wf_core.settings import Settings
from wf_core.store.client import connect, describe, redis_errors, wait_for_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from wf_core.broker.protocol import Log

_CONNECT_SECONDS = 3.0


def settings_here(**changes: Any) -> Settings:
    """What `APP_*` says, or the `wf dev` that runs in this folder; quick to give up. `changes` are settings, too."""
    fast: dict[str, Any] = {"connect_seconds": _CONNECT_SECONDS, "log_level": "CRITICAL"}
    here = running(Path(STATE))
    if here is not None and here.socket is not None:
        fast |= {"redis_socket": here.socket, "redis_url": None, "redis_db": 0, "redis_password": None}
        fast |= {"broker": here.broker, "redis_allow_volatile": True}
    return Settings(**{**fast, **changes})


@asynccontextmanager
async def servers(settings: Settings, command: str) -> AsyncIterator[tuple[Redis, Log]]:
    """Redis and the log, connected, for one command. Raises UnavailableError when one of them does not answer.

    Also for what Redis does not answer inside.
    """
    wf_logging.configure(settings, command)
    redis = connect(settings)
    try:
        await wait_for_redis(redis, settings)
        log = open_log(settings, redis)
        try:
            await log.start()
            yield redis, log
        finally:
            await log.close()
    except redis_errors as error:
        raise UnavailableError(f"Redis at {describe(settings)} does not answer any more: {error}") from error
    finally:
        await redis.aclose()
