"""The connection to Redis: nothing hangs, retries are bounded, and a server that would lose data is refused."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - Redis' own, which is none of the built-in one
    ExecAbortError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004 - Redis' own, which is none of the built-in one
    TryAgainError,
)

from wf_core.errors import SetupError, UnavailableError
from wf_core.settings import Settings
from wf_core.store.cluster import Address, ClusterClient
from wf_core.store.connections import MANAGED, PROMPT, MasterPool, NotNowError
from wf_core.store.shared import MasterClient, SharedClient

log = structlog.get_logger(__name__)

redis_errors: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    OSError,
    NotNowError,
    OutOfMemoryError,
    ReadOnlyError,
    ClusterDownError,
    TryAgainError,
    AskError,  # MOVED, too: a slot on its way to another node
    ExecAbortError,  # our transactions only read, so an abort means that Redis cannot serve now
)
"""What a call raises while Redis is away, fails over, or cannot write: try again later."""

ANSWER_SECONDS = 5.0
"""Longest wait for a reply. A blocking command must ask for less."""
_CONNECT_SECONDS = 2.0
_RETRIES = 2
_CONNECTIONS = 64
_OLDEST = (6, 2)


def connect(settings: Settings) -> Redis:
    """A client that connects on first use, whatever stands behind it: one server, Sentinel or a cluster.

    Replies are bytes; every script is idempotent, so it may retry. Raises SetupError for a URL that says nothing.
    """
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
        try:
            return _from_url(settings.redis_url.get_secret_value(), options)
        except ValueError as error:
            raise SetupError(f"APP_REDIS_URL names no Redis: {error}") from error
    if settings.redis_password is not None:
        options["password"] = settings.redis_password.get_secret_value()
    if settings.redis_socket is not None:
        options |= {"connection_class": UnixDomainSocketConnection, "path": settings.redis_socket}
    else:
        options |= {"host": settings.redis_host, "port": settings.redis_port, "socket_keepalive": True}
    return _client(BlockingConnectionPool(db=settings.redis_db, **options))


def dedicated(shared: Redis, **options: Any) -> Redis:
    """A client of the same Redis with connections of its own, opened with these `options` on top.

    One task uses it at a time, and its commands may block.
    """
    if isinstance(shared, ClusterClient):
        return shared.twin(**options)
    pool = shared.connection_pool
    merged = {**pool.connection_kwargs, **options}
    if isinstance(pool, MasterPool):
        del merged["connection_pool"]
        masters: Any = MasterPool  # not annotated
        own = masters(pool.service_name, pool.sentinel_manager, connection_class=pool.connection_class, **merged)
    else:
        own = ConnectionPool(connection_class=pool.connection_class, **merged)
    client = SharedClient.from_pool(own)
    client.alone = True  # type: ignore[attr-defined] # redis-py annotates its own class
    return client


def _client(pool: BlockingConnectionPool) -> Redis:
    pool.connection_class = PROMPT[pool.connection_class]
    return SharedClient.from_pool(pool)


def _from_url(url: str, options: dict[str, Any]) -> Redis:
    """Raises ValueError for a URL that names no server."""
    scheme, _, form = url.partition("://")[0].partition("+")
    if not form:
        return _client(BlockingConnectionPool.from_url(url, **options))
    if scheme not in {"redis", "rediss"} or form not in {"sentinel", "cluster"}:
        raise ValueError(f"{scheme}+{form} is none of redis+sentinel, rediss+sentinel, redis+cluster, rediss+cluster")
    split = urlsplit(url)
    user, at, places = split.netloc.rpartition("@")
    addresses = [_address(place) for place in places.split(",")]
    service, _, number = split.path.strip("/").partition("/")
    merged = {**options, "socket_keepalive": True, **parse_url(f"{scheme}://{user}{at}h?{split.query}")}
    del merged["host"]
    if form == "cluster" and not service:
        # A node that hangs is asked once, so that the others are soon asked who took its place.
        merged["retry"] = Retry(NoBackoff(), 1, supported_errors=(ConnectionError,))
        merged["connection_class"] = PROMPT[merged.get("connection_class", Connection)]
        return ClusterClient(addresses, merged)
    if form == "sentinel" and service:
        given = parse_qs(split.query, keep_blank_values=True)  # an empty one says that the sentinels want none
        names = ("username", "password")
        login = {name: given.get(f"sentinel_{name}", [merged.get(name)])[0] or None for name in names}
        for name in names:
            merged.pop(f"sentinel_{name}", None)
        return _sentinel(addresses, login, service, {**merged, "db": int(number or 0)})
    raise ValueError("the forms are redis+sentinel://host:port,…/service[/db] and redis+cluster://host:port,…")


def _sentinel(addresses: list[Address], login: dict[str, str | None], service: str, options: dict[str, Any]) -> Redis:
    kind = options.pop("connection_class", Connection)
    shared = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl_"))}
    sentinel: Any = Sentinel  # not annotated
    manager = sentinel([], **options)
    for host, port in addresses:
        pool = BlockingConnectionPool(
            host=host,
            port=port,
            connection_class=PROMPT[kind],
            protocol=2,
            retry=Retry(NoBackoff(), 1),
            **{**shared, **login, "socket_timeout": _CONNECT_SECONDS},
        )
        manager.sentinels.append(Redis.from_pool(pool))
    found: Redis = manager.master_for(
        service, MasterClient, connection_pool_class=MasterPool, connection_class=MANAGED[kind]
    )
    return found


def _address(place: str) -> Address:
    host, _, port = place.rpartition(":")
    if not host:
        raise ValueError(f"{place!r} is no host:port")
    return host.strip("[]"), int(port)


def describe(settings: Settings) -> str:
    """Where Redis is, without its password, for messages."""
    if settings.redis_url is not None:
        scheme, _, rest = settings.redis_url.get_secret_value().partition("://")
        return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
    return settings.redis_socket or f"{settings.redis_host}:{settings.redis_port}"


async def wait_for_redis(redis: Redis, settings: Settings) -> None:
    """Returns when Redis answers.

    Raises UnavailableError after `connect_seconds` without an answer, and SetupError at once when it refuses us.
    """
    deadline = time.monotonic() + settings.connect_seconds
    pause, words = 0.1, ""
    while True:
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                await cast("Any", redis.ping())
        except (AuthenticationError, AuthorizationError) as error:  # redis-py calls these connection errors
            raise SetupError(f"Redis at {describe(settings)} refuses us: {error}") from error
        except redis_errors as error:
            reason, words = error, str(error) or words or type(error).__name__
        except ResponseError as error:
            raise SetupError(f"Redis at {describe(settings)} refuses us: {error}") from error
        else:
            return
        left = deadline - time.monotonic()
        if left <= pause:
            raise UnavailableError(
                f"Redis at {describe(settings)} did not answer within {settings.connect_seconds:g} s ({words}); "
                "start it, or set APP_REDIS_URL, or APP_REDIS_HOST and APP_REDIS_PORT"
            ) from reason
        log.warning("redis is away", redis=describe(settings), error=words, giving_up_in=f"{left:.0f} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, 2.0)


async def check_redis(redis: Redis, *, allow_volatile: bool = False) -> list[str]:
    """Warnings about a server that will do. Raises SetupError, naming the remedy, for one that would lose data.

    Every master of a cluster is asked. `allow_volatile` is `Settings.redis_allow_volatile`.
    """
    clustered = isinstance(redis, ClusterClient)
    warnings: dict[str, None] = {}
    for server in await redis.masters() if isinstance(redis, ClusterClient) else [redis]:
        info: dict[str, Any] = await cast("Any", server.info())
        warnings |= dict.fromkeys(_judge(info, clustered=clustered, allow_volatile=allow_volatile))
    return list(warnings)


def _judge(info: dict[str, Any], *, clustered: bool, allow_volatile: bool) -> list[str]:
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise SetupError(f"Redis {version} is too old: 6.2 or newer is needed")
    if info.get("role") == "slave":
        raise UnavailableError("Redis is a replica, which takes no writes; name the master, or use redis+sentinel://")
    if info.get("cluster_enabled") and not clustered:
        raise SetupError("Redis is a node of a cluster; set APP_REDIS_URL=redis+cluster://host:port,…")
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
