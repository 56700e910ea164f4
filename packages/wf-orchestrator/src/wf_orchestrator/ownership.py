"""Leases: a fair share of the partitions for every orchestrator that is alive, taken over when one dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from wf_core.store.keys import PartitionKeys
from wf_orchestrator import firing, sending
from wf_orchestrator.context import TRANSIENT, Context, PartitionLostError, for_each
from wf_orchestrator.machine.state import PartitionState
from wf_orchestrator.partition import Partition
from wf_orchestrator.positions import Sent, parse_where
from wf_orchestrator.recovery import Doubts, settle_offset

log = structlog.get_logger(__name__)

AT_ONCE = 8
"""Partitions that are leased, renewed or released at once."""
STOPPED_SECONDS = 30.0
"""How long a partition whose log lost its beginning is left alone before it is looked at again."""


class Ownership:
    """The partitions of this orchestrator. `changed` is set whenever another set must be read."""

    def __init__(self, context: Context, spawn: Callable[[Partition], None]) -> None:
        self.partitions: dict[int, Partition] = {}
        self.changed = asyncio.Event()
        self.counted = asyncio.Event()
        """Set once the orchestrators that are alive were counted: then a share can be taken."""
        self._context = context
        self._spawn = spawn
        self._nonces: dict[int, str] = {}
        self._doubts = Doubts()
        self._stopped: dict[int, float] = {}
        self._alive = 1
        self._leaving = False

    @property
    def share(self) -> int:
        """The most partitions that this orchestrator may hold."""
        return -(-self._context.partitions // self._alive)

    async def beat(self) -> None:
        """Registers this orchestrator, counts the others, renews every lease. Step of each second."""
        context = self._context
        await context.queries.sync(context.clock)
        alive_ms = context.lease_ms
        self._alive = await context.queries.beat(context.id, context.clock.now_ms(), alive_ms)
        context.health.answered("redis")
        context.counters.set("orchestrators_alive", self._alive)
        self.counted.set()
        context.counters.set("partitions_owned", len(self.partitions))
        for partition in list(self.partitions.values()):
            if partition.incarnation != context.incarnation:
                self.drop(partition, "it was leased under another incarnation of the log")
        await for_each(list(self.partitions.values()), self._renew, at_once=AT_ONCE)

    async def balance(self) -> None:
        """Gives up what is more than the share, takes what is free up to it. Step of every quarter second."""
        if self._leaving:
            return
        surplus = len(self.partitions) - self.share
        if surplus > 0:
            leaving = random.sample(list(self.partitions.values()), surplus)
            await for_each(leaving, self.release, at_once=AT_ONCE)
        elif surplus < 0:
            await self._take(-surplus)

    async def _take(self, most: int) -> None:
        now = self._context.monotonic()
        wanted = [
            n for n in range(self._context.partitions) if n not in self.partitions and self._stopped.get(n, now) <= now
        ]
        owners = await self._context.queries.owners(wanted)
        now_ms = self._context.clock.now_ms()
        free = [
            n
            for n, owner in owners.items()
            if not owner.nonce or owner.lease <= now_ms or owner.nonce == self._nonces.get(n)
        ]
        random.shuffle(free)
        await for_each(free[:most], self._lease, at_once=AT_ONCE)

    async def _lease(self, number: int) -> None:
        context = self._context
        keys = PartitionKeys.of(context.namespace, number)
        nonce = self._nonces.setdefault(number, f"{context.id}.{next(context.serial)}")
        lease = await context.scripts.lease(keys, nonce, context.lease_ms)
        if lease is None:
            del self._nonces[number]
            return
        try:
            end = await context.log.end(context.events(number))
            lease = await settle_offset(context, self._doubts, keys, number, lease, end)
            partition = Partition(
                number=number,
                keys=keys,
                nonce=nonce,
                incarnation=lease.incarnation,
                generation=lease.generation,
                offset=lease.offset,
                catch_up=end,
                state=PartitionState(lease.seq, lease.ts),
            )
            await self._load(partition)
            await go_live(context, partition)
        except PartitionLostError as error:
            log.warning("partition not taken", partition=number, reason=str(error))
            return
        self.partitions[number] = partition
        self.changed.set()
        self._spawn(partition)
        context.counters.inc("leases_total")
        log.debug("partition taken", partition=number, offset=partition.offset, catch_up=end)

    async def _load(self, partition: Partition) -> None:
        context = self._context
        await sending.load(context, partition)
        await firing.load(context, partition)
        now = context.monotonic()
        for token, where in (await context.queries.sent(partition.keys)).items():
            partition.sent[token] = Sent(parse_where(where), now)

    async def _renew(self, partition: Partition) -> None:
        try:
            if partition.lock.locked():  # a long batch must not cost its lease, nor those of the others
                await hold(self._context, partition)
                return
            async with partition.lock:
                if not partition.closed:
                    await renew(self._context, partition)
        except PartitionLostError as error:
            self.drop(partition, str(error))

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
            self._stopped[partition.number] = self._context.monotonic() + STOPPED_SECONDS
        log.warning("partition dropped", partition=partition.number, reason=reason, offset=partition.offset)

    async def release(self, partition: Partition) -> None:
        """Gives a partition back between two batches, so that another one can take it at once."""
        async with partition.lock, partition.flushing:
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
    stored = await context.scripts.renew(partition.keys, partition.nonce, context.lease_ms, caught_up)
    if stored is None:
        raise PartitionLostError("another owner has it")
    if stored != partition.offset:
        context.counters.inc("rewinds_total")
        raise PartitionLostError(f"Redis rolled back: it stores offset {stored}, not {partition.offset}")
    if caught_up and not partition.live:
        partition.live = True
        partition.outbox.wake.set()


async def hold(context: Context, partition: Partition) -> None:
    """Renews the lease of a partition that is being folded: nothing but the lease, the APPLY checks the rest."""
    if await context.scripts.renew(partition.keys, partition.nonce, context.lease_ms, False) is None:
        raise PartitionLostError("another owner has it")


async def go_live(context: Context, partition: Partition) -> None:
    """Tells Redis, as soon as it is so, that this owner has caught up. The partition's lock must be held."""
    if partition.caught_up and not partition.live:
        await renew(context, partition)
