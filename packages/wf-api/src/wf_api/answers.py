"""Answers as JSON bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import Response

from wf_api.body import JSON

encode = msgspec.json.Encoder().encode


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` (JSON values, or a view of the store with users' JSON in it as bytes) as the response."""
    return Response(encode(value), status, headers=headers, media_type=JSON)
