"""What an operator watches: how far behind the owned partitions are, what waits for whom, and what is stuck.

Each process shows the sums over the partitions that it owns, so the sums over all processes are the installation's.
Ages are those that the present owner has seen on its own clock: they begin at 0 again when a partition moves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import structlog

from wf_core.broker import topics
from wf_orchestrator.backlogs import Backlog
from wf_orchestrator.context import Context, for_each
from wf_orchestrator.partition import Partition

log = structlog.get_logger(__name__)

STUCK_SECONDS = 60.0
"""An execution that nothing moves is stuck when it stood unchanged for so long."""
AT_ONCE = 8
"""Partitions whose ends are asked for at once."""
_NAMED = 5

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "accepted_again_total": "Accepted commands that were appended again, as they did not reach the log.",
        "accepted_oldest_seconds": "How long the oldest accepted command waits to be folded.",
        "accepted_waiting": "Commands that were accepted and are not folded.",
        "apply_total": "Batches written to Redis, by the answer; all but OK and DUP lead to a new lease.",
        "attempts_in_flight": "Attempts that were dispatched and have not ended.",
        "cache_lookups_total": "Nodes with `cache` whose key was looked up, by what was found.",
        "crashes_total": "Events that crashed the machine; each failed its execution with InternalError.",
        "dead_letters_total": "Records that went to the dead letters.",
        "decisions_total": "Verdicts of retry policies.",
        "dispatched_total": "Task messages that were sent.",
        "events_total": "Records that were folded.",
        "executions_ended": "Executions that have ended and are kept.",
        "executions_expired_total": "Executions that retention asked to delete, by the reason.",
        "executions_live": "Executions that have not ended.",
        "executions_loaded_total": "Executions that were read from Redis, as they were not in memory.",
        "free_slots": "Free slots of live workers, of all of them, as this orchestrator last heard.",
        "leases_total": "Partitions that were taken.",
        "log_lost_total": "Partitions that found another log than before.",
        "log_tail_lost_total": "Partitions whose log had lost records that were folded.",
        "lost_total": "Attempts that sweeps declared lost, by the reason.",
        "newer_records_total": "Partitions left to a newer release, which wrote what this one cannot read.",
        "oldest_unclaimed_seconds": "How long the oldest message was sent that no worker has claimed.",
        "orchestrators_alive": "Orchestrators that beat.",
        "outbox_resurrected_total": "Messages sent again, as Redis forgot that they were sent.",
        "outbox_waiting": "Messages that are to be sent.",
        "partition_failures_total": "Partitions that were stopped for a while by a mistake of ours.",
        "partition_lag_events": "Records in the log that are not folded.",
        "partition_lag_events_max": "Records in the log that are not folded, of the partition that has most.",
        "partitions_dropped_total": "Partitions that were let go because their memory could not be trusted.",
        "partitions_owned": "Partitions that this orchestrator has leased.",
        "rewinds_total": "Roll-backs of Redis that were noticed at the renewal of a lease.",
        "server_up": "Whether the server answers: 1 or 0.",
        "stuck_executions": "Running executions that nothing will move any more.",
        "timers_fired_total": "Timers that became records.",
        "timers_overdue_seconds": "How long the oldest timer is due that did not lead to anything.",
        "unavailable_total": "Steps that found a server away.",
        "unclaimed": "Messages that were sent and that no worker has claimed.",
    }
)
"""Every number of an orchestrator, in a sentence."""


class Gauges:
    """Measures. `owned` gives the partitions of the moment."""

    def __init__(self, context: Context, owned: Callable[[], Collection[Partition]]) -> None:
        self._context = context
        self._owned = owned
        self._waiting: dict[str, float] = {}
        self._motionless: dict[str, tuple[str, float]] = {}
        self._stuck: list[str] = []

    async def measure(self) -> None:
        """Sets the gauges. Step of every 5 s; costs two round trips, the claims, and the end of every partition."""
        context, counters = self._context, self._context.counters
        for server in ("redis", "log"):
            counters.set("server_up", float(server not in context.health.away), server=server)
        partitions = list(self._owned())
        backlogs = await context.queries.backlogs.measure([p.keys for p in partitions], context.clock.now_ms())
        for name, number in _sums(backlogs).items():
            counters.set(name, number)
        for name, label, values in (
            ("executions_live", "status", sum((Counter(b.live) for b in backlogs), Counter(PENDING=0, RUNNING=0))),
            ("outbox_waiting", "queue", sum((Counter(b.outbox) for b in backlogs), Counter())),
            ("free_slots", "queue", context.credits.room.free),
        ):
            counters.replace(name, label, values)
        self._measure_unclaimed(partitions, backlogs)
        counters.set("accepted_oldest_seconds", self._oldest_accepted(partitions))
        overdue = max((context.clock.now_ms() - b.timer_ms for b in backlogs if b.timer_ms), default=0)
        counters.set("timers_overdue_seconds", max(0, overdue) / 1000)
        await self._measure_lag(partitions)

    def _measure_unclaimed(self, partitions: list[Partition], backlogs: list[Backlog]) -> None:
        now = self._context.monotonic()
        prefix = len(topics.tasks(self._context.namespace, ""))
        numbers: Counter[str] = Counter()
        ages: defaultdict[str, float] = defaultdict(float)
        for partition, backlog in zip(partitions, backlogs, strict=True):
            for queue in backlog.outbox:
                ages[queue] += 0
                numbers[queue] += 0
            for token, sent in partition.sent.items():
                if token not in backlog.claimed:
                    queue = sent.where.source.topic[prefix:]
                    ages[queue] = max(ages[queue], now - sent.since)
                    numbers[queue] += 1
        self._context.counters.replace("oldest_unclaimed_seconds", "queue", ages)
        self._context.counters.replace("unclaimed", "queue", numbers)

    def _oldest_accepted(self, partitions: list[Partition]) -> float:
        now, known = self._context.monotonic(), self._waiting
        self._waiting = {name: known.get(name, now) for p in partitions for name in p.watch.accepted}
        return now - min(self._waiting.values(), default=now)

    async def _measure_lag(self, partitions: list[Partition]) -> None:
        lags: list[int] = []

        async def one(partition: Partition) -> None:
            end = await self._context.log.end(self._context.events(partition.number))
            lags.append(max(0, end - partition.offset))

        await for_each(partitions, one, at_once=AT_ONCE)
        self._context.counters.set("partition_lag_events", sum(lags))
        self._context.counters.set("partition_lag_events_max", max(lags, default=0))

    async def look_for_stuck(self) -> None:
        """Finds what nothing will ever move, and says so when that changes. Step of every 30 s; costs all that lives.

        A running execution has an attempt in flight (so it is in the outbox, sent, or claimed) or a timer. One that
        has neither, and whose history has not grown for a minute, stands still for good: a mistake of ours.
        """
        now, seen = self._context.monotonic(), dict[str, tuple[str, float]]()
        for partition in list(self._owned()):
            if partition.live and not partition.closed:
                for execution, last in (await self._context.queries.motionless(partition.keys)).items():
                    known = self._motionless.get(execution)
                    seen[execution] = known if known and known[0] == last else (last, now)
        self._motionless = seen
        stuck = sorted(execution for execution, (_, since) in seen.items() if now - since >= STUCK_SECONDS)
        self._context.counters.set("stuck_executions", len(stuck))
        if stuck != self._stuck:
            self._stuck = stuck
            log.warning(
                "executions are stuck: nothing will move them" if stuck else "no execution is stuck any more",
                number=len(stuck),
                executions=stuck[:_NAMED],
            )


def _sums(backlogs: list[Backlog]) -> dict[str, int]:
    return {
        "accepted_waiting": sum(b.accepted for b in backlogs),
        "attempts_in_flight": sum(b.in_flight for b in backlogs),
        "executions_ended": sum(b.ended for b in backlogs),
    }
