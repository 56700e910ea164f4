"""Leases: a fair share of the partitions for every orchestrator that is alive, taken over when one dies."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable

import structlog

from wf_core.failpoints import fail_point
from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Lease
from wf_core.wire import NewerRecordError
from wf_orchestrator import firing, sending, upgrading
from wf_orchestrator.context import TRANSIENT, Context, OutrunError, PartitionLostError, for_each
from wf_orchestrator.crew import Crew
from wf_orchestrator.machine.state import PartitionState
from wf_orchestrator.partition import Partition
from wf_orchestrator.positions import Sent, parse_where
from wf_orchestrator.recovery import Doubts, check_last, settle_offset

log = structlog.get_logger(__name__)

AT_ONCE = 16
"""Partitions that are leased, renewed or released at once."""
STOPPED_SECONDS = 30.0
"""How long a partition that this orchestrator cannot serve is left alone before it is looked at again."""
BALANCE_SECONDS = 0.25
"""Longest time between two looks at who is alive and what is free."""
AFTER_MS = 5
"""How long after a lease has run out it is looked at."""


class Ownership:
    """The partitions of this orchestrator. `changed` is set whenever another set must be read."""

    def __init__(self, context: Context, crew: Crew, begin: Callable[[Partition], None]) -> None:
        """`begin` is called with each partition that is taken; `crew` runs what must not hold others up."""
        self.partitions: dict[int, Partition] = {}
        self.changed = asyncio.Event()
        self.registered = asyncio.Event()
        """Set once the others know of this orchestrator: then a share can be taken."""
        self._context = context
        self._crew = crew
        self._begin = begin
        self._nonces: dict[int, str] = {}
        self._doubts = Doubts()
        self._stopped: dict[int, float] = {}
        """Partition that this orchestrator cannot serve → when it tries again (monotonic clock)."""
        self._given_up: set[int] = set()
        """Partitions that one of the others cannot serve."""
        self._releasing: set[Partition] = set()
        self._newer: set[int] = set()
        self._alive = 1
        self._leaving = False
        self.pause = BALANCE_SECONDS
        """Seconds until the next `balance`: sooner when a lease runs out before."""

    @property
    def share(self) -> int:
        """The most partitions that this orchestrator may hold, besides those that another one cannot serve."""
        return -(-self._context.partitions // self._alive)

    async def beat(self) -> None:
        """Registers this orchestrator and renews every lease. Step of each second."""
        context = self._context
        await context.queries.sync(context.clock)
        now = context.monotonic()
        self._stopped = {number: until for number, until in self._stopped.items() if until > now}
        await context.queries.beat(context.id, context.clock.now_ms(), context.lease_ms, self._stopped)
        context.health.answered("redis")
        self.registered.set()
        context.counters.set("partitions_owned", len(self.partitions))
        for partition in list(self.partitions.values()):
            if partition.incarnation != context.incarnation:
                self.drop(partition, "it was leased under another incarnation of the log")
        await for_each(list(self.partitions.values()), self._renew, at_once=AT_ONCE)

    async def balance(self) -> None:
        """Gives up what is more than the share, takes what is free up to it. Step of every `pause`.

        Who does not beat is not counted from the moment on that its leases run out, and what another one cannot serve
        is taken beyond the share and does not count, so nothing stays free.
        """
        if self._leaving:
            return
        ends = await self._count()
        counted = [p for p in self.partitions.values() if p not in self._releasing and p.number not in self._given_up]
        missing = self.share - len(counted)
        for partition in random.sample(counted, max(0, -missing)):  # aside: a fold may hold one of them for long
            self._releasing.add(partition)
            self._crew.spawn(self._release_aside(partition), f"release {partition.number}")
        if missing > 0 or self._given_up:
            ends += await self._take(max(0, missing))
        self.pause = until_next(ends, self._context.clock.now_ms())

    async def _release_aside(self, partition: Partition) -> None:
        try:
            await self.release(partition)
        except TRANSIENT as error:  # the lease runs out by itself
            self._context.health.failed(error)
        finally:
            self._releasing.discard(partition)

    async def _count(self) -> list[int]:
        """Counts who is alive; when each of the others would be dead, in Unix ms."""
        context = self._context
        heard, self._given_up = await context.queries.alive(context.id, context.clock.now_ms() - context.lease_ms)
        self._alive = 1 + len(heard)
        context.counters.set("orchestrators_alive", self._alive)
        return [ms + context.lease_ms for ms in heard]

    async def _take(self, most: int) -> list[int]:
        """Leases up to `most` partitions, and what others gave up; when the leases of the others' run out, in Unix ms.

        Goes through all that are free: others take theirs at the same moment.
        """
        now, given_up = self._context.monotonic(), self._given_up
        wanted = [
            n
            for n in range(self._context.partitions)
            if n not in self.partitions and self._stopped.get(n, now) <= now and (most or n in given_up)
        ]
        owners = await self._context.queries.owners(wanted)
        now_ms = self._context.clock.now_ms()
        free = [
            n
            for n, owner in owners.items()
            if not owner.nonce or owner.lease <= now_ms or owner.nonce == self._nonces.get(n)
        ]
        random.shuffle(free)
        await for_each([n for n in free if n in given_up], self._lease, at_once=AT_ONCE)
        free = [n for n in free if n not in given_up]
        missing = most
        while free and missing > 0:
            asked, free = free[:missing], free[missing:]
            await for_each(asked, self._lease, at_once=AT_ONCE)
            missing -= sum(n in self.partitions for n in asked)
        return [owner.lease for owner in owners.values()]

    async def _lease(self, number: int) -> None:
        context = self._context
        keys = PartitionKeys.of(context.namespace, number)
        if old := self._nonces.get(number):  # dropped: an APPLY that is under way must find itself fenced
            await context.scripts.release(keys, old)
        nonce = self._nonces[number] = f"{context.id}.{next(context.serial)}"
        lease = await context.scripts.lease(keys, nonce, context.lease_ms)
        if lease is None:
            del self._nonces[number]
            return
        try:
            fail_point("orchestrator.leased")
            partition = await self._open(number, keys, lease)
        except PartitionLostError as error:
            log.warning("partition not taken", partition=number, reason=str(error))
            return
        except TRANSIENT:
            raise
        except Exception:
            log.exception("partition not taken: what Redis holds of it cannot be used", partition=number)
            context.counters.inc("partition_failures_total")
            self._stop(number)
            await self._hand_back(keys, self._nonces.pop(number))
            return
        self.partitions[number] = partition
        self.changed.set()
        self._begin(partition)
        context.counters.inc("leases_total")
        log.debug("partition taken", partition=number, offset=partition.offset, catch_up=partition.catch_up)

    async def _open(self, number: int, keys: PartitionKeys, lease: Lease) -> Partition:
        context = self._context
        end = await context.log.end(context.events(number))
        lease = await settle_offset(context, self._doubts, keys, number, lease, end)
        partition = Partition(
            number=number,
            keys=keys,
            nonce=lease.nonce,
            incarnation=lease.incarnation,
            generation=lease.generation,
            offset=lease.offset,
            catch_up=end,
            state=PartitionState(lease.seq, lease.ts),
            last=lease.last,
            unchecked=bool(lease.last),
        )
        await self._load(partition)
        await upgrading.complete(context, partition)
        await go_live(context, partition)
        return partition

    async def _load(self, partition: Partition) -> None:
        context = self._context
        partition.state.expired = await context.queries.expired(partition.keys)
        await sending.load(context, partition)
        await firing.load(context, partition)
        now = context.monotonic()
        for token, where in (await context.queries.sent(partition.keys)).items():
            partition.sent[token] = Sent(parse_where(where), now)
        partition.sent.look(None, partition.incarnation)

    async def _renew(self, partition: Partition) -> None:
        async with self.contained(partition):
            if partition.lock.locked():  # a long batch must not cost its lease, nor those of the others
                await hold(self._context, partition)
                return
            async with partition.lock:
                if not partition.closed:
                    await renew(self._context, partition)

    @contextlib.asynccontextmanager
    async def contained(self, partition: Partition) -> AsyncIterator[None]:
        """What fails inside costs this partition only. Raises what servers raise that are away.

        A mistake of ours stops the partition for a while, each time with a traceback: whoever has it next may fare
        better, and the others are served in the meantime.
        """
        try:
            yield
        except PartitionLostError as error:
            self.drop(partition, str(error), stop=isinstance(error, OutrunError))
        except NewerRecordError as error:
            self._tell_newer(partition, error)
            await self._give_up(partition, "a newer orchestrator must serve it")
        except TRANSIENT:
            raise
        except Exception as error:
            log.exception("a step failed: its partition stands still for a while", partition=partition.number)
            self._context.counters.inc("partition_failures_total")
            await self._give_up(partition, f"{type(error).__name__}: {error}")

    def _tell_newer(self, partition: Partition, error: NewerRecordError) -> None:
        if partition.number not in self._newer:
            self._newer.add(partition.number)
            self._context.counters.inc("newer_records_total")
            log.error(
                "written by a newer version: upgrade this orchestrator; it leaves the partition to others",
                partition=partition.number,
                offset=partition.offset,
                error=str(error),
            )

    async def _give_up(self, partition: Partition, reason: str) -> None:
        """Lets another one have the partition at once, and leaves it alone for a while."""
        if partition.closed:
            return
        self.drop(partition, reason, stop=True)
        await self._hand_back(partition.keys, self._nonces.pop(partition.number, partition.nonce))

    async def _hand_back(self, keys: PartitionKeys, nonce: str) -> None:
        with contextlib.suppress(*TRANSIENT):  # the lease runs out by itself
            await self._context.scripts.release(keys, nonce)

    def drop(self, partition: Partition, reason: str, *, stop: bool = False) -> None:
        """Lets go of a partition whose memory cannot be trusted; `balance` leases it again. `stop`: not so soon."""
        if partition.closed:
            return
        partition.close()
        self.partitions.pop(partition.number, None)
        self._context.executions.forget(partition.number)
        self.changed.set()
        self._context.counters.inc("partitions_dropped_total")
        if stop:
            self._stop(partition.number)
        log.warning("partition dropped", partition=partition.number, reason=reason, offset=partition.offset)

    async def check_last(self, partition: Partition, record: bytes) -> None:
        """Whether the record before the offset is still the one that was folded there. See `recovery.check_last`."""
        await check_last(self._context, self._doubts, partition, record)

    def _stop(self, number: int) -> None:
        self._stopped[number] = self._context.monotonic() + STOPPED_SECONDS

    async def release(self, partition: Partition) -> None:
        """Gives a partition back between two batches, so that another one can take it at once."""
        async with partition.flushing, partition.lock:  # in this order: a flush may wait for the lock
            if partition.closed:
                return
            partition.close()
            self.partitions.pop(partition.number, None)
            self._context.executions.forget(partition.number)
            self.changed.set()
            nonce = self._nonces.pop(partition.number, partition.nonce)
            await self._context.scripts.release(partition.keys, nonce)
            log.debug("partition released", partition=partition.number, offset=partition.offset)

    async def leave(self) -> None:
        """Gives everything back and takes no more. Errors of servers are ignored: leases run out by themselves."""
        self._leaving = True
        try:
            await self._context.queries.leave(self._context.id)
            await for_each(list(self.partitions.values()), self.release, at_once=AT_ONCE)
            for number, nonce in list(self._nonces.items()):  # leases that were not used yet
                await self._context.scripts.release(PartitionKeys.of(self._context.namespace, number), nonce)
        except TRANSIENT as error:
            log.warning("left without releasing everything", error=str(error))


async def renew(context: Context, partition: Partition) -> None:
    """Renews the lease; the partition's lock must be held.

    Raises PartitionLostError when another owner has it, and when Redis stores another offset than ours: it rolled
    back, so what we remember is ahead of it.
    """
    caught_up = partition.caught_up
    stored = await context.scripts.renew(
        partition.keys, partition.nonce, context.lease_ms, partition.offset, live=caught_up
    )
    if stored is None:
        raise PartitionLostError("another owner has it")
    if stored != partition.offset:
        context.counters.inc("rewinds_total")
        raise PartitionLostError(f"Redis rolled back: it stores offset {stored}, not {partition.offset}")
    if caught_up and not partition.live:
        partition.live = True
        partition.outbox.wake.set()


async def hold(context: Context, partition: Partition) -> None:
    """Renews the lease of a partition that is being folded: nothing but the lease, the APPLY checks the rest.

    Not for ever: `batches.process` gives up a fold that hangs.
    """
    if await context.scripts.renew(partition.keys, partition.nonce, context.lease_ms, None) is None:
        raise PartitionLostError("another owner has it")


async def go_live(context: Context, partition: Partition) -> None:
    """Tells Redis, as soon as it is so, that this owner has caught up. The partition's lock must be held."""
    if partition.caught_up and not partition.live:
        await renew(context, partition)


def until_next(ends: Iterable[int], now_ms: int) -> float:
    """Seconds until the first of `ends` (Unix ms) that is still to come, BALANCE_SECONDS at most."""
    coming = min((end for end in ends if end > now_ms), default=None)
    return BALANCE_SECONDS if coming is None else min(BALANCE_SECONDS, (coming - now_ms + AFTER_MS) / 1000)
