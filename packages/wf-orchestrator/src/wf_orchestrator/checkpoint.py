"""Writes the outcome of a batch with APPLY: one atomic step, retried under one batch id, fenced by nonce and offset."""

from __future__ import annotations

from collections.abc import Sequence

from wf_core.store.client import redis_errors
from wf_core.store.ops import Op
from wf_orchestrator.context import Context, PartitionLostError
from wf_orchestrator.partition import Partition

TRIES = 5


async def apply(context: Context, partition: Partition, next_offset: int, ops: Sequence[Op]) -> None:
    """Moves the partition to `next_offset` and writes `ops`.

    Raises PartitionLostError when another owner or a roll-back of Redis stands in the way, or when Redis stayed away:
    whether the batch landed is then unknown, and only a new lease tells.
    """
    batch = f"{partition.nonce}/{next(context.serial)}"
    for attempt in range(TRIES):
        try:
            answer = await context.scripts.apply(
                partition.keys,
                partition.nonce,
                partition.offset,
                next_offset,
                batch,
                ops,
                seq=partition.state.seq,
                ts=partition.state.ts,
            )
        except redis_errors as error:
            context.health.failed(error)
            failure = error
            await context.sleep(0.05 * 2**attempt)
            continue
        context.counters.inc("apply_total", answer=answer)
        if answer in ("OK", "DUP"):
            partition.offset = next_offset
            return
        raise PartitionLostError(f"APPLY answered {answer} at offset {partition.offset}")
    raise PartitionLostError("Redis did not answer APPLY") from failure


async def write(context: Context, partition: Partition, ops: Sequence[Op]) -> None:
    """Writes `ops` under the owner's guard without moving the offset (housekeeping, never state of an execution)."""
    await apply(context, partition, partition.offset, ops)
