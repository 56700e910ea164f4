"""The raw body at the door: capped while it streams, of a known media type, parsed by our own strict loader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from wf_api.problems import ProblemError
from wf_core.schema.loading import load_json, load_yaml

JSON = "application/json"
YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
READ_SECONDS = 60.0
"""How long a body may take to arrive."""
DROP_SECONDS = 1.0
"""How long what is too much may take to arrive before the connection is closed on it."""


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent: bytes, and whether they are YAML (else JSON)."""

    data: bytes
    is_yaml: bool = False

    def load(self) -> Any:
        """The value. Raises UnparsableError."""
        return load_yaml(self.data) if self.is_yaml else load_json(self.data)


async def read_body(request: Request, limit: int, *, yaml: bool = False) -> Body | None:
    """The body, or None when there is none. Raises the problems 400, 408, 413 and 415.

    A body without a Content-Type is refused as well: a web page may send one to a loopback address without asking.
    """
    data = await _read(request, limit)
    if not data:
        return None
    return Body(data, _is_yaml(request.headers, yaml))


async def _read(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    stream = request.stream()
    try:
        async with asyncio.timeout(READ_SECONDS):
            if _declares_more_than(limit, request.headers):
                raise await _too_large(limit, request.headers, stream)
            async for chunk in stream:
                size += len(chunk)
                if size > limit:
                    raise await _too_large(limit, request.headers, stream)
                chunks.append(chunk)
    except TimeoutError as error:
        detail = f"The body was not complete after {READ_SECONDS:g} s."
        raise ProblemError("request-timeout", detail, headers={"Connection": "close"}) from error
    except ClientDisconnect as error:
        raise ProblemError("bad-request", "The client left before its body was complete.") from error
    return b"".join(chunks)


def _declares_more_than(limit: int, headers: Headers) -> bool:
    declared = headers.get("content-length", "")
    return declared.isdecimal() and int(declared) > limit


async def _too_large(limit: int, headers: Headers, stream: AsyncIterator[bytes]) -> ProblemError:
    """The problem 413. A client that is sending reads its answer when it is done: a little more is read and dropped."""
    if headers.get("expect", "").lower() != "100-continue":
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DROP_SECONDS):
                async for _ in stream:
                    pass
    detail = f"The body has more than {limit:,} bytes, the most that this address takes."
    return ProblemError("too-large", detail, headers={"Connection": "close"})


def _is_yaml(headers: Headers, yaml: bool) -> bool:
    media, _, parameters = headers.get("content-type", "").partition(";")
    media = media.strip().lower()
    accepted = f"{JSON} or application/yaml" if yaml else JSON
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" or not _is_utf8(parameters):
        raise ProblemError("unsupported-media-type", f"Send {accepted} in UTF-8, without a Content-Encoding.")
    if media == JSON:
        return False
    if yaml and media in YAML:
        return True
    raise ProblemError("unsupported-media-type", f"Send the body with a Content-Type of {accepted}.")


def _is_utf8(parameters: str) -> bool:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in {"utf-8", "utf8", "us-ascii"}:
            return False
    return True
