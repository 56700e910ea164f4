"""What a supervisor and its children say to each other: msgpack frames behind four bytes of length.

Two sockets join them. What the loop or the main thread of the child takes in its turn comes by the first; what must not
wait for user code (cancels, attempts for threads) by the second, which has a thread of its own. A child answers by the
first only, so that what it says stays in order.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from wf_core.wire import Failure

LIMIT = 2**30
"""Longest frame in bytes; more means that the other side speaks something else."""

_LENGTH = struct.Struct(">I")


class Configure(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="configure"):
    """First frame to a child. `skip`: tasks whose import ended an earlier child, with the reason."""

    worker: str
    slots: int
    allow: tuple[str, ...]
    paths: tuple[str, ...]
    skip: dict[str, str]
    max_payload_bytes: int
    log_level: str
    log_format: str


class Run(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="run"):
    """Run an attempt. `id` names it between the two; `params` is a JSON object in bytes."""

    id: int
    execution: str
    node: str
    attempt: int
    task: str
    params: bytes


class Cancel(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="cancel"):
    """The attempt is not wanted any more: cancel it, or tell its thread."""

    id: int


class Loading(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="loading"):
    """The child imports this task next; should it die now, this is why."""

    task: str


class Loaded(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="loaded"):
    """A runner has imported what it can: its catalogue, encoded."""

    catalogue: bytes


class Started(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="started"):
    """A process child begins to run the task's code; its timeout counts from here."""

    id: int


class News(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="news"):
    """What an attempt did since its last news: it called `ctx.heartbeat` (`alive`), it logged or printed `said`."""

    id: int
    alive: bool = False
    progress: bytes | None = None
    """The newest one, in JSON bytes; None when none was given."""
    said: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="done"):
    """The attempt's code ended: `output` in JSON bytes, or `error`. `cancelled`: it ended because it was cancelled."""

    id: int
    output: bytes | None = None
    error: Failure | None = None
    cancelled: bool = False


ToChild = Configure | Run | Cancel
FromChild = Loading | Loaded | Started | News | Done

_encoder = msgspec.msgpack.Encoder()
_to_child: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToChild)
_from_child: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromChild)


def pack(frame: ToChild | FromChild) -> bytes:
    """The frame with its length in front."""
    body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


def to_child(body: bytes) -> ToChild:
    """The frame in `body`, as a child reads it. Raises msgspec.MsgspecError."""
    frame: ToChild = _to_child.decode(body)
    return frame


def from_child(body: bytes) -> FromChild:
    """The frame in `body`, as a supervisor reads it. Raises msgspec.MsgspecError."""
    frame: FromChild = _from_child.decode(body)
    return frame


class Splitter:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, without their lengths. Raises ValueError for a length beyond LIMIT."""
        source: bytes | bytearray = data
        if self._begun:
            self._begun += data
            source = self._begun
        found: list[bytes] = []
        start, size = 0, len(source)
        while size - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(source, start)
            if length > LIMIT:
                raise ValueError(f"a frame of {length:,} bytes is announced; at most {LIMIT:,} may come")
            end = start + _LENGTH.size + length
            if size < end:
                break
            found.append(bytes(source[start + _LENGTH.size : end]))
            start = end
        if source is self._begun:
            del self._begun[:start]
        elif start < size:
            self._begun += data[start:]
        return found
