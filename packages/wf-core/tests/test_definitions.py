"""Which definitions a document names, and the ids of children."""

from __future__ import annotations

import pytest

from wf_core.definitions import Reference, definitions_in, wrong_name
from wf_core.documents import PART_BYTES, document_records
from wf_core.ids import child_execution_id, is_execution_id, new_execution_id, partition_of, token


def test_references_at_any_depth() -> None:
    """In maps, loops, inline children and `finally`; the first place of each is told."""
    runs = {"kind": "workflow", "workflow": "a"}
    document = {
        "nodes": {
            "x": {"task": "t", "params": {"kind": "workflow", "workflow": "no"}},
            "m": {"kind": "map", "nodes": {"i/n": {"kind": "loop", "nodes": {"c": runs}}}},
            "w": {"kind": "workflow", "nodes": {"c": {**runs, "version": "2"}}},
            "d": {"kind": "dynamic", "nodes": "${{ input }}"},
        },
        "finally": {"f": {"kind": "workflow", "workflow": "b"}},
    }
    assert definitions_in(document) == {
        Reference("a"): "/nodes/m/nodes/i~1n/nodes/c/workflow",
        Reference("a", "2"): "/nodes/w/nodes/c/workflow",
        Reference("b"): "/finally/f/workflow",
    }


@pytest.mark.parametrize("text", ["orders", "orders@2", "orders@2@3"])
def test_keys_of_references(text: str) -> None:
    """A key reads back as the reference that it was made of."""
    assert Reference.parse(text).key == text


@pytest.mark.parametrize("name", ["", "a/b", "a@1", "x" * 201])
def test_wrong_names(name: str) -> None:
    """What could not stand in an address, or would be taken for a version."""
    assert wrong_name(name)
    assert wrong_name("orders etl") is None


def test_a_childs_id_lies_in_its_parents_partition() -> None:
    """Always the same for an attempt, another for another attempt, and in the same partition."""
    parent = new_execution_id(777, 1_800_000_000_000)
    child = child_execution_id(token(parent, "m[3]/c", 1))
    assert is_execution_id(child)
    assert partition_of(child) == 777
    assert child == child_execution_id(token(parent, "m[3]/c", 1))
    assert child != child_execution_id(token(parent, "m[3]/c", 2))
    assert partition_of(child_execution_id(token(child, "c", 1))) == 777


def test_long_documents_take_several_records() -> None:
    """No record is longer than the log takes."""
    import random

    noise = random.Random(1).randbytes(2 * PART_BYTES)
    parts = document_records("x", 1, "test", "h", noise)
    assert [part.part for part in parts] == [0, 1, 2]
    assert {part.parts for part in parts} == {3}
    assert max(len(part.data) for part in parts) == PART_BYTES
