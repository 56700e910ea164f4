"""The topic of dead letters, and what was done about each: a mark in the hash `<ns>:dlq`.

A letter is sent before it is marked, so that a crash in between leaves it waiting: sent twice it does no harm, as an
execution takes a command, a result or a message once.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from wf_api.acceptance import APPEND_SECONDS
from wf_api.idempotency import request_hash
from wf_api.letters import parcel, shown, too_old
from wf_api.problems import ProblemError, unavailable
from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import OffsetOutOfRangeError, RecordTooLargeError, TopicPartition
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.reads.views import moment

if TYPE_CHECKING:
    from wf_api.context import ApiContext

READ_SECONDS = 1.0
PAGE_BYTES = 4 * 2**20
"""Of records in one page of a list; a longer one ends early."""
_LATEST_MS = 250_000_000_000_000
"""In the year 9892: later ones have no name in RFC 3339."""
_DIGITS = 18
"""Of an offset: below 2^63."""
_decode = msgspec.msgpack.Decoder(wire.DeadLetter).decode


class Mark(msgspec.Struct, frozen=True):
    """What was done about a letter. `incarnation` is the log's: another log has other letters at the same offsets."""

    status: str
    at: int
    incarnation: str
    request: str = ""
    position: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A letter at its offset, with the mark that it bears. Bytes that are no letter have one made up about them."""

    id: int
    letter: wire.DeadLetter
    mark: Mark | None


def parse_offset(text: str) -> int | None:
    """The offset that the text is; None when it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None


async def page(context: ApiContext, before: int | None, limit: int) -> tuple[list[Found], str | None]:
    """The newest letters below the offset `before`, newest first, and the cursor for those that follow."""
    source = _source(context)
    begin, end = await context.log.begin(source), await context.log.end(source)
    stop = end if before is None else min(before, end)
    start = max(begin, stop - limit)
    if start >= stop:
        return [], None
    newest = list(reversed(await _read(context, start, stop)))
    kept, size = 0, 0
    for found in newest:
        size += len(found.letter.record)
        if kept and size > PAGE_BYTES:
            break
        kept += 1
    last = newest[kept - 1].id if kept else begin
    return newest[:kept], str(last) if last > begin else None


async def one(context: ApiContext, number: str) -> Found:
    """The letter with this id. Raises the problem 404."""
    source = _source(context)
    offset = parse_offset(number)
    if offset is None or not await context.log.begin(source) <= offset < await context.log.end(source):
        raise _unknown()
    return (await _read(context, offset, offset + 1))[0]


async def send(context: ApiContext, found: Found, edited: Any, *, again: bool) -> Mark:
    """Sends a letter's record, or `edited` in its place, to where it belongs.

    The same once more gives the first answer, unless `again`. Raises the problems 409 (it was dealt with in another
    way), 422 and 503.
    """
    request = request_hash("send", edited)
    if found.mark is not None and not again:
        if found.mark.request == request:
            return found.mark
        detail = f"It was {found.mark.status} before. ?again=true sends it all the same."
        raise ProblemError("dead-letter-settled", detail, current_status=found.mark.status)
    now_ms = context.clock.now_ms()
    sent = parcel(found.letter, edited, context.settings.namespace, context.partitions, now_ms)
    if sent.command_ts is not None:
        expired = await context.redis.get(PartitionKeys.of(context.settings.namespace, sent.target.partition).expired)
        if sent.command_ts <= int(expired or 0):
            raise too_old()
    try:
        async with asyncio.timeout(APPEND_SECONDS):
            offsets = await context.log.append(sent.target, [sent.record], key=sent.execution_id.encode())
    except RecordTooLargeError as error:
        raise ProblemError("too-large", "The log takes no record of this size.") from error
    except TimeoutError as error:
        raise unavailable("The log does not answer. Whether the record was sent is not known; repeat it.") from error
    return await _settle(context, found.id, "sent", request, f"{sent.target.partition}:{offsets[0]}")


async def discard(context: ApiContext, found: Found) -> Mark:
    """Marks a letter as of no use. Raises the problem 409 when it was sent."""
    if found.mark is None:
        return await _settle(context, found.id, "discarded", "", None)
    if found.mark.status != "discarded":
        raise ProblemError("dead-letter-settled", "It was sent before.", current_status=found.mark.status)
    return found.mark


def view(found: Found) -> dict[str, Any]:
    """A letter as JSON values."""
    letter = found.letter
    record = shown(letter.record)
    return {
        **settled(found.id, found.mark),
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "ts": moment(letter.ts),
        "source": letter.source,
        "bytes": len(letter.record),
        "record": record,
        "data": None if record is not None else base64.b64encode(letter.record).decode(),
    }


def settled(number: int, mark: Mark | None) -> dict[str, Any]:
    """What was done about a letter, as JSON values."""
    return {
        "id": number,
        "status": mark.status if mark else "waiting",
        "settled_at": moment(mark.at) if mark else None,
        "position": mark.position if mark else None,
    }


def _source(context: ApiContext) -> TopicPartition:
    return TopicPartition(topics.dead_letters(context.settings.namespace), 0)


async def _read(context: ApiContext, start: int, stop: int) -> list[Found]:
    source = _source(context)
    records: list[bytes] = []
    reader = context.log.reader()
    try:
        reader.assign({source: start})
        while len(records) < stop - start:
            batches = await reader.read(READ_SECONDS, stop - start - len(records))
            if not batches:
                break
            records += [record for batch in batches for record in batch.records]
    except OffsetOutOfRangeError as error:
        raise unavailable("The log forgot dead letters while they were read; repeat the request.") from error
    finally:
        await reader.close()
    if len(records) < stop - start:  # the newest are missing, and a cursor would pass them over
        raise unavailable("The log is too slow to read the dead letters; repeat the request.")
    numbers = range(start, stop)
    marks = await _marks(context, numbers)
    return [
        Found(number, _letter(source, number, record), mark)
        for number, record, mark in zip(numbers, records, marks, strict=False)
    ]


def _letter(source: TopicPartition, offset: int, record: bytes) -> wire.DeadLetter:
    try:
        letter = _decode(record)
        if not 0 <= letter.ts < _LATEST_MS:
            raise msgspec.ValidationError("its time is none")
    except msgspec.MsgspecError as error:
        reason = f"this is no dead letter: {error}"
        return wire.DeadLetter(
            topic=source.topic,
            partition=source.partition,
            offset=offset,
            reason=reason,
            ts=0,
            source="",
            record=record,
        )
    return letter


async def _marks(context: ApiContext, numbers: Sequence[int]) -> list[Mark | None]:
    if not numbers:
        return []
    keys = InstallationKeys(context.settings.namespace)
    async with context.redis.pipeline(transaction=False) as pipe:
        pipe.hget(keys.installation, "incarnation")
        pipe.hmget(keys.dead_letters, [str(number) for number in numbers])
        incarnation, values = await pipe.execute()
    marks = [None if value is None else msgspec.json.decode(value, type=Mark) for value in values]
    return [mark if mark and mark.incarnation == (incarnation or b"").decode() else None for mark in marks]


async def _settle(context: ApiContext, number: int, status: str, request: str, position: str | None) -> Mark:
    keys = InstallationKeys(context.settings.namespace)
    incarnation = cast("bytes | None", await cast("Any", context.redis.hget(keys.installation, "incarnation")))
    mark = Mark(status, context.clock.now_ms(), (incarnation or b"").decode(), request, position)
    begin = await context.log.begin(_source(context))
    marked = cast("list[bytes]", await cast("Any", context.redis.hkeys(keys.dead_letters)))
    async with context.redis.pipeline(transaction=False) as pipe:
        if gone := [field for field in marked if int(field) < begin]:
            pipe.hdel(keys.dead_letters, *gone)
        pipe.hset(keys.dead_letters, str(number), msgspec.json.encode(mark))
        await pipe.execute()
    return mark


def _unknown() -> ProblemError:
    return ProblemError("unknown-dead-letter", "No dead letter has this id; GET /dead-letters lists them.")
