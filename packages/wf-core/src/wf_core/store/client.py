"""The connection to Redis: nothing hangs, retries are bounded, and a server that would lose data is refused."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 - Redis' own, which is none of the built-in one
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004 - Redis' own, which is none of the built-in one
    TryAgainError,
)

from wf_core.errors import SetupError, UnavailableError
from wf_core.settings import Settings

log = structlog.get_logger(__name__)

redis_errors: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    OSError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
"""What redis-py raises when Redis is away or cannot write: try again later."""

ANSWER_SECONDS = 5.0
"""Longest wait for a reply. A blocking command must ask for less."""
_CONNECT_SECONDS = 2.0
_RETRIES = 2
_CONNECTIONS = 64
_OLDEST = (6, 2)


class _Prompt:
    """Sends without `asyncio.wait_for`, by which redis-py loses cancels on Python 3.11 (CPython issue 86296).

    A task that is cancelled while it sends would go on as if nothing had been said. It also saves a task a command.
    """

    async def send_packed_command(self: Any, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command([command] if isinstance(command, bytes) else command)
        except BaseException as error:
            await self.disconnect(nowait=True)  # half a command may have left
            if isinstance(error, OSError):  # the built-in TimeoutError is one
                raise ConnectionError(f"sending to Redis failed: {error or 'no answer in time'}") from error
            raise


class _PromptConnection(_Prompt, Connection):
    """TCP."""


class _PromptSocket(_Prompt, UnixDomainSocketConnection):
    """A Unix socket."""


class _PromptTls(_Prompt, SSLConnection):
    """TCP with TLS."""


_PROMPT: dict[type, type] = {
    Connection: _PromptConnection,
    UnixDomainSocketConnection: _PromptSocket,
    SSLConnection: _PromptTls,
}


def connect(settings: Settings) -> Redis:
    """A client that connects on first use. Replies are bytes; every script is idempotent, so it may retry."""
    options: dict[str, Any] = {
        "decode_responses": False,
        "protocol": 2,  # one shape of replies on every server version
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "health_check_interval": 15,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), _RETRIES),
        "max_connections": _CONNECTIONS,
        "timeout": ANSWER_SECONDS,  # of waiting for a free connection
    }
    if settings.redis_url is not None:
        return _client(BlockingConnectionPool.from_url(settings.redis_url.get_secret_value(), **options))
    if settings.redis_password is not None:
        options["password"] = settings.redis_password.get_secret_value()
    if settings.redis_socket is not None:
        options |= {"connection_class": UnixDomainSocketConnection, "path": settings.redis_socket}
    else:
        options |= {"host": settings.redis_host, "port": settings.redis_port, "socket_keepalive": True}
    return _client(BlockingConnectionPool(db=settings.redis_db, **options))


def _client(pool: BlockingConnectionPool) -> Redis:
    pool.connection_class = _PROMPT[pool.connection_class]
    return Redis.from_pool(pool)


def describe(settings: Settings) -> str:
    """Where Redis is, without its password, for messages."""
    if settings.redis_url is not None:
        scheme, _, rest = settings.redis_url.get_secret_value().partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"
    return settings.redis_socket or f"{settings.redis_host}:{settings.redis_port}"


async def wait_for_redis(redis: Redis, settings: Settings) -> None:
    """Returns when Redis answers.

    Raises UnavailableError after `connect_seconds` without an answer, and SetupError at once when it refuses us.
    """
    deadline = time.monotonic() + settings.connect_seconds
    pause = 0.1
    while True:
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                await cast("Any", redis.ping())
        except (AuthenticationError, AuthorizationError) as error:  # redis-py calls these connection errors
            raise SetupError(f"Redis at {describe(settings)} refuses us: {error}") from error
        except redis_errors as error:
            reason, words = error, str(error) or type(error).__name__
        except ResponseError as error:
            raise SetupError(f"Redis at {describe(settings)} refuses us: {error}") from error
        else:
            return
        left = deadline - time.monotonic()
        if left <= pause:
            raise UnavailableError(
                f"Redis at {describe(settings)} did not answer within {settings.connect_seconds:g} s ({words}); "
                "start it, or set APP_REDIS_HOST and APP_REDIS_PORT"
            ) from reason
        log.warning("redis is away", redis=describe(settings), error=words, giving_up_in=f"{left:.0f} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, 2.0)


async def check_redis(redis: Redis, *, allow_volatile: bool = False) -> list[str]:
    """Warnings about a server that will do. Raises SetupError, naming the remedy, for one that would lose data.

    `allow_volatile` is `Settings.redis_allow_volatile`.
    """
    info: dict[str, Any] = await cast("Any", redis.info())
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise SetupError(f"Redis {version} is too old: 6.2 or newer is needed")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise SetupError(
            f"Redis may evict keys (maxmemory-policy {policy}), which would lose workflow state; "
            "set `maxmemory-policy noeviction`"
        )
    if info.get("aof_enabled"):
        return []
    sentence = (
        "Redis keeps no append-only file (appendonly no), so a restart loses what happened since its last snapshot"
    )
    if not allow_volatile:
        raise SetupError(f"{sentence}; set `appendonly yes`, or APP_REDIS_ALLOW_VOLATILE=true for data you may lose")
    return [sentence]
