"""The workflows that are run: branches, joins, limits, deadlines, what a failure does, and bodies inside each other."""

from __future__ import annotations

from typing import Any

from wf_api.intake import Submission
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document


def _node(*after: str, **fields: Any) -> dict[str, Any]:
    return {"task": "t", "depends_on": list(after), **fields}


_QUICK = {"retry": {"delay": "200ms", "jitter": 0, "max_retries": 2}}
_GRAPH = {
    "a": _node(),
    "b": _node("a"),
    "c": _node("a", on_error="continue"),
    "d": _node("b", "c", params={"x": "${{ nodes.b.output }}"}),
    "e": _node("a", when="true"),
    "f": _node("e", join="all_done"),
    "g": _node("f", priority=8),
}
_LOOP = {"kind": "loop", "until": "iteration == 1", "max_iterations": 3, "keep_last": 1, "nodes": {"step": _node()}}
_NESTED = {
    "which": {"kind": "switch", "cases": [{"when": "true", "to": ["each"]}], "default": ["none"]},
    "each": {
        "kind": "map",
        "items": [1, 2, 3],
        "max_parallel": 2,
        "tolerate": 1,
        "nodes": {"turn": _LOOP, "then": _node("turn", compensate={"task": "t"})},
        "retry": {"delay": "200ms", "max_retries": 1, "jitter": 0},
    },
    "none": _node(),
    "risky": _node("each", "none", join="none_failed", catch=[{"to": "rescue", "as": "problem"}]),
    "rescue": _node(params={"why": "${{ problem.message }}"}),
    "late": _node("risky", "rescue", join="none_failed", compensate={"task": "t"}),
    "last": _node("late"),
}
_DOCUMENTS: tuple[dict[str, Any], ...] = (
    {"name": "halts"},
    {"name": "goes on", "on_failure": "continue"},
    {"name": "stops", "on_failure": "cancel", "max_parallel": 2},
    {"name": "in time", "timeout": "15s", "scheduling": "priority"},
    {"name": "nested", "nodes": _NESTED, "finally": {"tidy": _node(), "up": _node("tidy")}},
)


def _submission(document: dict[str, Any]) -> Submission:
    parsed = parse_document({"defaults": _QUICK, "nodes": _GRAPH, **document})
    canonical = canonical_bytes(parsed)
    return Submission(
        document=parsed, canonical=canonical, hash=document_hash(canonical), input=b"{}", labels={}, trigger=True
    )


SUBMISSIONS = tuple(_submission(document) for document in _DOCUMENTS)
