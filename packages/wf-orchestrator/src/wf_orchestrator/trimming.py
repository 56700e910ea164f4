"""Cuts what would grow for ever: a log that does not forget by itself (the redis driver), catalogues. A rare step."""

from __future__ import annotations

from collections.abc import Iterable

from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_orchestrator.context import Context
from wf_orchestrator.partition import Partition

TASKS_KEPT = 1_000
"""Task messages below the committed offset that stay."""


async def trim(context: Context, partition: Partition) -> None:
    """Cuts the events below the kept ones.

    The owner of partition 0 also cuts task messages that were taken long ago, and catalogues of workers that are gone.
    """
    if partition.closed or not partition.live:
        return
    before = partition.offset - context.settings.events_kept
    if before > 0:
        await context.log.trim(context.events(partition.number), before)
    if partition.number == 0:
        await _trim_tasks(context, await context.queries.queues(context.partitions))
        await context.queries.prune_catalogues()


async def _trim_tasks(context: Context, queues: Iterable[str]) -> None:
    places = [(queue, number) for queue in queues for number in range(context.task_partitions)]
    for (queue, number), (offset, incarnation) in (await context.queries.task_offsets(places)).items():
        if offset > TASKS_KEPT and incarnation in ("", context.incarnation):
            target = TopicPartition(topics.tasks(context.namespace, queue), number)
            await context.log.trim(target, offset - TASKS_KEPT)
