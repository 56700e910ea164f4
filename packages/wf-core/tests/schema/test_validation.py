"""Documents at the door."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wf_core.errors import DocumentError
from wf_core.plan import compile_plan
from wf_core.schema import semantics
from wf_core.schema.document import JOIN_RULES, RetrySchema, WorkflowSchema
from wf_core.schema.inputs import Inputs
from wf_core.schema.loading import load_json, load_yaml
from wf_core.schema.models import keys_of
from wf_core.schema.nodes import KINDS
from wf_core.schema.validation import (
    MOST_PROBLEMS,
    canonical_bytes,
    check_policies,
    document_hash,
    parse_document,
    validate_input,
    workflow_json_schema,
)

BAD = load_yaml((Path(__file__).parent / "bad_documents.yaml").read_bytes())
FULL = {
    "name": "orders",
    "description": "what it does",
    "version": "1.2",
    "labels": {"team": "shop", "größe": ""},
    "input": {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}, "required": ["day"]},
    "defaults": {"retry": {"policy": "fixed", "max_retries": 1}, "timeout": "5m"},
    "nodes": {
        "no": {"task": "http.request", "params": {"url": "https://shop/${{ input.day }}", "big": 2**80}},
        "a-b": {
            "kind": "task",
            "task": "shop.report",
            "depends_on": ["no", "no"],
            "params": {"rows": "${{ nodes.no.output.body }}"},
            "when": "size(nodes.no.output.body) > 0",
            "join": "none_failed",
            "retry": {"delay": 0, "base": 3, "max_delay": "1m", "jitter": 0, "max_elapsed": "PT1H", "fail_on": ["E"]},
            "timeout": 1.5,
            "queue": "big.queue-1",
            "priority": 9,
            "on_error": "continue",
        },
        "last": {"task": "core.noop", "join": "nodes['a-b'].status != 'FAILED'", "when": False},
    },
    "output": {"report": '${{ nodes["a-b"].output }}'},
    "timeout": "1h",
    "on_failure": "continue",
    "max_parallel": 2,
    "scheduling": "priority",
}


def problems_of(value):
    with pytest.raises(DocumentError) as caught:
        parse_document(value)
    return caught.value.problems


def minimal(**fields):
    return {"name": "x", "nodes": {"a": {"task": "t"}}, **fields}


@pytest.mark.parametrize("row", BAD, ids=lambda row: json.dumps(row["document"])[:70])
def test_bad_documents(row):
    """Every problem of a document is reported at once, with its JSON pointer and code."""
    found = problems_of(row["document"])
    assert sorted((p.pointer, p.code) for p in found) == sorted(map(tuple, row["problems"]))
    assert all(p.detail and len(p.detail) < 400 for p in found)


def test_a_full_document_is_accepted():
    """A document may use every field."""
    document = parse_document(FULL)
    assert document.is_checked
    assert document.nodes["no"].params["big"] == 2**80
    assert document.nodes["last"].when is False


def test_defaults():
    """A document of a name and one node has the defaults of the documentation."""
    document = parse_document(minimal())
    node = document.nodes["a"]
    assert (node.kind, node.depends_on, node.when, node.join, node.on_error) == (
        "task",
        [],
        True,
        "all_success",
        "fail",
    )
    assert (node.queue, node.priority, node.timeout, node.retry) == ("default", 5, None, None)
    assert (document.on_failure, document.scheduling, document.max_parallel) == ("halt", "fifo", None)


def test_a_list_of_nodes_is_the_same_document():
    """`nodes` may be a list of nodes that carry their id."""
    listed = {**FULL, "nodes": [{"id": node_id, **node} for node_id, node in FULL["nodes"].items()]}
    assert canonical_bytes(parse_document(listed)) == canonical_bytes(parse_document(FULL))


@pytest.mark.parametrize("rule", sorted(JOIN_RULES))
def test_join_rules(rule):
    """Each join rule is known by its name."""
    assert parse_document(minimal(nodes={"a": {"task": "t", "join": rule}})).nodes["a"].join == rule


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (minimal(lables={}), "a workflow has no key 'lables'; did you mean 'labels'?"),
        (
            minimal(nodes={"a": {"task": "t", "dependsOn": []}}),
            "a task node has no key 'dependsOn'; did you mean 'depends_on'?",
        ),
        (minimal(nodes={"a": {"task": "t", "needs": []}}), "did you mean 'depends_on'?"),
        (minimal(defaults={"retries": {}}), "defaults has no key 'retries'; did you mean 'retry'?"),
        (minimal(nodes={"a": {"task": "t", "retry": {"max_retry": 1}}}), "retry has no key 'max_retry'"),
        (minimal(nodes={"load": {"task": "t"}, "b": {"task": "t", "depends_on": ["laod"]}}), "did you mean 'load'?"),
        (minimal(nodes={"Load": {"task": "t"}, "b": {"task": "t", "depends_on": ["load"]}}), "did you mean 'Load'?"),
        (minimal(output="${{ nodes.b.output }}", nodes={"bb": {"task": "t"}}), "did you mean 'bb'?"),
        (minimal(output="${{ inputs.x }}"), "there is no name 'inputs' in an expression; did you mean 'input'?"),
        (minimal(output="${{ a.output }}"), "did you mean nodes.a?"),
        (minimal(nodes={"a": {"task": "t", "join": "all_sucess"}}), "did you mean 'all_success'?"),
        (minimal(on_failure="contine"), "must be 'halt', 'cancel' or 'continue'; did you mean 'continue'?"),
        (minimal(version=1.2), "must be text, this is a number; put it in quotes"),
        (minimal(timeout="5 minutes"), "'5 minutes' is no duration; write 200ms"),
        (
            minimal(nodes={"a": {"task": "t", "depends_on": ["b"]}, "b": {"task": "t", "depends_on": ["a"]}}),
            "a → b → a",
        ),
    ],
)
def test_remedies(document, sentence):
    """A problem names the thing and the remedy: the nearest known spelling, the values that are allowed."""
    assert sentence in " | ".join(p.detail for p in problems_of(document))


def test_what_is_no_json_is_no_document():
    """A document that Python code made must be JSON too."""
    for value in (minimal(output=float("nan")), minimal(labels={"a": "\ud800"}), minimal(output={1, 2})):
        assert [p.code for p in problems_of(value)] == ["not_json"]


def test_the_number_of_problems_is_bounded():
    """A document with very many problems reports the first thousand, and says how many more there are."""
    count = 3000
    found = problems_of(minimal(nodes={f"n{i}": {"task": "t", "depends_on": [f"x{i}"]} for i in range(count)}))
    assert len(found) == MOST_PROBLEMS + 1
    assert "2,000 more" in found[-1].detail


KEYS = st.sampled_from(
    sorted({"a", "b", "id", "properties"}.union(*map(keys_of, [WorkflowSchema, RetrySchema, *KINDS.values()])))
)
VALUES = st.recursive(
    st.sampled_from(
        [None, True, 0, -1, 1.5, "", "a", "b", "t", "1s", "nodes.a.output", "${{ nodes.b.output }}", "${{", *KINDS]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


FIELDS = st.dictionaries(KEYS, VALUES, max_size=5)
STARTS = [
    {"task": "t"},
    {"task": "t"},
    {"kind": "switch", "cases": [{"when": "true", "to": ["b"]}], "default": []},
    {"kind": "map", "items": [1], "nodes": {"c": {"task": "t"}}},
    {"kind": "map", "items": [1], "task": "t"},
    {"kind": "loop", "while": "true", "max_iterations": 1, "nodes": {"c": {"task": "t"}}},
    {"kind": "workflow", "nodes": {"a": {"task": "t"}}},
    {"kind": "wait", "any": [{"signal": "s"}, {"duration": 1}]},
    {"kind": "approval"},
    {"kind": "end"},
    {"kind": "dynamic", "nodes": "${{ input }}"},
]
NODE = st.builds(lambda start, fields: {**start, **fields}, st.sampled_from(STARTS), FIELDS)
NODES = st.dictionaries(st.sampled_from(["a", "b"]), NODE, min_size=1)
WORKFLOWS = st.builds(lambda nodes, more: {"name": "x", "nodes": nodes, **more}, NODES, FIELDS)


@given(WORKFLOWS | VALUES)
@settings(max_examples=400)
def test_any_json_is_a_document_or_problems(value):
    """Whatever JSON comes in is accepted or refused with problems; what is accepted compiles."""
    try:
        document = parse_document(value)
    except DocumentError as error:
        assert error.problems  # noqa: PT017 - either outcome is right, a crash is not
    else:
        compile_plan(document)


def test_canonical_form():
    """The canonical form is compact, sorted, without defaults; nodes keep their order."""
    document = parse_document(
        minimal(
            on_failure="halt", nodes={"z": {"task": "t", "priority": 5, "params": {"b": 1, "a": 2}}, "a": {"task": "t"}}
        )
    )
    canonical = canonical_bytes(document)
    assert canonical == b'{"name":"x","nodes":{"z":{"params":{"a":2,"b":1},"task":"t"},"a":{"task":"t"}}}'
    assert len(document_hash(canonical)) == 32


def test_the_canonical_form_is_a_document():
    """The canonical form means the same document, and is its own canonical form."""
    document = parse_document(FULL)
    canonical = canonical_bytes(document)
    again = parse_document(load_json(canonical))
    assert again == document
    assert canonical_bytes(again) == canonical


def test_policies_are_checked_against_those_that_are_known():
    """An unknown policy is refused with the nearest known name, by whoever knows the names."""
    document = parse_document(
        minimal(
            scheduling="prioroty",
            defaults={"retry": {"policy": "fixed"}},
            nodes={"a/".strip("/"): {"task": "t", "retry": {"policy": "exponental"}}, "b": {"task": "t"}},
        )
    )
    found = check_policies(document, ["exponential", "fixed"], ["fifo", "priority"])
    assert [(p.pointer, p.code) for p in found] == [
        ("/scheduling", "unknown_policy"),
        ("/nodes/a/retry/policy", "unknown_policy"),
    ]
    assert "did you mean 'priority'?" in found[0].detail
    assert "did you mean 'exponential'?" in found[1].detail
    assert check_policies(document, ["exponental", "fixed"], ["prioroty"]) == []


SCHEMA = {
    "type": "object",
    "required": ["day"],
    "additionalProperties": False,
    "properties": {
        "day": {"type": "string", "format": "date"},
        "size": {"type": "integer", "default": 10},
        "deep": {"default": {}, "properties": {"x": {"default": [1]}}},
        "rows": {"items": {"properties": {"n": {"default": 0}}}},
        "ref": {"$ref": "#/$defs/r"},
    },
    "$defs": {"r": {"allOf": [{"properties": {"k": {"default": "v"}}}]}},
}


def test_defaults_of_the_input_are_filled_in():
    """Defaults of the JSON Schema are filled in, nested ones too; what was given is not changed."""
    document = parse_document(minimal(input=SCHEMA))
    given_input = {"day": "2026-01-01", "rows": [{}, {"n": 5}], "ref": {}}
    assert validate_input(document, given_input) == {
        "day": "2026-01-01",
        "size": 10,
        "deep": {"x": [1]},
        "rows": [{"n": 0}, {"n": 5}],
        "ref": {"k": "v"},
    }
    assert given_input == {"day": "2026-01-01", "rows": [{}, {"n": 5}], "ref": {}}
    assert SCHEMA["properties"]["deep"]["default"] == {}


def test_no_input_is_an_empty_object():
    """An execution without input has `{}`; without a schema anything is input."""
    assert validate_input(parse_document(minimal()), None) == {}
    assert validate_input(parse_document(minimal()), [1, 2**80]) == [1, 2**80]


@pytest.mark.parametrize(
    ("value", "places"),
    [
        (None, ["/input"]),
        ("SECRET", ["/input"]),
        ({"day": "SECRET"}, ["/input/day"]),
        (
            {"day": "2026-01-01", "size": "SECRET", "deep": {"x": 1}, "sise": 1, "a/b": 2},
            ["/input/size", "/input/sise", "/input/a~1b"],
        ),
        ({"day": float("nan")}, ["/input"]),
    ],
)
def test_wrong_input(value, places):
    """Wrong input is refused with pointers below /input, and is never repeated in the message."""
    with pytest.raises(DocumentError) as caught:
        validate_input(parse_document(minimal(input=SCHEMA)), value)
    assert sorted(p.pointer for p in caught.value.problems) == sorted(places)
    assert "SECRET" not in str(caught.value)


def test_a_schema_that_refers_to_itself_ends():
    """Defaults of a recursive schema are filled to a bounded depth."""
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"x": {"$ref": "#/$defs/a", "default": {}}}}}}
    assert "x" in validate_input(parse_document(minimal(input=schema)), {})


DEFAULT_TWICE = {"properties": {name: {"$ref": "#/$defs/n", "default": {}} for name in "ab"}}
GIVEN_TWICE = {"allOf": [{"properties": {"a": {"$ref": "#/$defs/n"}}}] * 2}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#/$defs/n", "$defs": {"n": DEFAULT_TWICE}}, {}),
        ({"$ref": "#/$defs/n", "$defs": {"n": GIVEN_TWICE}}, json.loads('{"a":' * 50 + "1" + "}" * 50)),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, {}),
        (
            {"properties": {"rows": {"items": {"properties": {"t": {"default": ["x" * 999] * 999}}}}}},
            {"rows": [{}] * 9},
        ),
    ],
)
def test_filling_in_defaults_is_bounded(schema, value):
    """A schema that refers to itself twice, or whose defaults are huge, ends in a refusal, not in hours."""
    with pytest.raises(DocumentError) as caught:
        Inputs(schema).filled(value, "/inputs/3")
    assert [(p.pointer, p.code) for p in caught.value.problems] == [("/inputs/3", "too_large")]
    assert "leads back to itself" in str(caught.value)


def test_what_is_given_may_be_large():
    """The bound on defaults grows with the input: rows with a default each are no matter."""
    schema = {
        "properties": {"rows": {"items": {"$ref": "#/$defs/row"}}},
        "$defs": {"row": SCHEMA["properties"]["deep"]},
    }
    assert Inputs(schema).filled({"rows": [{}] * 30_000})["rows"] == [{"x": [1]}] * 30_000


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"kids": {"type": "array", "items": {"$ref": "#"}, "default": [{"kids": []}]}}},
        {"required": ["b"], "properties": {"a": {"type": "integer", "default": 1}, "b": {"type": "string"}}},
        {"properties": {"a": {"default": "x"}}, "if": {"required": ["b"]}, "else": {"properties": {"a": {"const": 1}}}},
        {"properties": {"a": {"default": 1}}, "oneOf": [{"required": ["b"]}, {"required": ["c"]}]},
        {
            "properties": {"a": {"$ref": "#node", "default": {}}},
            "$defs": {"n": {"$anchor": "node", "maxProperties": 0}},
        },
    ],
)
def test_defaults_that_fit(schema):
    """Only what an input that leaves the key out can never pass is refused; the rest of the input is the user's."""
    assert parse_document(minimal(input=schema)).input == schema


def test_a_wrong_default_is_told_with_its_place_in_the_input():
    """The problem stands at the default, and says where its value ends up: far away when it lies behind a `$ref`."""
    schema = {
        "properties": {"k": {"default": {}, "$ref": "#/$defs/n"}},
        "$defs": {"n": {"properties": {"then": {"type": "integer", "default": "five"}}}},
    }
    (problem,) = problems_of(minimal(input=schema))
    assert problem.pointer == "/input/$defs/n/properties/then/default"
    assert problem.detail == 'this default is refused, at /k/then of the input: the value is not of type "integer"'


def test_the_published_schema_accepts_what_the_engine_accepts():
    """The JSON Schema for editors is valid and accepts a full document, as a map and as a list."""
    validator = jsonschema_rs.validator_for(workflow_json_schema())
    listed = {**FULL, "nodes": [{"id": node_id, **node} for node_id, node in FULL["nodes"].items()]}
    for document in (FULL, listed, minimal()):
        assert [e.message for e in validator.iter_errors(document)] == []
    for bad in (minimal(nodez=1), minimal(nodes={"a": {"tsk": "t"}}), minimal(nodes={}), {"name": "x"}):
        assert not validator.is_valid(bad)


def test_every_field_is_described():
    """The published schema explains each field, or refers to a part that is explained."""
    schema = workflow_json_schema()
    for name, part in schema["$defs"].items():
        assert part.get("description"), name
    assert set(schema["properties"]) == keys_of(WorkflowSchema)


def test_the_number_of_expressions_is_bounded(monkeypatch):
    """A document with more expressions than can be compiled in reasonable time is refused, saying the limit."""
    monkeypatch.setattr(semantics, "MOST_EXPRESSIONS", 3)
    assert parse_document(minimal(output=["${{ input.a }}"] * 3))
    found = problems_of(minimal(output=["${{ input.a }}"] * 4, nodes={"a": {"task": "t", "when": "input.a"}}))
    assert [p.code for p in found] == ["too_many_expressions"]
