"""The end of what an attempt logged and printed: as much of it as is kept."""

from __future__ import annotations

TAIL_LINES = 50
TAIL_BYTES = 8 * 1024
"""Most that is kept of an attempt, in lines and in bytes of UTF-8."""


def extended(tail: str, said: str) -> str:
    """`tail` with `said` after it; about as much as may be kept."""
    return (tail + said)[-TAIL_BYTES:]


def tail_of(text: str) -> str:
    """The last lines of `text`, within both limits; a line that does not fit whole begins with `…`."""
    lines = text.rstrip("\n").split("\n")[-TAIL_LINES:]
    data = "\n".join(lines).encode()
    if len(data) <= TAIL_BYTES:
        return data.decode()
    mark = "…".encode()
    return (mark + data[len(mark) - TAIL_BYTES :].lstrip(_CONTINUATION)).decode()


_CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes that begin no character of UTF-8."""
