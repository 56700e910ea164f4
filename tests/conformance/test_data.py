"""The data itself: enough cases, from every system, over the whole language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from conformance.cases import SYSTEMS, VERBS, all_cases
from conformance.expectations import KNOWN
from wf_core.schema.fields import JOIN_RULES
from wf_core.schema.nodes import KINDS


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every node of a document, at any depth."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            for key in ("nodes", "finally"):
                inside = found.get(key)
                items = inside.values() if isinstance(inside, dict) else inside if isinstance(inside, list) else ()
                for node in items:
                    yield node
                    waiting.append(node)


ALL = [node for case in all_cases() for node in _nodes(case.given.get("workflow", {}))]


def test_there_are_enough_cases():
    """At least 150, each with a name of its own."""
    names = Counter(case.id for case in all_cases())
    assert len(names) >= 150
    assert [name for name, count in names.items() if count > 1] == []


def test_every_system_is_there():
    """With a source that can be looked up."""
    counts = Counter(case.source["system"] for case in all_cases())
    assert set(counts) == set(SYSTEMS)
    assert min(counts.values()) >= 20, counts
    for case in all_cases():
        assert set(case.source) == {"system", "what", "url"}, case.id
        assert urlsplit(case.source["url"]).scheme == "https", case.id
        assert case.source["what"], case.id


def test_every_kind_is_covered():
    """In documents that are accepted."""
    accepted = [n for c in all_cases() if "refused" not in c.expect for n in _nodes(c.given.get("workflow", {}))]
    assert {node.get("kind", "task") for node in accepted} == set(KINDS)


def test_every_join_is_covered():
    """Each rule by name, and expressions."""
    joins = {node.get("join", "all_success") for node in ALL if isinstance(node, dict)}
    assert set(JOIN_RULES) <= joins
    assert any("status ==" in join for join in joins)


def test_every_control_is_covered():
    """Each verb that a user has, and each answer to a failure."""
    assert {step.verb for case in all_cases() for step in case.steps} == set(VERBS)
    documents = [case.given.get("workflow", {}) for case in all_cases()]
    assert {document.get("on_failure", "halt") for document in documents} == {"halt", "cancel", "continue"}


def test_every_field_of_a_node_is_covered():
    """Whatever a node can say is said in one case at least."""
    used = {key for node in ALL if isinstance(node, dict) for key in node}
    known = {field.alias or name for kind in KINDS.values() for name, field in kind.model_fields.items()}
    assert known - used - {"priority"} == set()


def test_expectations_are_known():
    """A misspelt expectation would expect nothing."""
    for case in all_cases():
        assert set(case.expect) <= KNOWN, case.id
        assert "status" in case.expect or "refused" in case.expect, case.id
