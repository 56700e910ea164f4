"""Records of the log and task messages: msgspec structs in msgpack.

Records are never rewritten; readers ignore fields that they do not know, and new fields have defaults. Values of users
travel as JSON bytes. Times are Unix milliseconds of Redis' clock.
"""

from __future__ import annotations

from wf_core.wire.coding import decode_event, decode_task, encode
from wf_core.wire.events import (
    Acquire,
    Answered,
    Cached,
    Cancelled,
    ChildEnded,
    Command,
    Created,
    Decision,
    Document,
    Event,
    Expanded,
    Expired,
    Holds,
    KeyAnswer,
    KeyRecord,
    Lost,
    Paused,
    Record,
    Release,
    Result,
    Resumed,
    Retried,
    Signalled,
    Timer,
    Triggered,
    Unsendable,
)
from wf_core.wire.messages import DeadLetter, Following, Incarnation, Tail, TaskMessage
from wf_core.wire.parts import Begin, Cause, Failure, FrozenSettings, Parent, RetrySettings
from wf_core.wire.versions import BEGINS, RULES, VERSION, NewerRecordError, check_rules

__all__ = [
    "BEGINS",
    "RULES",
    "VERSION",
    "Acquire",
    "Answered",
    "Begin",
    "Cached",
    "Cancelled",
    "Cause",
    "ChildEnded",
    "Command",
    "Created",
    "DeadLetter",
    "Decision",
    "Document",
    "Event",
    "Expanded",
    "Expired",
    "Failure",
    "Following",
    "FrozenSettings",
    "Holds",
    "Incarnation",
    "KeyAnswer",
    "KeyRecord",
    "Lost",
    "NewerRecordError",
    "Parent",
    "Paused",
    "Record",
    "Release",
    "Result",
    "Resumed",
    "Retried",
    "RetrySettings",
    "Signalled",
    "Tail",
    "TaskMessage",
    "Timer",
    "Triggered",
    "Unsendable",
    "check_rules",
    "decode_event",
    "decode_task",
    "encode",
]
