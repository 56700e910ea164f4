"""The records that the API appends to the log."""

from __future__ import annotations

from typing import Any

from wf_core import wire
from wf_core.documents import document_records
from wf_core.settings import Settings

SOURCE = "api"


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
        max_crash_retries=settings.max_crash_retries,
        max_payload_bytes=settings.max_payload_bytes,
    )


def document(execution_id: str, ts: int, document_hash: str, canonical: bytes) -> list[bytes]:
    """The document in as many records as it takes."""
    return [wire.encode(part) for part in document_records(execution_id, ts, SOURCE, document_hash, canonical)]


def command(
    kind: type[wire.Command], execution_id: str, ts: int, command_id: str, request: str, **fields: Any
) -> bytes:
    """What someone asks of an execution; `fields` are those that its kind has beside the common ones."""
    return wire.encode(
        kind(execution=execution_id, ts=ts, source=SOURCE, id=command_id, request=request, **fields),
    )


def triggered(execution_id: str, ts: int, command_id: str, request: str, given: bytes | None) -> bytes:
    """The execution may start; `given` (JSON) replaces the input of its creation."""
    return command(wire.Triggered, execution_id, ts, command_id, request, input=given)
