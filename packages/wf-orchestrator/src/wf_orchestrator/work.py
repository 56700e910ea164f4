"""The tasks of a running orchestrator: what is repeated, how often, and what happens when a step fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from wf_orchestrator import firing, recovery, sending, sweeps, trimming
from wf_orchestrator.context import TRANSIENT, Context, every, for_each
from wf_orchestrator.crew import Crew
from wf_orchestrator.gauges import Gauges
from wf_orchestrator.loop import Loop
from wf_orchestrator.ownership import Ownership
from wf_orchestrator.partition import Partition
from wf_orchestrator.retention import Retention
from wf_orchestrator.sending import Sender
from wf_orchestrator.timers import STEP_MS

ROOM, SWEEPS, RESCAN, INCARNATION, GAUGES, RETENTION, STUCK, RARELY = 0.25, 2.0, 3.0, 5.0, 5.0, 10.0, 30.0, 60.0
"""Seconds between two steps."""
BEATS_PER_LEASE = 2.5
"""How often a lease is renewed before it would run out: each second, as it lasts 2.5 s."""
LONGEST_BEAT_PAUSE = 0.4
"""Seconds between two beats, or looks at what is free, while Redis is away: once it is back, claims wait for both."""
SWEEPS_PER_DEATH = 10
"""How often claims are looked at within a death time of 2.5 s: each 0.25 s, so a loss is told after 2.8 s at most."""
ENDS_EVERY = 5
"""How often the orphan sweep asks the log for the ends of task partitions: every so many times."""
DRAIN_SECONDS = 5.0
AT_ONCE = 8
"""Partitions that a step visits at once."""

Step = Callable[[Partition], Awaitable[object]]


class Work:
    """Everything that runs besides the caller.

    A step for one partition that fails, other than for a server that is away, stops that partition; any other ends it
    all.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sender = Sender(context)
        self._crew = Crew()
        self.ownership = Ownership(context, self._crew, self._begin_outbox)
        self._loop = Loop(context, self.ownership)
        self._retention = Retention(context)
        self._gauges = Gauges(context, self.ownership.partitions.values)
        self._sweeps = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then lets go of every partition between two batches."""
        self._begin()
        try:
            await self._crew.watch(stop)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self.ownership.leave()
        finally:
            await self._crew.end()
            await self._loop.close()

    def _begin(self) -> None:
        context, crew = self._context, self._crew
        crew.spawn(self._loop.run(), "loop")
        renewal = context.settings.lease_seconds / BEATS_PER_LEASE
        crew.spawn(every(context, renewal, self.ownership.beat, longest=LONGEST_BEAT_PAUSE), "beat")
        crew.spawn(self._balance(), "balance")
        crew.spawn(every(context, STEP_MS / 1000, self.fire_timers, wake=context.alarm.rings), "timers")
        for name, seconds, step in (
            ("room", ROOM, self.look_for_room),
            ("dead", context.settings.death_seconds / SWEEPS_PER_DEATH, self.sweep_dead),
            ("timers again", context.settings.death_seconds / SWEEPS_PER_DEATH, self.refresh_timers),
            ("sweeps", SWEEPS, self.sweep),
            ("rescan", RESCAN, self.rescan),
            ("incarnation", INCARNATION, self.look_at_incarnation),
            ("gauges", GAUGES, self._gauges.measure),
            ("stuck", STUCK, self._gauges.look_for_stuck),
            ("retention", RETENTION, self.expire),
            ("rarely", RARELY, self.tidy),
        ):
            crew.spawn(every(context, seconds, step), name)

    async def fire_timers(self) -> None:
        """What is due becomes a record."""
        now_ms = self._context.clock.now_ms()
        due = [p for p in self.ownership.partitions.values() if p.live and p.timers.waits(now_ms)]
        if due:
            await self._each(lambda partition: firing.fire(self._context, partition), due)

    async def look_for_room(self) -> None:
        """How many free slots workers have, and what waits at the other owners."""
        context, now_ms = self._context, self._context.clock.now_ms()
        room = await context.queries.backlogs.exchange(
            context.id,
            context.credits.backlog(),
            owners_since=now_ms - context.lease_ms,
            workers_since=now_ms - round(context.settings.death_seconds * 1000),
        )
        context.credits.heed(room)

    async def refresh_timers(self) -> None:
        """Timers that come into reach are read."""
        await self._each(lambda partition: firing.refresh(self._context, partition))

    async def sweep_dead(self) -> None:
        """Attempts whose worker is silent are lost; what is claimed waits in no topic any more."""
        seen = await sweeps.look(self._context, list(self.ownership.partitions.values()))
        for number, claims in seen.claims.items():
            if (partition := self.ownership.partitions.get(number)) is not None:
                partition.sent.look(claims.holders, self._context.incarnation)
        self._context.credits.survey()
        await self._each(lambda partition: sweeps.dead(self._context, partition, seen))

    async def sweep(self) -> None:
        """Messages that were passed, and commands that never reached the log."""
        self._sweeps += 1
        ends = self._sweeps % ENDS_EVERY == 0
        await self._each(lambda partition: sweeps.orphans(self._context, partition, look_at_ends=ends))
        await self._each(lambda partition: sweeps.accepted(self._context, partition))

    async def rescan(self) -> None:
        """Outbox entries that a roll-back of Redis brought back."""
        await self._each(lambda partition: sending.rescan(self._context, partition))

    async def look_at_incarnation(self) -> None:
        """Whether the log is still the same."""
        await recovery.look_at_incarnation(self._context)

    async def expire(self) -> None:
        """Executions that ended long ago are deleted."""
        await self._each(self._retention.step)

    async def tidy(self) -> None:
        """What only grows is cut."""
        await self._each(lambda partition: sweeps.prune(self._context, partition))
        await self._each(lambda partition: trimming.trim(self._context, partition))

    async def run_outbox(self, partition: Partition) -> None:
        """Sends what the partition's outbox holds, until the partition is let go."""
        delay = 0.0
        while not partition.closed:
            partition.outbox.wake.clear()
            more = True
            async with self.ownership.contained(partition):
                try:
                    more = await sending.flush(self._context, self._sender, partition)
                    delay = 0.0
                except TRANSIENT as error:
                    self._context.health.failed(error)
                    delay = min(2.0, max(0.1, 2 * delay))
                    await self._context.sleep(delay)
            if not more:
                await partition.outbox.wake.wait()

    async def _balance(self) -> None:
        await self.ownership.registered.wait()
        ownership = self.ownership
        await every(self._context, lambda: ownership.pause, ownership.balance, longest=LONGEST_BEAT_PAUSE)

    async def _each(self, step: Step, partitions: list[Partition] | None = None) -> None:
        async def one(partition: Partition) -> None:
            async with self.ownership.contained(partition):
                await step(partition)

        chosen = list(self.ownership.partitions.values()) if partitions is None else partitions
        await for_each(chosen, one, at_once=AT_ONCE)

    def _begin_outbox(self, partition: Partition) -> None:
        self._context.credits.join(partition)
        self._crew.spawn(self.run_outbox(partition), f"outbox {partition.number}")
