"""Faults of what lies in the log: copies at once, late copies, garbage."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator

from chaos.journal import Journal
from chaos.scene import NotNowError, Scene, after
from wf_core.broker import topics
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.errors import WfError
from wf_core.settings import Settings
from wf_core.store.client import redis_errors

AWAY: tuple[type[Exception], ...] = (WfError, TimeoutError, *redis_errors)
_MOST_COPIES = 60
_LATE_SECONDS = (3.0, 40.0)
_READ_SECONDS = 2.0


async def copies(scene: Scene, chance: random.Random) -> str:
    """The newest records of a partition again, as a producer does that was not told of its success."""
    source, records = await _newest(scene, chance)
    await _append(scene, source, records)
    return f"{len(records)} of {source.topic}[{source.partition}]"


async def late_copies(scene: Scene, chance: random.Random) -> str:
    """The newest records of a partition again, long after everybody went on."""
    source, records = await _newest(scene, chance)
    seconds = chance.uniform(*_LATE_SECONDS)
    await after(seconds)
    await _append(scene, source, records)
    return f"{len(records)} of {source.topic}[{source.partition}], {seconds:.0f} s late"


async def garbage(scene: Scene, chance: random.Random) -> str:
    """A record that nobody can decode: a dead letter."""
    source = chance.choice(list(_sources(scene.settings)))
    await _append(scene, source, [b"\xc1 no record " + str(chance.random()).encode()])
    scene.injected += 1
    return f"{source.topic}[{source.partition}]"


async def everything_twice(scene: Scene, journal: Journal) -> None:
    """Appends each record of the events and the tasks once more, until cancelled."""
    own: dict[TopicPartition, set[int]] = defaultdict(set)
    while True:
        try:
            async with scene.log() as (_, log):
                await _double(log, list(_sources(scene.settings)), own, journal)
        except AWAY:
            await asyncio.sleep(0.5)


async def _double(
    log: Log, sources: list[TopicPartition], own: dict[TopicPartition, set[int]], journal: Journal
) -> None:
    reader = log.reader()
    try:
        reader.assign({source: await log.end(source) for source in sources})
        while True:
            for batch in await reader.read(0.5):
                known = own[batch.source]
                fresh = [record for n, record in enumerate(batch.records, batch.offset) if n not in known]
                if fresh:
                    known.update(await log.append(batch.source, fresh))
                    journal.notes["records sent twice"] += len(fresh)
    finally:
        await reader.close()


def _sources(settings: Settings) -> Iterator[TopicPartition]:
    for n in range(settings.partitions):
        yield TopicPartition(topics.events(settings.namespace), n)
    for n in range(settings.task_partitions):
        yield TopicPartition(topics.tasks(settings.namespace, "default"), n)


async def _newest(scene: Scene, chance: random.Random) -> tuple[TopicPartition, list[bytes]]:
    """Some of the newest records of a partition that has any. Raises NotNowError."""
    sources = list(_sources(scene.settings))
    chance.shuffle(sources)
    wanted = chance.randrange(1, _MOST_COPIES)
    try:
        async with asyncio.timeout(10), scene.log() as (_, log):
            for source in sources:
                end = await log.end(source)
                begin = max(await log.begin(source), end - wanted)
                if begin < end:
                    return source, await _read(log, source, begin)
    except AWAY as error:
        raise NotNowError from error
    raise NotNowError


async def _read(log: Log, source: TopicPartition, begin: int) -> list[bytes]:
    reader = log.reader()
    try:
        reader.assign({source: begin})
        return [record for batch in await reader.read(_READ_SECONDS) for record in batch.records]
    finally:
        await reader.close()


async def _append(scene: Scene, source: TopicPartition, records: list[bytes]) -> None:
    try:
        async with asyncio.timeout(15), scene.log() as (_, log):
            await log.append(source, records)
    except AWAY as error:
        raise NotNowError from error
