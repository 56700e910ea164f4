"""Deletes executions that ended long ago: by age (`APP_RETENTION_DAYS`) and by number (`APP_RETENTION_COUNT`).

State is a fold of the log, so this sweep writes nothing either: it appends `expired` records, oldest end first, and
`decide` deletes. A record that got lost is appended again by a later step; a copy finds nothing to delete.

Two rules keep what was accepted from being taken for a late copy of what was deleted (see `decide`):

* Nothing goes within LATE_MS after its end, whatever the settings say.
* Nothing goes that ended after a command was accepted which is still to be folded. After an outage of the log, or of
  every orchestrator, the commands that waited meanwhile are therefore folded before anything newer is deleted.

The whole loss of a log changes nothing: what was deleted and what waits lies in Redis, and rolls back together.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from wf_core.store.commands import unpack_command
from wf_core.wire import Expired, encode
from wf_orchestrator.context import Context
from wf_orchestrator.machine.decide import LATE_MS
from wf_orchestrator.partition import Partition

MOST = 500
"""Executions of a partition that one step deletes."""
MOST_WAITING = 500
"""Commands that are looked at for the oldest one: after an outage of the log there may be gigabytes of them."""
_DAY_MS = 86_400_000


class Retention:
    """The sweep. It remembers what it asked for, so that a partition that lags is not asked the same again."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked: dict[int, tuple[Partition, int]] = {}

    async def step(self, partition: Partition) -> None:
        """Appends records about the oldest ended executions of a partition that are not kept any more."""
        context = self._context
        if partition.closed or not partition.live or self._is_under_way(partition):
            return
        now = context.clock.now_ms()
        ended, oldest = await context.queries.retained(partition.keys, now - LATE_MS, MOST)
        doomed = self._choose(ended, oldest, now)
        if doomed:
            waiting = await self._accepted_since(partition)
            doomed = {i: reason for i, reason in doomed.items() if waiting is None or oldest[i] < waiting}
        if not doomed:
            return
        records = [
            encode(Expired(execution=i, ts=now, source=context.id, reason=reason)) for i, reason in doomed.items()
        ]
        offsets = await context.log.append(context.events(partition.number), records)
        self._asked[partition.number] = (partition, offsets[-1])
        for reason, number in Counter(doomed.values()).items():
            context.counters.inc("executions_expired_total", number, reason=reason)

    def _is_under_way(self, partition: Partition) -> bool:
        asked, offset = self._asked.get(partition.number, (None, 0))
        return asked is partition and partition.offset <= offset

    def _choose(self, ended: int, oldest: dict[str, int], now: int) -> dict[str, str]:
        """Of the oldest, by their end, those that go, with the reason. `ended` is the number of all."""
        settings = self._context.settings
        before = now - settings.retention_days * _DAY_MS if settings.retention_days else 0
        kept = -(-settings.retention_count // self._context.partitions)
        surplus = ended - kept if settings.retention_count else 0
        doomed: dict[str, str] = {}
        for place, (execution, end) in enumerate(oldest.items()):
            if end <= before:
                doomed[execution] = "age"
            elif place < surplus:
                doomed[execution] = "count"
            else:
                break
        return doomed

    async def _accepted_since(self, partition: Partition) -> int | None:
        """When the oldest command was accepted that is not folded, Unix ms.

        0, so that nothing is deleted this time, when one cannot be read, and when very many wait.
        """
        names = await self._context.queries.waiting(partition.keys)
        if len(names) > MOST_WAITING:
            return 0
        waiting = await self._context.queries.commands(partition.keys, names)
        try:
            return min((unpack_command(command).ts for command in waiting.values()), default=None)
        except msgspec.MsgspecError:  # the sweep of accepted commands buries it
            return 0
