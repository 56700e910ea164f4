"""The records in dead letters as JSON, and what was edited as a record again. No I/O."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from wf_api.problems import ProblemError, of_document
from wf_core import payload, wire
from wf_core.broker import topics
from wf_core.broker.protocol import MAX_RECORD_BYTES, TopicPartition
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.ids import partition_of
from wf_core.wire import NewerRecordError

_JSON = ("input", "output", "params")
"""Fields whose bytes are JSON of users: shown as the value that they are."""
_AHEAD_MS = 60_000
"""So far a record may be ahead of Redis' clock. The time of a fold never goes back: what is far ahead would put off
every timer of its partition, for good."""
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


@dataclass(frozen=True, slots=True)
class Parcel:
    """A record that is valid, and where it belongs."""

    target: TopicPartition
    execution_id: str
    record: bytes
    command_ts: int | None
    """Of a command, which is ignored when it is not newer than what retention deleted."""


def shown(record: bytes) -> msgspec.Raw | None:
    """The JSON object that a record is, even one that lacks something; None for bytes that are no object at all."""
    fields = _fields(record)
    if fields is None:
        return None
    for name in _JSON:
        if isinstance(value := fields.get(name), bytes):
            try:
                payload.decode(value)
            except (msgspec.MsgspecError, ValueError):
                continue  # no JSON: base64 as any other bytes
            fields[name] = msgspec.Raw(value)
    try:
        return msgspec.Raw(msgspec.json.encode(fields))
    except (TypeError, ValueError, RecursionError):  # something that JSON has no word for
        return None


def _fields(record: bytes) -> dict[str, Any] | None:
    """A map in msgpack, as records are, or in JSON, as people append by hand."""
    for decode in (msgspec.msgpack.decode, msgspec.json.decode):
        try:
            return decode(record, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return None


def parcel(letter: wire.DeadLetter, edited: Any, namespace: str, partitions: int, now_ms: int) -> Parcel:
    """The record to send: the letter's own when `edited` is None. Raises the problem 422.

    Events go to the home partition of their execution, wherever they were found; messages to where they came from.
    """
    prefix = topics.tasks(namespace, "")
    is_event = letter.topic == topics.events(namespace)
    if not is_event and not letter.topic.startswith(prefix):
        raise _wrong(
            "", "unknown_topic", f"It came from {letter.topic[:100]!r}, which is none of this engine's topics."
        )
    data = letter.record if edited is None else _encoded(edited, wire.Event if is_event else wire.TaskMessage)
    try:
        value: Any = wire.decode_event(data) if is_event else wire.decode_task(data)
    except NewerRecordError as error:
        raise _wrong("/record", "newer_record", f"A newer release is needed for this record: {error}.") from error
    except msgspec.MsgspecError as error:
        detail = f"As it stands the record is none of {letter.topic}: {error}. Send an edited one as `record`."
        raise _wrong("", "invalid_record", detail) from error
    if len(data) > MAX_RECORD_BYTES:
        raise _wrong("/record", "too_large", f"It has more than the {MAX_RECORD_BYTES:,} bytes that a record may have.")
    if is_event and value.ts > now_ms + _AHEAD_MS:
        raise _wrong("/record/ts", "in_future", "It lies in the future, Unix ms are meant: give it an older `ts`.")
    home = _home(value.execution, partitions)
    target = TopicPartition(letter.topic, home if is_event else letter.partition)
    is_command = isinstance(value, wire.Created | wire.Triggered | wire.Cancelled)
    return Parcel(target, value.execution, data, value.ts if is_command else None)


def _encoded(edited: Any, into: Any) -> bytes:
    if not isinstance(edited, Mapping):
        raise _wrong("/record", "wrong_type", "`record` is an object as GET shows it.")
    fields = dict(edited)
    try:
        for name in _JSON:
            if name in fields:
                fields[name] = base64.b64encode(payload.encode(fields[name], what=f"`{name}`")).decode()
        return wire.encode(msgspec.convert(fields, into))
    except (PayloadError, OverflowError) as error:  # an integer that a record has no room for
        raise _wrong("/record", "not_allowed", str(error)) from error
    except msgspec.ValidationError as error:
        sentence = str(error)
        place = _PLACE.search(sentence)
        pointer = f"/record/{place[1]}" if place and place[1] else "/record"
        raise _wrong(pointer, "invalid_record", f"{_PLACE.sub('', sentence)}.") from error


def _home(execution_id: str, partitions: int) -> int:
    try:
        home = partition_of(execution_id)
    except ValueError as error:
        raise _wrong("/record/execution", "wrong_execution", f"{error}.") from error
    if home >= partitions:
        detail = f"Its execution belongs to partition {home}; this installation has {partitions}."
        raise _wrong("/record/execution", "wrong_execution", detail)
    return home


def too_old() -> ProblemError:
    """422 for a command that the fold would ignore."""
    detail = (
        "Retention has deleted executions that ended later than this, so it would be ignored: give it a newer `ts`."
    )
    return _wrong("/record/ts", "too_old", detail)


def _wrong(pointer: str, code: str, detail: str) -> ProblemError:
    return of_document(DocumentError([Problem(pointer, code, detail)]), "invalid-record")
