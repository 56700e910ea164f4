"""Which class of the document describes what stands at a place, for messages about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from pydantic import BaseModel

from wf_core.schema.document import ConcurrencySchema, DefaultsSchema, RetrySchema, WorkflowSchema
from wf_core.schema.nodes import (
    BODIES,
    KINDS,
    CacheSchema,
    CaseSchema,
    CatchSchema,
    CompensateSchema,
    NodeSchema,
    TermSchema,
)

_PARTS: Mapping[str, tuple[type[BaseModel], str]] = {
    "retry": (RetrySchema, "retry"),
    "defaults": (DefaultsSchema, "defaults"),
    "concurrency": (ConcurrencySchema, "concurrency"),
    "catch": (CatchSchema, "an entry of catch"),
    "compensate": (CompensateSchema, "compensate"),
    "cache": (CacheSchema, "cache"),
    "cases": (CaseSchema, "a case"),
    "any": (TermSchema, "an entry of any"),
    "all": (TermSchema, "an entry of all"),
}
_HOLDERS = frozenset({WorkflowSchema, *(KINDS[kind] for kind in BODIES)})


class Place(NamedTuple):
    """A place in a document: its path, and the class that describes what is there or what is around it."""

    path: tuple[str | int, ...]
    model: type[BaseModel]
    what: str


def locate(location: Sequence[str | int]) -> Place:
    """The place that pydantic names, which puts the kind of each node behind its id, and `[key]` behind a bad key."""
    path: list[str | int] = []
    model: type[BaseModel] = WorkflowSchema
    what = "a workflow"
    parts = iter([part for part in location if part != "[key]"])
    for part in parts:
        path.append(part)
        if part in ("nodes", "finally") and model in _HOLDERS:
            path += [node_id for node_id in [next(parts, None)] if node_id is not None]
            kind = next(parts, None)
            if kind is not None:
                model, what = KINDS[str(kind)], article(str(kind))
        elif isinstance(part, str) and part in _PARTS and part in keys_of(model):
            model, what = _PARTS[part]
        elif not isinstance(part, int):
            path += parts
    return Place(tuple(path), model, what)


def article(kind: str) -> str:
    """`a map node`, `an end node`."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} node"


@cache
def keys_of(model: type[BaseModel]) -> frozenset[str]:
    """The keys that a class takes, as documents write them."""
    return frozenset(field.alias or name for name, field in model.model_fields.items())


def kinds_with(key: str) -> list[str]:
    """The kinds of nodes that take a key which not every node takes."""
    return [] if key in keys_of(NodeSchema) else [kind for kind, model in KINDS.items() if key in keys_of(model)]
