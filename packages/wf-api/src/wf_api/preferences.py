"""The header `Prefer` (RFC 7240)."""

from __future__ import annotations

from starlette.datastructures import Headers


def wants_no_wait(headers: Headers) -> bool:
    """Whether the client prefers an answer before its command was applied: `Prefer: respond-async`."""
    preferences = ",".join(headers.getlist("prefer")).split(",")
    return any(p.partition(";")[0].strip().lower() == "respond-async" for p in preferences)
