"""The checks of `wf doctor`. Each is bounded in time, and one that fails does not keep the others from running."""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from wf_core import logging as wf_logging
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.cli.servers import settings_here
from wf_core.errors import UnavailableError, WfError
from wf_core.settings import Settings
from wf_core.store.client import check_redis, connect, describe, redis_errors, wait_for_redis
from wf_core.store.keys import InstallationKeys
from wf_core.store.reads import count_orchestrators, read_workers

if TYPE_CHECKING:
    from redis.asyncio import Redis

PACKAGES = ("wf-core", "wf-api", "wf-orchestrator", "wf-worker", "wf-tasks-builtin")
MOST_SKEW_MS = 500
_SECONDS = 15.0


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


Finding = str | Wrong | list[Check]


async def examine() -> list[Check]:
    """Every check, in the order in which one explains the next."""
    settings = settings_here()
    wf_logging.configure(settings, "doctor")
    checks = [_versions()]
    redis = connect(settings)
    try:
        checks += await _check("redis", lambda: _redis(redis, settings))
        below: dict[str, Callable[[], Awaitable[Finding]]] = {
            "clocks": lambda: _clocks(redis),
            "log": lambda: _log(redis, settings),
            "topics": lambda: _topics(redis, settings),
            "orchestrators": lambda: _orchestrators(redis, settings),
            "workers": lambda: _workers(redis, settings),
        }
        for name, look in below.items():
            reachable = checks[1].state == "ok" or not checks[1].found.startswith("no answer")
            checks += await _check(name, look) if reachable else [Check(name, "unknown", "Redis does not answer")]
    finally:
        await redis.aclose()
    return checks


async def _check(name: str, look: Callable[[], Awaitable[Finding]]) -> list[Check]:
    try:
        async with asyncio.timeout(_SECONDS):
            finding = await look()
    except TimeoutError:
        finding = Wrong(f"no answer within {_SECONDS:g} s", "see whether the server hangs")
    except UnavailableError as error:
        finding = Wrong(f"no answer: {error}", "start it, or correct the APP_* variables")
    except redis_errors as error:
        finding = Wrong(f"no answer: {error}", "start Redis, or correct the APP_REDIS_* variables")
    except WfError as error:
        finding = Wrong(str(error), "the sentence beside says it")
    if isinstance(finding, list):
        return finding
    return [Check(name, "wrong", *finding) if isinstance(finding, Wrong) else Check(name, "ok", finding)]


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
    installed = await _installed(redis, settings)
    async with _opened(redis, settings) as log:
        if installed is None:
            return f"{settings.broker} answers; nothing is installed in namespace {settings.namespace!r} yet"
        events = topics.events(settings.namespace)
        ends = [await log.end(TopicPartition(events, at)) for at in range(installed.partitions)]
    return f"{settings.broker}, {events} has {installed.partitions} partitions, {sum(ends)} records"


async def _topics(redis: Redis, settings: Settings) -> Finding:
    installed = await _installed(redis, settings)
    if installed is None:
        return "none is needed yet"
    now, _ = cast("tuple[int, int]", await cast("Any", redis.time()))
    workers = await read_workers(redis, settings.namespace, now * 1000)
    namespace = settings.namespace
    wanted = {topics.events(namespace): installed.partitions, topics.meta(namespace): 1}
    wanted[topics.dead_letters(namespace)] = 1
    for queue in sorted({queue for worker in workers for queue in worker.queues}):
        wanted[topics.tasks(namespace, queue)] = installed.task_partitions
    async with _opened(redis, settings) as log:
        problems = await log.examine_topics(wanted)
    if not problems:
        return f"{', '.join(wanted)} are as they must be"
    return [Check(f"topic {p.topic}: {p.setting}", "wrong", p.found, p.remedy) for p in problems]


class _Installed(NamedTuple):
    partitions: int
    task_partitions: int


async def _installed(redis: Redis, settings: Settings) -> _Installed | None:
    """The numbers that were fixed at install."""
    key = InstallationKeys(settings.namespace).installation
    stored = cast("dict[bytes, bytes]", await cast("Any", redis.hgetall(key)))
    return _Installed(int(stored[b"partitions"]), int(stored[b"task_partitions"])) if stored else None


@asynccontextmanager
async def _opened(redis: Redis, settings: Settings) -> AsyncIterator[Log]:
    log = open_log(settings, redis)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


async def _orchestrators(redis: Redis, settings: Settings) -> Finding:
    now, _ = cast("tuple[int, int]", await cast("Any", redis.time()))
    silent = max(settings.death_seconds, 5.0)
    alive = await count_orchestrators(redis, settings.namespace, round(1000 * (now - silent)))
    return f"{alive} alive" if alive else Wrong("none is alive", "start one: wf orchestrator")


async def _workers(redis: Redis, settings: Settings) -> Finding:
    now, _ = cast("tuple[int, int]", await cast("Any", redis.time()))
    found = await read_workers(redis, settings.namespace, now * 1000)
    if not found:
        return Wrong("none is alive", "start one: wf worker")
    versions = sorted({worker.version for worker in found if worker.version})
    queues = sorted({queue for worker in found for queue in worker.queues})
    return f"{len(found)} alive, queues {', '.join(queues)}, versions {', '.join(versions) or 'unknown'}"
