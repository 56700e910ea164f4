"""Messages that nobody can run go to the dead letters, with the reason, and never stop what comes after them."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from wf_core.broker import topics
from wf_core.broker.protocol import Log, LogUnavailableError, RecordTooLargeError, TopicPartition
from wf_core.metrics import Counters
from wf_core.store.clock import Clock
from wf_core.wire import DeadLetter, encode

log = structlog.get_logger(__name__)

_PAUSE = 0.5
_CUT = 1000


class DeadLetters:
    """Appends to the dead letters."""

    def __init__(self, broker: Log, namespace: str, worker_id: str, clock: Clock, counters: Counters) -> None:
        self._log = broker
        self._target = TopicPartition(topics.dead_letters(namespace), 0)
        self._worker_id = worker_id
        self._clock = clock
        self._counters = counters

    async def bury(self, source: TopicPartition, offset: int, record: bytes, reason: str) -> None:
        """Appends a record, at least once; tries until the log takes it."""
        letter = DeadLetter(
            topic=source.topic,
            partition=source.partition,
            offset=offset,
            reason=reason,
            ts=self._clock.now_ms(),
            source=self._worker_id,
            record=record,
        )
        log.error("dead letter", topic=source.topic, partition=source.partition, offset=offset, reason=reason)
        self._counters.inc("dead_letters_total")
        while True:
            try:
                await self._log.append(self._target, [encode(letter)])
            except RecordTooLargeError:
                letter = msgspec.structs.replace(letter, record=record[:_CUT], reason=f"{reason} (the record is cut)")
            except LogUnavailableError:
                await asyncio.sleep(_PAUSE)
            else:
                return
