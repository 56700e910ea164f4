"""Fields of `{p}:x:<id>` as data: one row a field, read by both directions. An absent field is None, or empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from wf_core.states import ExecutionStatus
from wf_core.store.codec import pack_failure, unpack_failure
from wf_core.wire import FrozenSettings, Parent
from wf_orchestrator.machine.concurrency import Hold
from wf_orchestrator.machine.waits import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from wf_orchestrator.machine.state import Execution

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_labels = msgspec.json.Decoder(dict[str, str])
_commands = msgspec.json.Decoder(list[tuple[str, str]])
_definitions = msgspec.json.Decoder(dict[str, str])
_parent = msgspec.msgpack.Decoder(Parent)
_hold = msgspec.msgpack.Decoder(Hold)
_settings = msgspec.msgpack.Decoder(FrozenSettings)
_signals = msgspec.msgpack.Decoder(list[Signal])


class Field(NamedTuple):
    """How an attribute of `Execution` travels."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _raw(value: bytes) -> bytes:
    return value


def _number(value: int) -> bytes:
    return b"%d" % value


def _encode_settings(settings: FrozenSettings) -> bytes:
    """Without what the first release with other settings did not know, where it is as that release behaves."""
    fields: dict[str, Any] = msgspec.to_builtins(settings)
    for name in ("max_crash_retries", "timeout_ms"):
        if fields[name] == getattr(_DEFAULTS, name):
            del fields[name]
    return _msgpack.encode(fields)


_DEFAULTS = FrozenSettings()
_TEXT = Field(str.encode, bytes.decode)
_BYTES = Field(_raw, _raw)
_NUMBER = Field(_number, int)

FIELDS: dict[str, Field] = {
    "status": Field(str.encode, lambda data: ExecutionStatus(data.decode())),
    "document": _TEXT,
    "name": _TEXT,
    "version": _TEXT,
    "labels": Field(_json.encode, _labels.decode),
    "input": _BYTES,
    "settings": Field(_encode_settings, _settings.decode),
    "rules": _NUMBER,
    "created_at": _NUMBER,
    "request": _TEXT,
    "started_at": _NUMBER,
    "ended_at": _NUMBER,
    "parent": Field(_msgpack.encode, _parent.decode),
    "depth": _NUMBER,
    "definitions": Field(_json.encode, _definitions.decode),
    "ending": _TEXT,
    "stage": _TEXT,
    "era": _NUMBER,
    "hold": Field(_msgpack.encode, _hold.decode),
    "output": _BYTES,
    "error": Field(pack_failure, unpack_failure),
    "halting": _TEXT,
    "wanted": _BYTES,
    "commands": Field(_json.encode, _commands.decode),
    "signals": Field(_msgpack.encode, _signals.decode),
    "signalled": Field(_json.encode, _commands.decode),
    "heard": _BYTES,
    "continued": Field(_number, lambda data: data == b"1"),
}
"""Also written: `counts`, for readers; the machine counts the cells. `snapshot` does it, once a batch."""

RARE = frozenset(
    (
        "parent",
        "depth",
        "definitions",
        "ending",
        "stage",
        "era",
        "hold",
        "signals",
        "signalled",
        "heard",
        "continued",
    )
)
"""Not written for an execution that never had them."""


def encode(execution: Execution, names: Iterable[str]) -> dict[str, bytes]:
    """The named fields; those that are None are left out."""
    encoded = {}
    for name in names:
        if (value := getattr(execution, name)) is not None:
            encoded[name] = FIELDS[name].encode(value)
    return encoded


def decode(stored: Mapping[str, bytes]) -> dict[str, Any]:
    """The attributes that the stored fields hold; fields that this version does not know are ignored."""
    return {name: field.decode(stored[name]) for name, field in FIELDS.items() if name in stored}


def counts(execution: Execution) -> bytes:
    """How many nodes have which status, as JSON {STATUS: n} without zeros."""
    return _json.encode({status.value: count for status, count in execution.counts.items() if count})
