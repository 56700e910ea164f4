"""Bytes of records, and back."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from wf_core.wire.events import Created, Event, Record
from wf_core.wire.messages import DeadLetter, Incarnation, TaskMessage
from wf_core.wire.versions import VERSION, NewerRecordError, check_rules

_encoder = msgspec.msgpack.Encoder()
_events: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Event)
_messages = msgspec.msgpack.Decoder(TaskMessage)
_KINDS = frozenset(kind.__struct_config__.tag for kind in get_args(Event))


def encode(record: Record | TaskMessage | Incarnation | DeadLetter) -> bytes:
    """The bytes of a record."""
    return _encoder.encode(record)


def decode_event(data: bytes) -> Event:
    """The record in `data`.

    Raises NewerRecordError for a kind, a version or rules that this release does not know, and msgspec.MsgspecError
    for what is no record at all; that belongs in the dead letters.
    """
    try:
        event: Event = _events.decode(data)
    except msgspec.MsgspecError:
        if reason := _newer(data):
            raise NewerRecordError(reason) from None
        raise
    if event.v > VERSION:
        raise NewerRecordError(_version(event.v))
    if isinstance(event, Created):
        check_rules(event.rules)
    return event


def decode_task(data: bytes) -> TaskMessage:
    """The task message in `data`. Raises NewerRecordError for a newer version, msgspec.MsgspecError when it is none."""
    try:
        message = _messages.decode(data)
    except msgspec.MsgspecError:
        if (version := _look(data).get("v", 1)) > VERSION:
            raise NewerRecordError(_version(version)) from None
        raise
    if message.v > VERSION:
        raise NewerRecordError(_version(message.v))
    return message


def _newer(data: bytes) -> str:
    """Why bytes that do not decode come from a newer release; "" for garbage."""
    record = _look(data)
    kind, version = record.get("kind"), record.get("v", 1)
    if not isinstance(kind, str):
        return ""
    if version > VERSION:
        return _version(version)
    return "" if kind in _KINDS else f"its kind {kind!r} is unknown to this release"


def _look(data: bytes) -> dict[str, Any]:
    """A record as a map, `v` an integer; {} for what is none."""
    try:
        record = msgspec.msgpack.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
    return record if isinstance(record.get("v", 1), int) else {}


def _version(version: int) -> str:
    return f"its version is {version}, this release reads up to {VERSION}"
