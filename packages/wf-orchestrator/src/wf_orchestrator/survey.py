"""What a rebuild would do, and whether it may: the log's bounds against the offsets that Redis stores."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.broker import topics
from wf_core.broker.open import read_incarnation
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.errors import SetupError
from wf_core.settings import Settings
from wf_core.store.clock import Clock
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.reads import count_orchestrators, read_workers

SILENT_SECONDS = 5.0
"""Who was not heard for so long, or for a death time if that is longer, has ended."""


class Place(msgspec.Struct, frozen=True):
    """Where a partition stands. `begin` and `end` are the log's bounds, `offset` is the first record to fold.

    `state` is `behind`, `current`, `ahead` (the log lost its tail: it is read on from its end), or `gap`: records
    between `offset` and `begin` are gone from the log and were not folded.
    """

    partition: int
    begin: int
    offset: int
    end: int
    state: str

    @property
    def to_fold(self) -> int:
        """The number of records that the fold lacks."""
        return max(0, self.end - max(self.offset, self.begin))


async def survey(redis: Redis, log: Log, settings: Settings) -> list[Place]:
    """Where each partition stands; changes nothing. Raises SetupError when there is no log to rebuild from."""
    namespace = settings.namespace
    meta = topics.meta(namespace)
    gone = any(problem.setting == "missing" for problem in await log.examine_topics({meta: 1}))
    if gone or await log.end(TopicPartition(meta, 0)) == 0:
        raise SetupError(_no_log(settings))
    partitions = await _partitions(redis, log, settings)
    incarnation = await read_incarnation(log, settings)
    return [await _place(redis, log, namespace, number, incarnation) for number in range(partitions)]


async def check_nobody_works(redis: Redis, settings: Settings) -> None:
    """Raises SetupError while an orchestrator or a worker is alive."""
    clock = Clock()
    await clock.sync(redis)
    silent_ms = round(1000 * max(SILENT_SECONDS, settings.death_seconds))
    now_ms = clock.now_ms()
    beating = await count_orchestrators(redis, settings.namespace, now_ms - silent_ms)
    workers = [w for w in await read_workers(redis, settings.namespace, now_ms) if w.silent_ms < silent_ms]
    if beating or workers:
        raise SetupError(
            f"{beating} orchestrators and {len(workers)} workers are, or were a moment ago, alive: stop them first"
        )


def check_gaps(places: list[Place]) -> None:
    """Raises SetupError that names the partitions whose log begins after the offset that it must be folded from."""
    gaps = [place for place in places if place.state == "gap"]
    if gaps:
        listed = "; ".join(
            f"partition {p.partition} is to be folded from offset {p.offset} and its log begins at {p.begin}"
            for p in gaps
        )
        raise SetupError(
            f"{listed}. What lies between is lost: restore a newer backup of Redis, and let the log keep records for "
            "longer than the time between two backups"
        )


def _no_log(settings: Settings) -> str:
    if settings.broker == "redis":
        return (
            "the log is empty: APP_BROKER=redis keeps it in this very Redis, so it went with the rest. Restore the "
            "append-only file or a dump of Redis; state and log come back together and nothing has to be rebuilt"
        )
    return f"the log has no topic {topics.meta(settings.namespace)}, or an empty one: there is nothing to rebuild from"


async def _partitions(redis: Redis, log: Log, settings: Settings) -> int:
    """How many there are: as installed, else as set, which the log confirms."""
    installation = InstallationKeys(settings.namespace).installation
    stored = cast("bytes | None", await cast("Any", redis.hget(installation, "partitions")))
    partitions = settings.partitions if stored is None else int(stored)
    for problem in await log.examine_topics({topics.events(settings.namespace): partitions}):
        if problem.fatal:
            raise SetupError(f"{problem}. APP_PARTITIONS must be what it was when {settings.namespace} was installed")
    return partitions


async def _place(redis: Redis, log: Log, namespace: str, number: int, incarnation: str) -> Place:
    source = TopicPartition(topics.events(namespace), number)
    meta = PartitionKeys.of(namespace, number).meta
    stored = cast("list[bytes | None]", await cast("Any", redis.hmget(meta, ["off", "inc"])))
    of_this_log = (stored[1] or b"").decode() in ("", incarnation)
    offset = int(stored[0] or 0) if of_this_log else 0  # another log than that of the backup: read from its beginning
    begin, end = await log.begin(source), await log.end(source)
    if offset < begin:
        state = "gap"
    elif offset > end:
        state = "ahead"
    else:
        state = "behind" if offset < end else "current"
    return Place(number, begin, offset, end, state)
