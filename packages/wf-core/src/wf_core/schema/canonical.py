"""The canonical form of a document: what travels in the log and is hashed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from wf_core.schema.document import WorkflowSchema
from wf_core.schema.nodes import BODIES

_HASH_LENGTH = 32


def canonical_bytes(document: WorkflowSchema) -> bytes:
    """Compact JSON with sorted keys and without defaults. Nodes keep their order, by which `fifo` goes."""
    return _object(document.model_dump(exclude_defaults=True, by_alias=True), ("nodes", "finally")).encode()


def document_hash(canonical: bytes) -> str:
    """The name of a document: the beginning of the SHA-256 of its canonical form."""
    return hashlib.sha256(canonical).hexdigest()[:_HASH_LENGTH]


_encoder = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _dump(value: Any) -> str:
    return _encoder.encode(value)


def _object(value: dict[str, Any], bodies: tuple[str, ...]) -> str:
    """An object whose keys are sorted, except those of the maps of nodes called `bodies`."""
    ordered = [
        f'"{key}":{{{",".join(f"{_dump(node_id)}:{_node(node)}" for node_id, node in value.pop(key).items())}}}'
        for key in bodies
        if key in value
    ]
    rest = _dump(value)[1:-1]
    return f"{{{','.join([rest, *ordered] if rest else ordered)}}}"


def _node(node: dict[str, Any]) -> str:
    """A node. Recursion goes as deep as bodies are nested."""
    return _object(node, ("nodes",)) if node.get("kind") in BODIES and node.get("nodes") else _dump(node)
