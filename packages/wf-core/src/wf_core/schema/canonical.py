"""The canonical form of a document: what travels in the log and is hashed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from wf_core.schema.document import WorkflowSchema

_HASH_LENGTH = 32


def canonical_bytes(document: WorkflowSchema) -> bytes:
    """Compact JSON with sorted keys and without defaults. `nodes` keeps its order, by which `fifo` goes."""
    value = document.model_dump(exclude_defaults=True)
    nodes = ",".join(f"{_dump(node_id)}:{_dump(node)}" for node_id, node in value.pop("nodes").items())
    rest = _dump(value)
    separator = "," if value else ""
    return f'{rest[:-1]}{separator}"nodes":{{{nodes}}}}}'.encode()


def document_hash(canonical: bytes) -> str:
    """The name of a document: the beginning of the SHA-256 of its canonical form."""
    return hashlib.sha256(canonical).hexdigest()[:_HASH_LENGTH]


_encoder = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _dump(value: Any) -> str:
    return _encoder.encode(value)
