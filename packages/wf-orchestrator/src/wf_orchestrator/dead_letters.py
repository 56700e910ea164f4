"""Records that nobody can use go to the topic `wf.dlq`, with the reason, and never stop what comes after them."""

from __future__ import annotations

import msgspec
import structlog

from wf_core.broker import topics
from wf_core.broker.protocol import RecordTooLargeError, TopicPartition
from wf_core.wire import DeadLetter, encode
from wf_orchestrator.context import Context

log = structlog.get_logger(__name__)


async def bury(context: Context, partition: int, offset: int | None, record: bytes, reason: str) -> None:
    """Appends a record to the dead letters (at least once). Raises LogUnavailableError: try again."""
    target = TopicPartition(topics.dead_letters(context.namespace), 0)
    letter = DeadLetter(
        topic=topics.events(context.namespace),
        partition=partition,
        offset=offset,
        reason=reason,
        ts=context.clock.now_ms(),
        source=context.id,
        record=record,
    )
    log.error("dead letter", partition=partition, offset=offset, reason=reason)
    context.counters.inc("dead_letters_total")
    try:
        await context.log.append(target, [encode(letter)])
    except RecordTooLargeError:
        cut = msgspec.structs.replace(letter, record=record[:1000], reason=f"{reason} (the record is cut)")
        await context.log.append(target, [encode(cut)])
