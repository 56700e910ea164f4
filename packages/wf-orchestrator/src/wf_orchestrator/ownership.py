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
from wf_orchestrator.context import TRANSIENT, Context, PartitionLostError, for_each
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
LEFT_SECONDS = 5.0
"""How long a partition stands free before one takes it that has its share: those that have room cannot serve it."""
AFTER_MS = 5
"""How long after a lease has run out it is looked at."""


class Ownership:
    """The partitions of this orchestrator. `changed` is set whenever another set must be read."""

    def __init__(self, context: Context, spawn: Callable[[Partition], None]) -> None:
        self.partitions: dict[int, Partition] = {}
        self.changed = asyncio.Event()
        self.registered = asyncio.Event()
        """Set once the others know of this orchestrator: then a share can be taken."""
        self._context = context
        self._spawn = spawn
        self._nonces: dict[int, str] = {}
        self._doubts = Doubts()
        self._stopped: dict[int, float] = {}
        self._newer: set[int] = set()
        self._free_since: dict[int, float] = {}
        self._adopted: set[int] = set()
        """Partitions beyond the share."""
        self._adopt_at = 0.0
        self._alive = 1
        self._leaving = False
        self.pause = BALANCE_SECONDS
        """Seconds until the next `balance`: sooner when a lease runs out before."""

    @property
    def share(self) -> int:
        """The most partitions that this orchestrator may hold."""
        return -(-self._context.partitions // self._alive)

    async def beat(self) -> None:
        """Registers this orchestrator and renews every lease. Step of each second."""
        context = self._context
        await context.queries.sync(context.clock)
        await context.queries.beat(context.id, context.clock.now_ms(), context.lease_ms)
        context.health.answered("redis")
        self.registered.set()
        context.counters.set("partitions_owned", len(self.partitions))
        for partition in list(self.partitions.values()):
            if partition.incarnation != context.incarnation:
                self.drop(partition, "it was leased under another incarnation of the log")
        await for_each(list(self.partitions.values()), self._renew, at_once=AT_ONCE)

    async def balance(self) -> None:
        """Gives up what is more than the share, takes what is free up to it. Step of every `pause`.

        Who does not beat is not counted from the moment on that its leases run out, so nothing stays free.
        """
        if self._leaving:
            return
        ends = await self._count()
        self._adopted &= self.partitions.keys()
        surplus = len(self.partitions) - len(self._adopted) - self.share
        if surplus > 0:
            leaving = random.sample([p for n, p in self.partitions.items() if n not in self._adopted], surplus)
            await for_each(leaving, self.release, at_once=AT_ONCE)
        elif surplus < 0:
            ends += await self._take(-surplus)
        await self._adopt()
        self.pause = until_next(ends, self._context.clock.now_ms())

    async def _count(self) -> list[int]:
        """Counts who is alive; when each of the others would be dead, in Unix ms."""
        context = self._context
        heard = await context.queries.alive(context.id, context.clock.now_ms() - context.lease_ms)
        self._alive = 1 + len(heard)
        context.counters.set("orchestrators_alive", self._alive)
        return [ms + context.lease_ms for ms in heard]

    async def _take(self, most: int) -> list[int]:
        """Leases up to `most` partitions; when the leases of the others' run out, in Unix ms.

        Goes through all that are free: others take theirs at the same moment.
        """
        free, ends = await self._free()
        random.shuffle(free)
        missing = most
        while free and missing > 0:
            asked, free = free[:missing], free[missing:]
            await for_each(asked, self._lease, at_once=AT_ONCE)
            missing -= sum(n in self.partitions for n in asked)
        return ends

    async def _free(self) -> tuple[list[int], list[int]]:
        """The partitions that nobody holds and that were not given up here, and when leases run out, in Unix ms."""
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
        return free, [owner.lease for owner in owners.values()]

    async def _adopt(self) -> None:
        """Takes, beyond the share, what stands free for long: whoever has room for it has given it up."""
        now = self._context.monotonic()
        if now < self._adopt_at:
            return
        self._adopt_at = now + LEFT_SECONDS / 4
        free, _ = await self._free()
        self._free_since = {n: self._free_since.get(n, now) for n in free}
        left = [n for n, since in self._free_since.items() if now - since >= LEFT_SECONDS]
        await for_each(left, self._lease, at_once=AT_ONCE)
        self._adopted.update(n for n in left if n in self.partitions)

    async def _lease(self, number: int) -> None:
        context = self._context
        keys = PartitionKeys.of(context.namespace, number)
        nonce = self._nonces.setdefault(number, f"{context.id}.{next(context.serial)}")
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
            return
        self.partitions[number] = partition
        self.changed.set()
        self._spawn(partition)
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
            self.drop(partition, str(error))
        except NewerRecordError as error:
            await self._leave_to_newer(partition, error)
        except TRANSIENT:
            raise
        except Exception as error:
            log.exception("a step failed: its partition stands still for a while", partition=partition.number)
            self._context.counters.inc("partition_failures_total")
            self.drop(partition, f"{type(error).__name__}: {error}", stop=True)

    async def _leave_to_newer(self, partition: Partition, error: NewerRecordError) -> None:
        """Lets a newer orchestrator have the partition at once; none of this release can serve it."""
        if partition.number not in self._newer:
            self._newer.add(partition.number)
            self._context.counters.inc("newer_records_total")
            log.error(
                "written by a newer version: upgrade this orchestrator; it leaves the partition to others",
                partition=partition.number,
                offset=partition.offset,
                error=str(error),
            )
        self.drop(partition, "a newer orchestrator must serve it", stop=True)
        nonce = self._nonces.pop(partition.number, partition.nonce)
        with contextlib.suppress(*TRANSIENT):  # the lease runs out by itself
            await self._context.scripts.release(partition.keys, nonce)

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
