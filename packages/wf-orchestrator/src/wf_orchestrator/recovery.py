"""What a new owner checks before it reads on: whether the log is still the one that the offset belongs to.

A log that lost its tail either ends below the offset, or went on and holds other records before it. Both move the
offset to the end. Whatever is passed over comes again: commands lie in `{p}:acc`, workers keep results until they are
folded, timers and sweeps repeat themselves. To fold the new records from our offset on instead would pass over fewer of
them, but might begin in the middle of an append: a `created` without its document would fail an execution that was
accepted. To fold those before it is not possible without knowing where the old log ended.
"""

from __future__ import annotations

import structlog

from wf_core.broker import topics
from wf_core.broker.open import ensure_installation, read_incarnation
from wf_core.broker.protocol import LogUnavailableError, OffsetOutOfRangeError, TopicPartition
from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Lease
from wf_orchestrator import checkpoint
from wf_orchestrator.context import Context, PartitionLostError
from wf_orchestrator.partition import Partition

log = structlog.get_logger(__name__)


Finding = tuple[str, int, int | str]
"""Incarnation, offset, and what is wrong: the end below the offset, or the digest of the record before it."""


class Doubts:
    """Findings that move an offset are believed only when they are made twice: a new log leader may lag at first."""

    def __init__(self) -> None:
        self._found: dict[int, Finding] = {}

    def confirmed(self, partition: int, finding: Finding) -> bool:
        """Whether the same was found the last time."""
        if self._found.get(partition) == finding:
            del self._found[partition]
            return True
        self._found[partition] = finding
        return False

    def settle(self, partition: int) -> None:
        """The partition is fine."""
        self._found.pop(partition, None)


async def settle_offset(  # noqa: PLR0913 - the facts of one lease
    context: Context, doubts: Doubts, keys: PartitionKeys, number: int, lease: Lease, end: int
) -> Lease:
    """The lease with an offset that fits the log, whose end is `end`.

    Another incarnation: the log was lost whole, and is read from its beginning. An offset beyond the end: the log lost
    its tail, and is read from its end. Both are written with REBASE. Raises PartitionLostError when fenced, and while
    a lost tail was found only once.
    """
    if lease.incarnation not in ("", context.incarnation):
        await look_at_incarnation(context)  # the last owner may have known of a newer log than we do
    if lease.incarnation != context.incarnation:
        if lease.incarnation:
            log.error(
                "the log is another one than before: it was lost whole; reading from its beginning",
                partition=number,
                was=lease.incarnation,
                incarnation=context.incarnation,
                offset=lease.offset,
            )
            context.counters.inc("log_lost_total")
        # Without an incarnation nothing was folded yet, or Redis rolled back to before the first REBASE.
        return await _rebase(context, keys, lease, 0 if lease.incarnation else lease.offset)
    if lease.offset <= end:
        if not lease.last:
            doubts.settle(number)
        return lease
    await look_at_incarnation(context)
    if lease.incarnation != context.incarnation or not doubts.confirmed(number, (lease.incarnation, lease.offset, end)):
        raise PartitionLostError(f"the log ends at {end}, before offset {lease.offset}: looking again")
    log.error(
        "the log lost its tail: records that were folded are gone from it; reading from its end",
        partition=number,
        offset=lease.offset,
        end=end,
    )
    context.counters.inc("log_tail_lost_total")
    return await _rebase(context, keys, lease, end)


async def check_last(context: Context, doubts: Doubts, partition: Partition, record: bytes) -> None:
    """Compares the record before the offset with the one that was folded there.

    Raises PartitionLostError when it is another one; found twice, the offset was moved to the end of the log.
    """
    found = checkpoint.digest(record)
    if found == partition.last:
        partition.unchecked = False
        doubts.settle(partition.number)
        return
    reason = f"the log has another record at offset {partition.offset - 1} than the one that was folded"
    if not doubts.confirmed(partition.number, (partition.incarnation, partition.offset, found)):
        raise PartitionLostError(f"{reason}: looking again")
    end = await context.log.end(context.events(partition.number))
    log.error(
        "the log lost its tail and went on: records that were folded are gone from it; reading from its end",
        partition=partition.number,
        offset=partition.offset,
        end=end,
    )
    context.counters.inc("log_tail_lost_total")
    if not await context.scripts.rebase(partition.keys, partition.nonce, partition.incarnation, end):
        raise PartitionLostError("fenced while the offset was moved")
    raise PartitionLostError(f"{reason}: reading from its end, {end}")


async def _rebase(context: Context, keys: PartitionKeys, lease: Lease, offset: int) -> Lease:
    """REBASE, then LEASE again with the same nonce for what it changed (the generation)."""
    if await context.scripts.rebase(keys, lease.nonce, context.incarnation, offset):
        renewed = await context.scripts.lease(keys, lease.nonce, context.lease_ms)
        if renewed is not None:
            return renewed
    raise PartitionLostError("fenced while the offset was moved")


async def look_at_incarnation(context: Context) -> None:
    """Reads the log's identity again; a log that lost it gets a new one. Step of every 5 s, and of every doubt.

    Partitions that were leased under another incarnation are let go by the next `Ownership.beat`.
    """
    try:
        is_empty = await context.log.end(TopicPartition(topics.meta(context.namespace), 0)) == 0
        found = "" if is_empty else await read_incarnation(context.log, context.settings)
    except (LogUnavailableError, OffsetOutOfRangeError):  # its topic may be gone
        found = ""
    if not found:
        found = (await ensure_installation(context.log, context.scripts, context.settings)).incarnation
    if found != context.incarnation:
        log.error("the log has another incarnation", was=context.incarnation, incarnation=found)
        context.incarnation = found
