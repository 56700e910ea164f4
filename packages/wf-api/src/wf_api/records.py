"""The records that the API appends to the log."""

from __future__ import annotations

import zlib

from wf_core import wire
from wf_core.settings import Settings

SOURCE = "api"
PART_BYTES = 700 * 1024
"""Compressed bytes of a document in one record; a log takes records of 1 MiB."""


def frozen_settings(settings: Settings) -> wire.FrozenSettings:
    """The settings that change decisions, as of now."""
    return wire.FrozenSettings(
        retry=wire.RetrySettings(
            max_retries=settings.max_retries,
            delay_ms=round(settings.retry_delay * 1000),
            base=settings.base_backoff,
            max_delay_ms=round(settings.max_retry_delay * 1000),
        ),
        max_platform_retries=settings.max_platform_retries,
        max_payload_bytes=settings.max_payload_bytes,
    )


def document(execution_id: str, ts: int, document_hash: str, canonical: bytes) -> list[bytes]:
    """The document in as many records as it takes."""
    data = zlib.compress(canonical)
    parts = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    return [
        wire.encode(
            wire.Document(
                execution=execution_id,
                ts=ts,
                source=SOURCE,
                hash=document_hash,
                part=number,
                parts=len(parts),
                data=part,
            )
        )
        for number, part in enumerate(parts)
    ]


def triggered(execution_id: str, ts: int, command_id: str, request: str, given: bytes | None) -> bytes:
    """The execution may start; `given` (JSON) replaces the input of its creation."""
    record = wire.Triggered(execution=execution_id, ts=ts, source=SOURCE, id=command_id, input=given, request=request)
    return wire.encode(record)


def cancelled(execution_id: str, ts: int, command_id: str, request: str, reason: str) -> bytes:
    """Someone asked to cancel the execution."""
    record = wire.Cancelled(execution=execution_id, ts=ts, source=SOURCE, id=command_id, reason=reason, request=request)
    return wire.encode(record)
