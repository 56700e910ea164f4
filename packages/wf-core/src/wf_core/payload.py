"""JSON values as they travel: UTF-8 bytes, integers of any size, no NaN, no infinities, no lone surrogates."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from wf_core.errors import PayloadError

MOST_DEPTH = 200
"""Levels of nesting: deeper values overflow the stack of readers that recurse, CEL's among them."""

_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')
_decoder = msgspec.json.Decoder()
# Not msgspec's: it writes some floats in another way, refuses long integers, and takes what is no JSON.
_to_text = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


def encode(value: Any, *, limit: int | None = None, what: str = "the value") -> bytes:
    """`value` as compact JSON.

    Raises PayloadError when it is no JSON value, nested too deep, or longer than `limit` bytes; `what` names it in the
    message.
    """
    try:
        data = b"null" if value is None else _to_text(value).encode()
    except UnicodeEncodeError as error:
        raise PayloadError(f"{what} holds a lone surrogate, which no JSON text may carry") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"{what} is not JSON: {error}") from error
    if data.count(b"[") + data.count(b"{") > MOST_DEPTH and _depth(data) > MOST_DEPTH:
        raise PayloadError(f"{what} is nested more than {MOST_DEPTH} levels deep")
    if limit is not None and len(data) > limit:
        raise PayloadError(
            f"{what} is {len(data):,} bytes of JSON, more than the {limit:,} that may travel; "
            "write it to a file or an object store and pass on its location (APP_MAX_PAYLOAD_BYTES sets the limit)"
        )
    return data


def decode(data: bytes) -> Any:
    """The value of bytes that `encode` made."""
    return _decoder.decode(data)


def _depth(data: bytes) -> int:
    depth = most = 0
    for match in _BRACKETS.finditer(data):
        if match[1]:
            depth += 1
            most = max(most, depth)
        elif match[2]:
            depth -= 1
    return most
