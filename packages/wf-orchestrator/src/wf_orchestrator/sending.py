"""Sends the outbox to the task topics, at least once, and takes out of it what was sent.

A copy is harmless, since CLAIM lets one through.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from wf_core import ids
from wf_core.broker import topics
from wf_core.broker.protocol import RecordTooLargeError, TopicPartition
from wf_core.errors import SetupError
from wf_core.failpoints import fail_point
from wf_core.wire import Event, Failure, Unsendable
from wf_orchestrator.context import TRANSIENT, Context, PartitionLostError
from wf_orchestrator.outbox import WINDOW
from wf_orchestrator.partition import Partition
from wf_orchestrator.positions import Sent, Where
from wf_orchestrator.queries import OutboxEntry

log = structlog.get_logger(__name__)

MOST = 500
"""Entries that are sent before they are taken out of Redis' outbox."""
AT_ONCE = 8
"""Appends under way at once per partition."""
LANES = 64
"""Task partitions of a queue among which the next message has a choice."""


@dataclass(slots=True)
class Sending:
    """What became of a group of entries."""

    sent: list[tuple[OutboxEntry, Where]] = field(default_factory=list)
    refused: list[tuple[OutboxEntry, str]] = field(default_factory=list)
    unsent: list[OutboxEntry] = field(default_factory=list)
    error: Exception | None = None


class Sender:
    """Appends task messages, each to the task partition in which the fewest lie that have not ended.

    So none are added where they are stuck behind a worker whose slots are taken. Among equals in turn. Shared by all
    partitions.
    """

    def __init__(self, context: Context, start: int | None = None) -> None:
        self._context = context
        self._next = random.randrange(context.task_partitions) if start is None else start
        self._ensured: set[str] = set()
        self._lanes: dict[str, list[TopicPartition]] = {}
        """Task partitions by queue."""
        self._incarnation = context.incarnation

    async def send(self, entries: Sequence[OutboxEntry], load: Mapping[TopicPartition, int]) -> Sending:
        """Appends every entry or says why not; raises nothing that a server's absence causes.

        `load`: how many messages that were sent to a task partition have not ended.
        """
        result = Sending()
        groups = self._spread(entries, load)
        gate = asyncio.Semaphore(AT_ONCE)
        incarnation = self._context.incarnation  # noted before the send: a later one would hide a loss
        if incarnation != self._incarnation:  # another log, without the topics of the old one
            self._ensured.clear()
            self._incarnation = incarnation

        async def one(target: TopicPartition, group: list[OutboxEntry]) -> None:
            async with gate:
                await self._append(result, target, group, incarnation)

        for topic in {target.topic for target in groups}:
            await self._ensure(
                topic, [e for target, group in groups.items() if target.topic == topic for e in group], result
            )
        await asyncio.gather(*(one(*item) for item in groups.items() if item[0].topic in self._ensured))
        return result

    def _spread(
        self, entries: Sequence[OutboxEntry], load: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, list[OutboxEntry]]:
        groups: defaultdict[TopicPartition, list[OutboxEntry]] = defaultdict(list)
        heaps: dict[str, list[tuple[int, int, TopicPartition]]] = {}
        for entry in entries:
            heap = heaps.get(entry.queue)
            if heap is None:
                heap = heaps[entry.queue] = self._emptiest(entry.queue, load)
            messages, turn, lane = heap[0]
            groups[lane].append(entry)
            heapq.heapreplace(heap, (messages + 1, turn, lane))
        self._next = (self._next + len(entries)) % self._context.task_partitions
        return groups

    def _emptiest(self, queue: str, load: Mapping[TopicPartition, int]) -> list[tuple[int, int, TopicPartition]]:
        """A heap of task partitions with what lies in them, those whose turn it is before their equals."""
        lanes = self._lanes.get(queue)
        if lanes is None:
            topic = topics.tasks(self._context.namespace, queue)
            lanes = self._lanes[queue] = [TopicPartition(topic, n) for n in range(self._context.task_partitions)]
        in_turn = [*lanes[self._next :], *lanes[: self._next]][:LANES]
        heap = [(load.get(lane, 0), turn, lane) for turn, lane in enumerate(in_turn)]
        heapq.heapify(heap)
        return heap

    async def _ensure(self, topic: str, entries: list[OutboxEntry], result: Sending) -> None:
        if topic in self._ensured:
            return
        try:
            await self._context.log.ensure_topics({topic: self._context.task_partitions})
            self._ensured.add(topic)
        except SetupError as error:
            result.refused += [(entry, str(error)) for entry in entries]
        except TRANSIENT as error:
            result.error = error
            result.unsent += entries

    async def _append(
        self, result: Sending, target: TopicPartition, entries: list[OutboxEntry], incarnation: str
    ) -> None:
        try:
            offsets = await self._context.log.append(target, [entry.message for entry in entries])
        except RecordTooLargeError as error:
            if len(entries) == 1:
                result.refused.append((entries[0], str(error)))
                return
            for entry in entries:  # one of them is the culprit; the others must not wait for it
                await self._append(result, target, [entry], incarnation)
        except TRANSIENT as error:
            self._ensured.discard(target.topic)
            result.error = error
            result.unsent += entries
        else:
            for entry, offset in zip(entries, offsets, strict=True):
                result.sent.append((entry, Where(target, offset, incarnation)))


async def load(context: Context, partition: Partition) -> None:
    """Fills the windows from Redis, everything in them as unsent: at the lease, and when one has run short.

    Between two batches: what ends while it is being read would come back.
    """
    async with partition.lock:
        partition.outbox.read(*await context.queries.outbox(partition.keys, WINDOW))


async def flush(context: Context, sender: Sender, partition: Partition) -> bool:
    """Sends the first entries, as far as credits go, and takes them out of Redis' outbox. True when more may be sent.

    Raises PartitionLostError when another owner has taken over, and what the servers raise when they are away.
    """
    async with partition.flushing:
        if partition.closed or not partition.live:
            return False
        if partition.outbox.is_short:
            await load(context, partition)
        if not (entries := context.credits.take(partition, MOST)):
            context.credits.arrived(partition)
            if not (entries := context.credits.take(partition, MOST)):
                return False
        try:
            sending = await sender.send(entries, partition.sent.lanes)
            fail_point("orchestrator.produced")
            await _settle(context, partition, sending)
        except BaseException:
            context.credits.again(partition, entries)
            raise
        context.credits.again(partition, sending.unsent)
        if sending.error:
            raise sending.error
        return partition.outbox.may_send


async def _settle(context: Context, partition: Partition, sending: Sending) -> None:
    if sending.sent:
        trimmed = [(entry.token, entry.queue, str(where)) for entry, where in sending.sent]
        if not await context.scripts.trim(partition.keys, partition.nonce, trimmed):
            raise PartitionLostError("TRIM was fenced")
        fail_point("orchestrator.trimmed")
        now = context.monotonic()
        for entry, where in sending.sent:
            if partition.outbox.holds(entry):
                partition.sent[entry.token] = Sent(where, now)
            partition.outbox.discard(entry.token)
        context.counters.inc("dispatched_total", len(sending.sent))
    if sending.refused:
        await context.append(partition.number, [_unsendable(context, entry, why) for entry, why in sending.refused])
        for entry, why in sending.refused:
            partition.outbox.discard(entry.token)  # a re-scan tries again should the record get lost
            log.error("a task message cannot be sent", token=entry.token, queue=entry.queue, reason=why)


def _unsendable(context: Context, entry: OutboxEntry, why: str) -> Event:
    execution, node, attempt = ids.split_token(entry.token)
    message = f"the message of {len(entry.message):,} bytes to queue {entry.queue!r} was refused: {why}"
    return Unsendable(
        execution=execution,
        ts=context.clock.now_ms(),
        source=context.id,
        node=node,
        attempt=attempt,
        error=Failure(type="MessageRefusedError", message=message, fatal=True),
    )


async def rescan(context: Context, partition: Partition) -> None:
    """Sends again what Redis' outbox holds although it was sent: a roll-back forgot it. Step of every 3 s.

    Counts first: while Redis holds as many entries as are known here, nothing is read.
    """
    async with partition.flushing, partition.lock:  # as in `load`, and what is on its way must have arrived
        if partition.closed or not partition.live:
            return
        known = partition.outbox.known()
        counts = await context.queries.outbox_counts(partition.keys, {q: horizon for q, (horizon, _) in known.items()})
        if counts == {queue: count for queue, (_, count) in known.items()}:
            partition.outbox.resurrected([])
            return
        found, _ = await context.queries.outbox(partition.keys, WINDOW)
        if entries := partition.outbox.resurrected(found):
            log.warning("outbox entries are back, sending again", partition=partition.number, entries=len(entries))
            context.counters.inc("outbox_resurrected_total", len(entries))
            for entry in entries:
                partition.sent.pop(entry.token, None)
            partition.outbox.add(entries)
            context.credits.arrived(partition)
