"""A command that was accepted and not yet folded, as the field `<execution>/<verb>` of `{p}:acc` keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class StoredCommand(msgspec.Struct, frozen=True):
    """`record` are the very bytes of the event records, in order: appended again they are copies that do no harm."""

    ts: int
    """Unix ms of Redis' clock when it was accepted."""
    record: tuple[bytes, ...]
    request: str
    """Hash of the request, to tell a repetition from another request under the same key."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredCommand)


def pack_command(ts: int, record: Sequence[bytes], request: str) -> bytes:
    """The stored form of a command."""
    return _encoder.encode(StoredCommand(ts, tuple(record), request))


def unpack_command(data: bytes) -> StoredCommand:
    """What `pack_command` made. Raises msgspec.MsgspecError when it is none."""
    return _decoder.decode(data)
