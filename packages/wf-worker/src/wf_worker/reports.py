"""Results on their way: appended until the log acknowledges them, kept until the fold took them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
import structlog

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import MAX_RECORD_BYTES, Log, LogUnavailableError, RecordTooLargeError, TopicPartition
from wf_core.failpoints import fail_point
from wf_core.failures import refusal
from wf_core.ids import partition_of
from wf_core.metrics import Counters
from wf_core.states import AttemptStatus

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
"""Age at which a result that was not folded is appended again; doubles each time up to a minute."""
_PASSED_SECONDS = 1.0
"""The same, when the fold went past the result's position without taking it."""
_LONGEST_AGAIN = 60.0
_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_GROUP = 100
"""Records in one append."""


class Told(Protocol):
    """Hears once that the log has a result that begins a node, or (`begins` False) has it only without that."""

    def __call__(self, *, begins: bool) -> None:
        """The log answered."""


@dataclass(slots=True, eq=False)
class Report:
    """The record that says how an attempt ended. The same bytes are appended each time."""

    token: str
    partition: int
    record: bytes
    offset: int | None = None
    """Where its newest copy lies; None while none was acknowledged."""
    incarnation: str = ""
    sent_at: float = 0.0
    """When the newest copy was acknowledged, on the loop's clock."""
    copies: int = 0
    queued: bool = False
    """Whether it waits to be appended."""
    told: Told | None = None

    @property
    def due_at(self) -> float:
        """When it is appended again, if it is still not folded."""
        return self.sent_at + float(min(AGAIN_SECONDS * 2 ** max(0, self.copies - 1), _LONGEST_AGAIN))


T = TypeVar("T")


class Reports:
    """All results of this worker that the fold is not known to have taken."""

    def __init__(self, broker: Log, namespace: str, incarnation: Callable[[], str], counters: Counters) -> None:
        self._log = broker
        self._topic = topics.events(namespace)
        self._incarnation = incarnation
        self._counters = counters
        self._held: dict[str, Report] = {}
        self._pending: dict[int, list[Report]] = {}
        self._senders: dict[int, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(
        self,
        token: str,
        execution: str,
        record: wire.Result | wire.Lost,
        told: Told | None = None,
    ) -> None:
        """Takes a record to append; a second one for a token is dropped."""
        if token not in self._held:
            report = self._held[token] = Report(token, partition_of(execution), wire.encode(record), told=told)
            self._send(report)

    def holds(self, token: str) -> bool:
        """Whether the attempt ended here and the fold is not known to have taken its result."""
        return token in self._held

    def unsent(self) -> dict[int, list[str]]:
        """Tokens by event partition of which no copy was acknowledged yet."""
        return _by_partition((r, r.token) for r in self._held.values() if r.offset is None)

    def sent(self) -> dict[int, list[tuple[str, int, str]]]:
        """Token, offset and incarnation, by event partition, of what was acknowledged and not folded."""
        held = self._held.values()
        return _by_partition((r, (r.token, r.offset, r.incarnation)) for r in held if r.offset is not None)

    def forget(self, tokens: Iterable[str]) -> None:
        """These were folded, or are not wanted any more."""
        for token in tokens:
            self._held.pop(token, None)

    def again(self, passed: Iterable[str]) -> None:
        """Appends again what waits too long; `passed` are tokens whose result the fold went past."""
        now = asyncio.get_running_loop().time()
        due = [token for token in passed if (r := self._held.get(token)) and r.sent_at + _PASSED_SECONDS < now]
        due += [r.token for r in self._held.values() if r.offset is not None and r.due_at < now]
        for token in dict.fromkeys(due):
            report = self._held[token]
            if not report.queued:
                self._counters.inc("worker_results_resent_total")
                self._send(report)

    async def flush(self, seconds: float) -> bool:
        """Waits until each result was acknowledged; False when that took longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while senders := list(self._senders.values()):
                    await asyncio.wait(senders)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stops appending."""
        senders = list(self._senders.values())
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)

    def _send(self, report: Report) -> None:
        report.queued = True
        self._pending.setdefault(report.partition, []).append(report)
        if report.partition not in self._senders:
            sender = asyncio.get_running_loop().create_task(self._drain(report.partition))
            self._senders[report.partition] = sender

    async def _drain(self, partition: int) -> None:
        pause = _PAUSE
        try:
            while group := self._next(partition):
                try:
                    await self._append(partition, group)
                except RecordTooLargeError as error:
                    over = [report for report in group if len(report.record) > MAX_RECORD_BYTES]
                    for report in over or [max(group, key=lambda report: len(report.record))]:
                        self._shorten(report, error)
                    if not over:  # a limit of the log's own
                        await asyncio.sleep(_PAUSE)
                except Exception as error:
                    self._counters.inc("worker_appends_failed_total")
                    log.warning(
                        "results wait for the log",
                        partition=partition,
                        waiting=len(group),
                        error=f"{type(error).__name__}: {error}",
                        exc_info=not isinstance(error, LogUnavailableError),
                    )
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                else:
                    pause = _PAUSE
                    del self._pending[partition][: len(group)]
                    for report in group:
                        report.queued = False
        finally:
            for report in self._pending.pop(partition, ()):
                report.queued = False
            del self._senders[partition]

    def _next(self, partition: int) -> list[Report]:
        """The next records to append; what was forgotten meanwhile is dropped."""
        waiting = self._pending[partition]
        waiting[:] = [report for report in waiting if self._held.get(report.token) is report]
        return waiting[:_GROUP]

    async def _append(self, partition: int, group: list[Report]) -> None:
        fail_point("worker.ended")
        incarnation = self._incarnation()  # noted before the append: a later one would hide that the log was lost
        offsets = await self._log.append(TopicPartition(self._topic, partition), [r.record for r in group])
        fail_point("worker.reported")
        now = asyncio.get_running_loop().time()
        for report, offset in zip(group, offsets, strict=True):
            report.offset, report.incarnation, report.sent_at = offset, incarnation, now
            report.copies += 1
        for report in group:
            _tell(report, begins=True)

    def _shorten(self, report: Report, error: RecordTooLargeError) -> None:
        """Replaces what the log refuses by something shorter; what has nothing shorter is given up."""
        record = wire.decode_event(report.record)
        assert isinstance(record, wire.Result | wire.Lost)  # noqa: S101 - `add` takes no other
        forms = map(wire.encode, _shorter(record, error))
        found = next((form for form in forms if len(form) < len(report.record)), None)
        about = {"token": report.token, "partition": report.partition, "error": str(error)}
        if found is None:
            log.error("the log refuses the end of an attempt, which will count as lost", **about)
            self.forget([report.token])
        else:
            report.record = found
            if report.told is None:
                log.error("the log refuses a result", **about)
        _tell(report, begins=False)


def _shorter(record: wire.Result | wire.Lost, error: RecordTooLargeError) -> Iterator[wire.Result | wire.Lost]:
    """What may stand for a record that is too long: the result without what it begins, then a failure that says so."""
    if isinstance(record, wire.Lost):
        yield msgspec.structs.replace(record, log_tail="", detail="")
        return
    alone = msgspec.structs.replace(record, begin=None, v=1)
    yield alone
    failure = refusal("PayloadError", f"the log does not take the result: {error}", fatal=True)
    failed = msgspec.structs.replace(alone, status=AttemptStatus.FAILED, output=None, error=failure)
    yield failed
    yield msgspec.structs.replace(failed, log_tail="")


def _tell(report: Report, *, begins: bool) -> None:
    if report.told is not None:
        told, report.told = report.told, None
        told(begins=begins)


def _by_partition(items: Iterable[tuple[Report, T]]) -> dict[int, list[T]]:
    found: dict[int, list[T]] = {}
    for report, item in items:
        found.setdefault(report.partition, []).append(item)
    return found
