"""Documents on their way through the log: compressed, in as many records as they take."""

from __future__ import annotations

import zlib

from wf_core.wire import Document

PART_BYTES = 700 * 1024
"""Compressed bytes of a document in one record; a log takes records of 1 MiB."""


def document_records(execution_id: str, ts: int, source: str, document_hash: str, canonical: bytes) -> list[Document]:
    """The records of a document; they go ahead of the first `created` that names it. `ts` in Unix ms."""
    data = zlib.compress(canonical)
    parts = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    return [
        Document(
            execution=execution_id,
            ts=ts,
            source=source,
            hash=document_hash,
            part=number,
            parts=len(parts),
            data=part,
        )
        for number, part in enumerate(parts)
    ]
