"""Brings Redis to the end of the log without acting on anything: after Redis was lost, or restored from a backup.

An orchestrator folds whatever Redis lacks by itself, so this is one that only folds: it sends nothing, fires nothing,
judges nobody, tells no observer, and leaves when every partition has reached the log's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from redis.asyncio import Redis

from wf_core.broker import topics
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.errors import SetupError
from wf_core.plugins.observers import Observers
from wf_core.settings import Settings
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_orchestrator.context import Context, every, for_each
from wf_orchestrator.crew import Crew
from wf_orchestrator.loop import Loop
from wf_orchestrator.ownership import AT_ONCE, Ownership
from wf_orchestrator.positions import parse_where
from wf_orchestrator.service import OrchestratorService
from wf_orchestrator.survey import Place, check_gaps, check_nobody_works, survey
from wf_orchestrator.work import BEATS_PER_LEASE

LOOK_SECONDS = 0.25
STALL_SECONDS = 120.0
"""Without progress for so long a rebuild gives up. What it did stays, and repeated it goes on from there."""

Progress = Callable[[int], None]
"""Is told how many records are still to be folded."""


async def rebuild(redis: Redis, log: Log, settings: Settings, progress: Progress) -> list[Place]:
    """Folds what Redis lacks of the log; where each partition stood before.

    Raises SetupError, having changed nothing, while somebody works or when there is no log that could be folded.
    """
    await check_nobody_works(redis, settings)
    places = await survey(redis, log, settings)
    check_gaps(places)
    installation = InstallationKeys(settings.namespace).installation
    known = await redis.exists(installation)
    folding = Folding(settings, places, progress)
    await folding.start()
    try:
        await folding.fold()
    except SetupError:
        if not known:  # our settings, which turned out wrong, are not what is installed
            await redis.delete(installation)
        raise
    return places


class Folding(OrchestratorService):
    """An orchestrator that is started as any other, and then only folds, once, up to `places`."""

    def __init__(self, settings: Settings, places: Sequence[Place], progress: Progress) -> None:
        super().__init__(settings)
        self._places = places
        self._progress = progress

    async def fold(self) -> None:
        """Folds until every partition has reached its place, gives the partitions back and disconnects.

        Raises SetupError when nothing moves any more, and when the topics of tasks are not as the settings say.
        """
        if self.context is None:
            raise RuntimeError("start() comes first")
        async with self._exits:
            self.context.observers = Observers()  # they heard of all this when it happened
            await self._fold(self.context)
            await skip_old_messages(self.context)

    async def _fold(self, context: Context) -> None:
        crew, folded = Crew(), asyncio.Event()
        ownership = Ownership(context, crew, lambda _: None)  # nobody sends the outboxes
        loop = Loop(context, ownership)
        crew.spawn(loop.run(), "loop")
        crew.spawn(every(context, context.settings.lease_seconds / BEATS_PER_LEASE, ownership.beat), "beat")
        crew.spawn(_balance(context, ownership), "balance")
        crew.spawn(self._watch(context, folded), "watch")
        try:
            await crew.watch(folded)
            await ownership.leave()
        finally:
            await crew.end()
            await loop.close()

    async def _watch(self, context: Context, folded: asyncio.Event) -> None:
        """Sets `folded` when nothing is left. Looks into Redis: somebody may have started an orchestrator meanwhile."""
        least, moved = None, context.monotonic()
        while left := sum(await self._left(context)):
            self._progress(left)
            if least is None or left < least:
                least, moved = left, context.monotonic()
            if context.monotonic() - moved > STALL_SECONDS:
                behind = [p.partition for p, n in zip(self._places, await self._left(context), strict=True) if n]
                raise SetupError(
                    f"partitions {', '.join(map(str, behind))} do not move on for {STALL_SECONDS:g} s; the lines above "
                    "say why. What was folded stays: repeat the command when the cause is gone"
                )
            await context.sleep(LOOK_SECONDS)
        self._progress(0)
        folded.set()

    async def _left(self, context: Context) -> list[int]:
        offsets = await context.queries.offsets(context.partitions)
        return [max(0, place.end - offsets[place.partition]) for place in self._places]


async def _balance(context: Context, ownership: Ownership) -> None:
    await ownership.registered.wait()
    await every(context, lambda: ownership.pause, ownership.balance)


async def skip_old_messages(context: Context) -> None:
    """Moves task partitions that Redis knows nothing of to their ends: else workers would read all old messages again.

    They would drop each as stale. What is in flight is in the outboxes, and is sent again; a task partition to which,
    as Redis knows, something was sent stays where it is. Raises SetupError for a topic with another number of them.
    """
    queues = sorted(await context.queries.queues(context.partitions))
    names = [topics.tasks(context.namespace, queue) for queue in queues]
    await context.log.ensure_topics(dict.fromkeys(names, context.task_partitions))
    places = [(queue, number) for queue in queues for number in range(context.task_partitions)]
    offsets = await context.queries.task_offsets(places)
    sent: set[TopicPartition] = set()
    for number in range(context.partitions):
        found = await context.queries.sent(PartitionKeys.of(context.namespace, number))
        sent.update(parse_where(where).source for where in found.values())

    async def skip(place: tuple[str, int]) -> None:
        source = TopicPartition(topics.tasks(context.namespace, place[0]), place[1])
        if offsets[place][0] or source in sent:
            return
        key, nonce = InstallationKeys(context.namespace).task_lease(*place), context.id
        if await context.scripts.task_lease(key, nonce, context.lease_ms, incarnation=context.incarnation) is not None:
            await context.scripts.task_commit(key, nonce, await context.log.end(source), context.lease_ms)
            await context.scripts.task_release(key, nonce)

    await for_each(places, skip, at_once=AT_ONCE)
