"""Writes the outcome of a batch with APPLY: one atomic step, retried under one batch id, fenced by nonce and offset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from wf_core.store.client import redis_errors
from wf_core.store.ops import Op
from wf_orchestrator.context import Context, PartitionLostError
from wf_orchestrator.partition import Partition

TRIES = 5


def digest(record: bytes) -> str:
    """Short, and enough to tell whether the log still holds this record."""
    return hashlib.sha1(record, usedforsecurity=False).hexdigest()[:16]


async def apply(context: Context, partition: Partition, next_offset: int, ops: Sequence[Op], last: str) -> None:
    """Moves the partition to `next_offset` and writes `ops`. `last` is the digest of the record before it.

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
                last=last,
            )
        except redis_errors as error:
            context.health.failed(error)
            failure = error
            await context.sleep(0.05 * 2**attempt)
            continue
        context.counters.inc("apply_total", answer=answer)
        if answer in ("OK", "DUP"):
            partition.offset, partition.last = next_offset, last
            return
        raise PartitionLostError(f"APPLY answered {answer} at offset {partition.offset}")
    raise PartitionLostError("Redis did not answer APPLY") from failure


async def write(context: Context, partition: Partition, ops: Sequence[Op]) -> None:
    """Writes `ops` under the owner's guard without moving the offset (housekeeping, never state of an execution)."""
    await apply(context, partition, partition.offset, ops, partition.last)
