"""Documents at the door: parsed, checked as a whole, every problem reported at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from wf_core import payload
from wf_core.collector import collector_paused
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.schema.canonical import canonical_bytes, document_hash
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.inputs import validate_input
from wf_core.schema.json_schema import workflow_json_schema
from wf_core.schema.pointers import join
from wf_core.schema.semantics import check_semantics
from wf_core.schema.structure import read_structure
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


def parse_document(value: Any) -> WorkflowSchema:
    """The document that a JSON value is; `nodes` may also be a list of nodes that each carry `id`.

    Raises DocumentError with every problem (the first thousand), each with a JSON pointer into `value`.
    """
    with collector_paused():
        try:
            payload.encode(value, what="the document")
        except PayloadError as error:
            raise DocumentError([Problem("", "not_json", str(error))]) from error
        value, problems, places = _with_node_map(value)
        document, found = read_structure(value)
        problems += found
        if isinstance(value, dict):
            problems += check_semantics(value)
        if document is None or problems:
            raise DocumentError(_capped([_placed(problem, places) for problem in problems]))
        return document.checked()


def check_policies(document: WorkflowSchema, retry: Collection[str], scheduling: Collection[str]) -> list[Problem]:
    """The policies that a document names and that are not among those known, with the nearest known names."""
    named: list[tuple[str, str | None, Collection[str]]] = [("/scheduling", document.scheduling, scheduling)]
    if document.defaults and document.defaults.retry:
        named.append(("/defaults/retry/policy", document.defaults.retry.policy, retry))
    named += [
        (join(("nodes", node_id, "retry", "policy")), node.retry.policy, retry)
        for node_id, node in document.nodes.items()
        if node.retry is not None
    ]
    return [
        Problem(pointer, "unknown_policy", _unknown_policy(name, known))
        for pointer, name, known in named
        if name is not None and name not in known
    ]


def _unknown_policy(name: str, known: Collection[str]) -> str:
    close = nearest(name, known)
    listed = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known)) or 'none'}"
    return f"no orchestrator has the policy {name!r}; {listed}"


def _with_node_map(value: Any) -> tuple[Any, list[Problem], dict[str, int]]:
    """The value with `nodes` as a map; what was wrong with a list; and where in the list each id stands."""
    if not isinstance(value, dict) or not isinstance(value.get("nodes"), list):
        return value, [], {}
    nodes: dict[str, Any] = {}
    places: dict[str, int] = {}
    problems = []
    for index, node in enumerate(value["nodes"]):
        node_id = node.get("id") if isinstance(node, dict) else None
        if not isinstance(node_id, str):
            detail = "a node in a list is an object with an `id`, which is text"
            problems.append(Problem(join(("nodes", index)), "missing_key", detail))
        elif node_id in nodes:
            detail = f"the id {node_id!r} is that of the node at {places[node_id]} already"
            problems.append(Problem(join(("nodes", index, "id")), "duplicate_id", detail))
        else:
            nodes[node_id] = {key: item for key, item in node.items() if key != "id"}
            places[node_id] = index
    return {**value, "nodes": nodes}, problems, places


def _placed(problem: Problem, places: dict[str, int]) -> Problem:
    """The problem with the pointer into the list that was sent, where `nodes` was one."""
    if not places or not problem.pointer.startswith("/nodes/"):
        return problem
    _, _, escaped, *rest = problem.pointer.split("/")
    index = places.get(escaped.replace("~1", "/").replace("~0", "~"))
    if index is None:
        return problem
    pointer = "/".join(["", "nodes", str(index), *rest])
    return Problem(pointer, problem.code, problem.detail)


def _capped(problems: Sequence[Problem]) -> Sequence[Problem]:
    if len(problems) <= MOST_PROBLEMS:
        return problems
    more = Problem("", "more_problems", f"and {len(problems) - MOST_PROBLEMS:,} more problems")
    return [*problems[:MOST_PROBLEMS], more]
