"""Documents at the door: parsed, checked as a whole, every problem reported at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from wf_core import payload
from wf_core.collector import collector_paused
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.schema.canonical import canonical_bytes, document_hash
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.inputs import validate_input
from wf_core.schema.json_schema import workflow_json_schema
from wf_core.schema.nodes import AttemptedSchema, ChildSchema
from wf_core.schema.semantics import check_semantics
from wf_core.schema.shape import with_node_maps
from wf_core.schema.structure import read_structure
from wf_core.schema.walk import every_node
from wf_core.suggest import nearest

__all__ = [
    "canonical_bytes",
    "check_policies",
    "document_hash",
    "parse_document",
    "validate_input",
    "workflow_json_schema",
]

MOST_PROBLEMS = 1000
"""Reported of one document."""


def parse_document(value: Any, also: Callable[[WorkflowSchema], Iterable[Problem]] = lambda _: ()) -> WorkflowSchema:
    """The document that a JSON value is; `nodes` may also be a list of nodes that each carry `id`.

    `also` finds more problems in a document of the right shape, whatever else is wrong with it.

    Raises DocumentError with every problem (the first thousand), each with a JSON pointer into `value`.
    """
    with collector_paused():
        try:
            payload.encode(value, what="the document")
        except PayloadError as error:
            raise DocumentError([Problem("", "not_json", str(error))]) from error
        value, problems, places = with_node_maps(value)
        document, found = read_structure(value)
        problems += found
        if isinstance(value, dict):
            problems += check_semantics(value)
        if document is not None:
            problems += also(document)
        if document is None or problems:
            raise DocumentError(_capped([places.placed(problem) for problem in problems]))
        return document.checked()


def check_policies(document: WorkflowSchema, retry: Collection[str], scheduling: Collection[str]) -> list[Problem]:
    """The policies that a document names and that are not among those known, with the nearest known names."""
    named: list[tuple[str, str | None, Collection[str]]] = [("/scheduling", document.scheduling, scheduling)]
    if document.defaults and document.defaults.retry:
        named.append(("/defaults/retry/policy", document.defaults.retry.policy, retry))
    for pointer, node in every_node(document):
        if isinstance(node, AttemptedSchema) and node.retry is not None:
            named.append((f"{pointer}/retry/policy", node.retry.policy, retry))
        if isinstance(node, ChildSchema) and node.defaults and node.defaults.retry:
            named.append((f"{pointer}/defaults/retry/policy", node.defaults.retry.policy, retry))
    return [
        Problem(pointer, "unknown_policy", _unknown_policy(name, known))
        for pointer, name, known in named
        if name is not None and name not in known
    ]


def _unknown_policy(name: str, known: Collection[str]) -> str:
    close = nearest(name, known)
    listed = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known)) or 'none'}"
    return f"no orchestrator has the policy {name!r}; {listed}"


def _capped(problems: Sequence[Problem]) -> Sequence[Problem]:
    if len(problems) <= MOST_PROBLEMS:
        return problems
    more = Problem("", "more_problems", f"and {len(problems) - MOST_PROBLEMS:,} more problems")
    return [*problems[:MOST_PROBLEMS], more]
