"""Reads task messages, claims as many as there are free slots, commits, and starts them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from wf_core import wire
from wf_core.broker.protocol import Batch, Log, LogReader, LogUnavailableError, OffsetOutOfRangeError
from wf_core.failpoints import fail_point
from wf_core.metrics import Counters
from wf_core.settings import Settings
from wf_core.store.client import redis_errors
from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Claimed, Scripts
from wf_core.wire import TaskMessage
from wf_worker.dead_letters import DeadLetters
from wf_worker.lanes import LATER_SECONDS, Lane, Lanes, Waiting
from wf_worker.leases import Leases

_AWAY: tuple[type[Exception], ...] = (LogUnavailableError, *redis_errors)

log = structlog.get_logger(__name__)

_READ_SECONDS = 0.2
_PAUSE = 0.1
_COMMIT_SECONDS = 0.05
"""So long after the first of them claims are committed, with all that follow: a commit costs as much as a claim."""
_LEAST_WAITING = 64
_MOST_LATER = 10
"""So many times more messages may wait, those included whose partition is not live."""
_MOST_SEEN = 50_000
"""Tokens that this worker remembers having taken, each with the `queued_at` of its message."""


class Intake:
    """The way of a message from the log to a slot.

    `free` tells the free slots, `start(token, message, asked)` begins an attempt that was claimed by what was sent at
    `asked` (monotonic). `may_claim` tells whether Redis can be trusted to know the claims, `may_commit` whether it is
    known to be the one that was read from; `doubt` is told when it did not answer, or may have rolled back; `server` is
    its run id, as the last heartbeat found it. Of the events `partitions` are installed.
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        broker: Log,
        scripts: Scripts,
        settings: Settings,
        worker_id: str,
        partitions: int,
        lanes: Lanes,
        leases: Leases,
        dead_letters: DeadLetters,
        counters: Counters,
        free: Callable[[], int],
        may_claim: Callable[[], bool],
        may_commit: Callable[[], bool],
        doubt: Callable[[], None],
        server: Callable[[], str],
        start: Callable[[str, TaskMessage, float], None],
    ) -> None:
        self._log = broker
        self._scripts = scripts
        self._settings = settings
        self._worker_id = worker_id
        self._partitions = partitions
        self._lanes = lanes
        self._leases = leases
        self._dead_letters = dead_letters
        self._counters = counters
        self._free = free
        self._may_claim = may_claim
        self._may_commit = may_commit
        self._doubt = doubt
        self._server = server
        self._start = start
        self._lease_ms = round(settings.lease_seconds * 1000)
        self._most_waiting = max(_LEAST_WAITING, 4 * settings.worker_slots)
        self._seen: dict[str, int] = {}
        self._open = True
        self._claiming = asyncio.Lock()
        self._claimable = asyncio.Event()
        self._again: asyncio.TimerHandle | None = None
        self._committable = asyncio.Event()
        self._readable = asyncio.Event()

    def wake(self) -> None:
        """A slot came free, or lanes changed."""
        if self._lanes.waiting:
            self._claimable.set()
        self._readable.set()

    # --- read

    async def read(self) -> None:
        """Reads for ever what the lanes hold, and no more than may wait."""
        reader = self._log.reader()
        try:
            while True:
                self._readable.clear()
                if not self._lanes or await self._is_full():
                    await self._readable.wait()
                    continue
                try:
                    await self._read(reader)
                except OffsetOutOfRangeError as error:
                    await self._out_of_range(error)
                except LogUnavailableError as error:
                    log.warning("no messages can be read for a moment", error=str(error))
                    self._lanes.changed = True
                    await asyncio.sleep(_PAUSE)
        finally:
            await reader.close()

    async def _is_full(self) -> bool:
        """Whether enough waits. What only waits for its partition's owner does not stop the others, nor pile up."""
        most = _MOST_LATER * self._most_waiting
        if self._lanes.waiting >= most and not await self._shed(most - self._most_waiting):
            return True
        return self._lanes.claimable(asyncio.get_running_loop().time()) >= self._most_waiting

    async def _shed(self, most: int) -> bool:
        """Leaves the oldest messages of partitions that nobody serves to the orphan sweep; whether there were any.

        For the sake of the others only: while no partition is served, all that the log holds would become orphans.
        """
        now, takeover = asyncio.get_running_loop().time(), 2 * self._settings.lease_seconds
        unserved = self._lanes.unserved(takeover, now)
        if not unserved or not await self._is_any_served():
            return False
        if dropped := self._lanes.shed(most, unserved):
            log.warning("messages whose partition nobody serves are left to the orphan sweep", messages=dropped)
            self._committable.set()
        return dropped > 0

    async def _is_any_served(self) -> bool:
        """Asks for a token that nobody has: only a partition that is live knows that."""
        server = self._server()
        for partition in range(self._partitions):
            keys = PartitionKeys.of(self._settings.namespace, partition)
            try:
                if await self._scripts.claim(keys, self._worker_id, [""], [False], [0], server=server) == ["STALE"]:
                    return True
            except redis_errors:
                self._doubt()
                return False
        return False

    async def _read(self, reader: LogReader) -> None:
        if self._lanes.changed:
            self._lanes.changed = False
            reader.assign(self._lanes.positions())
        for batch in await reader.read(_READ_SECONDS, max(1, self._settings.worker_slots)):
            fail_point("worker.read")
            if (lane := self._lanes.lane_of(batch)) is not None:
                await self._take_in(lane, batch)

    async def _take_in(self, lane: Lane, batch: Batch) -> None:
        found: dict[int, Waiting] = {}
        for offset, record in enumerate(batch.records, batch.offset):
            try:
                found[offset] = self._waiting(offset, record)
            except wire.NewerRecordError as error:  # unclaimed, it becomes an orphan, and a newer worker may get it
                log.error("message of a newer release passed by; upgrade this worker", offset=offset, error=str(error))
                self._counters.inc("newer_messages_total")
            except (msgspec.MsgspecError, ValueError) as error:
                await self._dead_letters.bury(batch.source, offset, record, str(error))
        if lane.next_read != batch.offset:  # rewound while something was buried
            return
        self._lanes.put(lane, found)
        lane.next_read = batch.next
        self._claimable.set()
        self._committable.set()

    def _waiting(self, offset: int, record: bytes) -> Waiting:
        found = Waiting.of(offset, wire.decode_task(record))
        if found.partition >= self._partitions:  # nobody would ever serve it
            raise ValueError(f"its execution is of partition {found.partition}, and {self._partitions} are installed")
        return found

    async def _out_of_range(self, error: OffsetOutOfRangeError) -> None:
        """The log lost what we were to read.

        It is another log, or Redis rolled back and the log with it; else reading goes on at the nearest record to what
        was committed, and sweeps find the orphans.
        """
        self._lanes.changed = True
        lane = self._lanes.get(error.source)
        if lane is None:
            return
        position = lane.next_read
        try:
            if await self._leases.look() or not await self._leases.renew(lane):
                return
            begin, end = await self._log.begin(error.source), await self._log.end(error.source)
        except _AWAY:
            self._doubt()
            await asyncio.sleep(_PAUSE)
            return
        if lane.next_read == position:
            onward = min(max(lane.committed, begin), end)
            log.error("a task partition lost messages; reading goes on", error=str(error), offset=onward)
            self._lanes.skip(lane, onward)
            self._committable.set()  # sweeps find what was lost only behind the committed offset

    # --- claim

    async def claim(self) -> None:
        """Claims for ever, never more than there are free slots."""
        while True:
            await self._claimable.wait()
            self._claimable.clear()
            async with self._claiming:
                while picked := self._pick():
                    await self._claim(picked)
            if self._lanes.waiting and self._free() > 0 and self._again is None:
                # LATER, or nothing may be claimed: only time ends that
                self._again = asyncio.get_running_loop().call_later(LATER_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._claimable.set()

    async def stop_claiming(self, seconds: float) -> None:
        """Claims nothing more; waits so long for the answers to what was asked."""
        self._open = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._claiming:
                pass

    def _pick(self) -> list[tuple[Lane, Waiting]]:
        free = self._free()
        if free <= 0 or not self._open or not self._may_claim():
            return []
        return self._lanes.pick(free, asyncio.get_running_loop().time())

    async def _claim(self, picked: Sequence[tuple[Lane, Waiting]]) -> None:
        by_partition: dict[int, list[tuple[Lane, Waiting]]] = {}
        for lane, waiting in picked:
            by_partition.setdefault(waiting.partition, []).append((lane, waiting))
        claims = [self._claim_in(partition, some) for partition, some in by_partition.items()]
        await (claims[0] if len(claims) == 1 else asyncio.gather(*claims))  # in a chain it is one, and needs no task
        self._committable.set()
        self._readable.set()

    async def _claim_in(self, partition: int, picked: Sequence[tuple[Lane, Waiting]]) -> None:
        answers, asked = await self._answers(partition, [waiting for _, waiting in picked])
        fail_point("worker.claimed")
        for (lane, waiting), answer in zip(picked, answers, strict=True):
            self._counters.inc("worker_claims_total", answer=answer)
            if answer == "LATER":
                self._lanes.later(partition, asyncio.get_running_loop().time())
                continue
            self._lanes.take(lane, waiting)
            # OK for what was begun here: Redis forgot the claim; its result is under way, or sweeps find it lost.
            if answer == "MINE" or (answer == "OK" and not self._was_taken(waiting)):
                self._remember(waiting)
                self._start(waiting.token, waiting.message, asked)

    async def _answers(self, partition: int, picked: Sequence[Waiting]) -> tuple[list[Claimed], float]:
        """Asks until Redis answers: a claim whose reply is lost may be ours, and then nobody else runs it.

        Also when it sent what was answered.
        """
        keys = PartitionKeys.of(self._settings.namespace, partition)
        tokens, queued = [w.token for w in picked], [w.message.queued_at for w in picked]
        while True:
            seen, asked = [self._was_taken(waiting) for waiting in picked], time.monotonic()
            try:
                server = self._server()
                return await self._scripts.claim(keys, self._worker_id, tokens, seen, queued, server=server), asked
            except redis_errors as error:
                log.warning("claims get no answer", partition=partition, error=str(error))
            self._doubt()
            while not self._may_claim():  # noqa: ASYNC110 - time alone makes it true
                await asyncio.sleep(_PAUSE)

    def _was_taken(self, waiting: Waiting) -> bool:
        """Whether this worker took it before. Another `queued_at` is another life of the execution."""
        return self._seen.get(waiting.token) == waiting.message.queued_at

    def _remember(self, waiting: Waiting) -> None:
        self._seen[waiting.token] = waiting.message.queued_at
        while len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    # --- commit

    async def commit(self) -> None:
        """Commits for ever what was claimed or dropped, a moment later: what is read again meanwhile is refused."""
        while True:
            await self._committable.wait()
            await asyncio.sleep(_COMMIT_SECONDS)
            self._committable.clear()
            while not self._may_commit():  # noqa: ASYNC110 - time alone makes it true
                await asyncio.sleep(_PAUSE)
            try:
                await self.commit_all()
            except redis_errors as error:
                log.warning("offsets wait for Redis", error=str(error))
                self._doubt()
                self._committable.set()

    async def commit_all(self) -> None:
        """Commits what can be, once. Raises one of `redis_errors`."""
        await asyncio.gather(*(self._commit(lane) for lane in self._lanes if lane.position > lane.committed))

    async def _commit(self, lane: Lane) -> None:
        known, position = lane.committed, lane.position
        if await self._scripts.task_commit(lane.key, self._worker_id, position, self._lease_ms, known=known):
            fail_point("worker.committed")
            lane.committed = max(lane.committed, position)
        else:  # another one's, or Redis forgot what was committed: it is leased again, from where it stands
            self._doubt()
            self._lanes.drop(lane.source)
            self._leases.wake()
            self._readable.set()
