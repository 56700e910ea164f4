"""What a document means: ids, dependencies, expressions and the graph that they make."""

from __future__ import annotations

from typing import Any

from wf_core.errors import Problem
from wf_core.schema.checker import BodyChecker, Findings
from wf_core.schema.inputs import input_problems
from wf_core.schema.places import Place
from wf_core.schema.pointers import child

MOST_EXPRESSIONS = 300_000
"""In one document: compiling them is the dearest part of accepting it."""


def check_semantics(value: dict[str, Any]) -> list[Problem]:
    """Everything that is wrong with the meaning of a document, as far as its shape lets one see."""
    findings = Findings(MOST_EXPRESSIONS)
    nodes, final = _nodes(value.get("nodes")), _nodes(value.get("finally"))
    root = BodyChecker(findings, nodes, "/nodes", _place(nodes))
    root.later = final
    root.check()
    if final:
        _check_final(root, BodyChecker(findings, final, "/finally", _place(final, root.place)))
    root.use_template(value.get("output"), "/output", None, frozenset())
    if isinstance(value.get("input"), dict):
        findings.problems += input_problems(value["input"])
    if isinstance(concurrency := value.get("concurrency"), dict):
        _check_key(findings, concurrency.get("key"), "/concurrency/key")
    return findings.problems


def _check_final(root: BodyChecker, final: BodyChecker) -> None:
    """The nodes of `finally`, whose ids share one namespace with the document's."""
    for node_id in final.nodes:
        if node_id in root.place.index_of:
            detail = (
                f"the id {node_id!r} is that of a node in `nodes`, with which `finally` shares its ids; choose another"
            )
            final.findings.add(child("/finally", node_id), "duplicate_id", detail)
    final.check()
    root.check_undone(final.nodes, "/finally")
    final.check_undone(root.nodes, "/nodes")


def _check_key(findings: Findings, key: Any, pointer: str) -> None:
    """The key of an execution, which is made before any node has run."""
    alone = BodyChecker(findings, {}, "", Place({}))
    for expression in findings.template(key, pointer):
        if expression.fields:
            detail = "this is evaluated before any node has run; it may name `input` and `execution`"
            findings.add(expression.pointer, "unknown_reference", detail)
        else:
            alone.use((expression,), None, frozenset())


def _nodes(value: Any) -> dict[str, Any]:
    return {str(node_id): node for node_id, node in value.items()} if isinstance(value, dict) else {}


def _place(nodes: dict[str, Any], outer: Place | None = None) -> Place:
    return Place({node_id: index for index, node_id in enumerate(nodes)}, outer)
