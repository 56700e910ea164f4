"""The checks of `wf doctor`. Each is bounded in time, and one that fails does not keep the others from running."""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from wf_core import logging as wf_logging
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import TopicPartition
from wf_core.cli.address import STATE
from wf_core.dev.state import running
from wf_core.errors import SetupError, UnavailableError, WfError
from wf_core.settings import Settings
from wf_core.store.client import check_redis, connect, describe, redis_errors, wait_for_redis
from wf_core.store.keys import InstallationKeys
from wf_core.store.reads import read_workers

if TYPE_CHECKING:
    from redis.asyncio import Redis

PACKAGES = ("wf-core", "wf-api", "wf-orchestrator", "wf-worker", "wf-tasks-builtin")
MOST_SKEW_MS = 500
_SECONDS = 15.0
_CONNECT_SECONDS = 3.0


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `state` is `ok`, `wrong`, or `unknown` when another failure hides it."""

    name: str
    state: str
    found: str
    remedy: str | None = None


class Wrong(NamedTuple):
    """A check's finding that somebody must act upon."""

    found: str
    remedy: str


Finding = str | Wrong


async def examine() -> list[Check]:
    """Every check, in the order in which one explains the next."""
    settings = _settings()
    wf_logging.configure(settings, "doctor")
    checks = [_versions()]
    redis = connect(settings)
    try:
        checks.append(await _check("redis", lambda: _redis(redis, settings)))
        below: dict[str, Callable[[], Awaitable[Finding]]] = {
            "clocks": lambda: _clocks(redis),
            "log": lambda: _log(redis, settings),
            "orchestrators": lambda: _orchestrators(redis, settings),
            "workers": lambda: _workers(redis, settings),
        }
        for name, look in below.items():
            reachable = checks[1].state == "ok" or not checks[1].found.startswith("no answer")
            checks.append(await _check(name, look) if reachable else Check(name, "unknown", "Redis does not answer"))
    finally:
        await redis.aclose()
    return checks


def _settings() -> Settings:
    """What `APP_*` says, or the `wf dev` that runs in this folder."""
    fast: dict[str, Any] = {"connect_seconds": _CONNECT_SECONDS, "log_level": "CRITICAL"}
    here = running(Path(STATE))
    if here is not None and here.socket is not None:
        fast |= {"redis_socket": here.socket, "redis_url": None, "redis_db": 0, "redis_password": None}
        fast |= {"broker": here.broker, "redis_allow_volatile": True}
    return Settings(**fast)


async def _check(name: str, look: Callable[[], Awaitable[Finding]]) -> Check:
    try:
        async with asyncio.timeout(_SECONDS):
            finding = await look()
    except TimeoutError:
        return Check(name, "wrong", f"no answer within {_SECONDS:g} s", "see whether the server hangs")
    except UnavailableError as error:
        return Check(name, "wrong", f"no answer: {error}", "start it, or correct the APP_* variables")
    except redis_errors as error:
        return Check(name, "wrong", f"no answer: {error}", "start Redis, or correct the APP_REDIS_* variables")
    except (SetupError, WfError) as error:
        return Check(name, "wrong", str(error), "the sentence beside says it")
    return Check(name, "wrong", *finding) if isinstance(finding, Wrong) else Check(name, "ok", finding)


def _versions() -> Check:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    listed = ", ".join(f"{package} {version}" for package, version in found.items())
    if len(set(found.values())) > 1:
        return Check("packages", "wrong", listed, "install one version of all of them")
    return Check("packages", "ok", listed)


async def _redis(redis: Redis, settings: Settings) -> Finding:
    await wait_for_redis(redis, settings)
    warnings = await check_redis(redis, allow_volatile=settings.redis_allow_volatile)
    info = cast("dict[str, Any]", await cast("Any", redis.info("server")))
    found = f"{describe(settings)}, Redis {info['redis_version']}"
    return ", ".join((found, *warnings)) if warnings else f"{found}, appendonly yes, noeviction"


async def _clocks(redis: Redis) -> Finding:
    before = time.time()
    seconds, micros = cast("tuple[int, int]", await cast("Any", redis.time()))
    skew = round((seconds + micros / 1e6 - (before + time.time()) / 2) * 1000)
    found = f"this host is {abs(skew)} ms {'behind' if skew > 0 else 'ahead of'} Redis"
    return Wrong(found, "synchronise the clocks (NTP)") if abs(skew) > MOST_SKEW_MS else found


async def _log(redis: Redis, settings: Settings) -> Finding:
    stored = cast(
        "dict[bytes, bytes]", await cast("Any", redis.hgetall(InstallationKeys(settings.namespace).installation))
    )
    log = open_log(settings, redis)
    await log.start()
    try:
        if not stored:
            return f"{settings.broker} answers; nothing is installed in namespace {settings.namespace!r} yet"
        partitions = int(stored[b"partitions"])
        # Creates nothing: it was created at install. What it does is compare the counts.
        await log.ensure_topics({topics.events(settings.namespace): partitions})
        ends = [await log.end(TopicPartition(topics.events(settings.namespace), at)) for at in range(partitions)]
        return (
            f"{settings.broker}, {topics.events(settings.namespace)} has {partitions} partitions, {sum(ends)} records"
        )
    finally:
        await log.close()


async def _orchestrators(redis: Redis, settings: Settings) -> Finding:
    alive = await _beating(redis, InstallationKeys(settings.namespace).orchestrators, settings)
    return f"{alive} alive" if alive else Wrong("none is alive", "start one: wf orchestrator")


async def _workers(redis: Redis, settings: Settings) -> Finding:
    now, _ = cast("tuple[int, int]", await cast("Any", redis.time()))
    found = await read_workers(redis, settings.namespace, now * 1000)
    if not found:
        return Wrong("none is alive", "start one: wf worker")
    versions = sorted({worker.version for worker in found if worker.version})
    queues = sorted({queue for worker in found for queue in worker.queues})
    return f"{len(found)} alive, queues {', '.join(queues)}, versions {', '.join(versions) or 'unknown'}"


async def _beating(redis: Redis, key: str, settings: Settings) -> int:
    now, _ = cast("tuple[int, int]", await cast("Any", redis.time()))
    silent = max(settings.death_seconds, 5.0)
    return int(await cast("Any", redis.zcount(key, now * 1000 - silent * 1000, "+inf")))
