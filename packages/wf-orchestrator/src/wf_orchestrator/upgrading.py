"""Completes what an older release did not write, when a partition is taken: afterwards Redis is what the fold gives.

Old and new orchestrators may take turns during a rolling upgrade, so this is looked at with every lease; it costs one
round trip when nothing is missing.
"""

from __future__ import annotations

import structlog

from wf_orchestrator import checkpoint
from wf_orchestrator.context import Context
from wf_orchestrator.partition import Partition

log = structlog.get_logger(__name__)


async def complete(context: Context, partition: Partition) -> None:
    """Lists executions that ended under a release which had no index of ends. The partition must not be in use yet."""
    number = 0
    async for ends in context.queries.unlisted(partition.keys):
        pairs = (part for execution_id, ended_at in ends.items() for part in (ended_at, execution_id))
        await checkpoint.write(context, partition, [("ZADD", partition.keys.index("ended"), *pairs)])
        number += len(ends)
    if number:
        log.info("listed what ended under an older release", partition=partition.number, executions=number)
