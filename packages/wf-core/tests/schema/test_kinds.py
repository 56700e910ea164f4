"""Kinds of nodes and bodies, at the door."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema_rs
import pytest

from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.errors import DocumentError
from wf_core.plan import compile_plan, rules_of
from wf_core.schema.loading import load_json, load_yaml
from wf_core.schema.models import keys_of
from wf_core.schema.nodes import KINDS
from wf_core.schema.shape import DEEPEST
from wf_core.schema.tasks import check_tasks
from wf_core.schema.validation import canonical_bytes, check_policies, parse_document, workflow_json_schema

HERE = Path(__file__).parent
BAD = load_yaml((HERE / "bad_kinds.yaml").read_bytes())
EVERYTHING = load_yaml((HERE / "every_kind.yaml").read_bytes())


def document(nodes, **fields):
    return {"name": "x", "nodes": nodes, **fields}


def problems_of(value):
    with pytest.raises(DocumentError) as caught:
        parse_document(value)
    return caught.value.problems


def details_of(value):
    return " | ".join(problem.detail for problem in problems_of(value))


def listed(nodes):
    """The same nodes as lists, at every level."""
    return [{"id": node_id, **({**n, "nodes": listed(n["nodes"])} if isinstance(n.get("nodes"), dict) else n)}
            for node_id, n in nodes.items()]  # fmt: skip


def nested(depth, inner):
    """`inner` inside so many loops, called l0 (the innermost) and so on."""
    for level in range(depth):
        inner = {f"l{level}": {"kind": "loop", "while": "true", "max_iterations": 1, "nodes": inner}}
    return inner


@pytest.mark.parametrize("row", BAD, ids=lambda row: json.dumps(row["nodes"])[:70])
def test_bad_nodes(row):
    """Every problem of every kind is reported at once, with its JSON pointer and code."""
    found = problems_of(document(row["nodes"]))
    assert sorted((p.pointer, p.code) for p in found) == sorted(map(tuple, row["problems"]))
    assert all(p.detail and len(p.detail) < 400 for p in found)


def test_every_kind_is_accepted():
    """A document may use every kind and every field of each."""
    parsed = parse_document(EVERYTHING)
    assert parsed.nodes["price"].nodes["two"].as_ == "item"
    assert {node.kind for node in parsed.nodes.values()} == set(KINDS)
    compile_plan(parsed)


def test_every_field_is_used_by_the_example():
    """The document that uses everything leaves out no field of any kind."""
    used = {kind: set() for kind in KINDS}

    def note(nodes):
        for node in nodes.values():
            used[node.get("kind", "task")].update(node)
            if isinstance(node.get("nodes"), dict):
                note(node["nodes"])

    note(EVERYTHING["nodes"])
    common = {"kind", "depends_on", "when", "join", "retry", "total_timeout", "compensate", "on_error", "catch"}
    for kind, model in KINDS.items():
        missing = keys_of(model) - used[kind] - common - {"timeout", "queue_timeout", "params", "queue", "priority"}
        assert not missing, kind


def test_the_canonical_form_is_a_document():
    """The canonical form of a document with every kind means the same, and is its own canonical form."""
    parsed = parse_document(EVERYTHING)
    canonical = canonical_bytes(parsed)
    again = parse_document(load_json(canonical))
    assert again == parsed
    assert canonical_bytes(again) == canonical


def test_nodes_keep_their_order_in_every_body():
    """The canonical form sorts keys, but never the nodes of a body."""
    inner = {"z": {"task": "t"}, "a": {"task": "t", "params": {"y": 1, "b": 2}}}
    kinds = {"map": {"items": []}, "loop": {"until": "true", "max_iterations": 1}, "workflow": {}}
    nodes = {kind: {"kind": kind, **fields, "nodes": inner} for kind, fields in kinds.items()}
    canonical = load_json(canonical_bytes(parse_document(document(nodes, **{"finally": dict(inner)}))))
    for node in canonical["nodes"].values():
        assert list(node["nodes"]) == ["z", "a"]
    assert list(canonical["finally"]) == ["z", "a"]
    assert list(canonical["finally"]["a"]["params"]) == ["b", "y"]


def test_lists_of_nodes_at_any_depth():
    """`nodes` and `finally` may be lists of nodes that carry their id, inside others too."""
    as_lists = {**EVERYTHING, "nodes": listed(EVERYTHING["nodes"]), "finally": listed(EVERYTHING["finally"])}
    assert canonical_bytes(parse_document(as_lists)) == canonical_bytes(parse_document(EVERYTHING))


def test_problems_point_into_lists():
    """The pointer of a problem goes through the lists that were sent."""
    inner = [
        {"id": "a", "task": "t"},
        {"id": "b", "task": "t", "params": {"v": "${{ nodes.q.output }}"}},
        {"task": "t"},
    ]
    nodes = [{"id": "x", "task": "t"}, {"id": "m", "kind": "map", "items": [], "nodes": inner}]
    final = [{"id": "f", "task": "t", "depends_on": ["g"]}, {"id": "f", "task": "t"}]
    found = problems_of(document(nodes, **{"finally": final}))
    assert sorted((p.pointer, p.code) for p in found) == [
        ("/finally/0/depends_on/0", "unknown_dependency"),
        ("/finally/1/id", "duplicate_id"),
        ("/nodes/1/nodes/1/params/v", "unknown_reference"),
        ("/nodes/1/nodes/2", "missing_key"),
    ]


def test_bodies_nest_32_deep():
    """Bodies stand inside each other up to 32 deep; deeper ones are refused, however deep."""
    inner = {"a": {"task": "t", "params": {"v": "${{ nodes.top.output }}", "i": "${{ iteration }}"}}}
    plan = compile_plan(parse_document(document({"top": {"task": "t"}, **nested(DEEPEST, inner)})))
    assert plan.graph.upstream == ((), (0,))
    for depth in (DEEPEST + 1, 80):
        (problem,) = problems_of(document(nested(depth, {"a": {"task": "t"}})))
        assert problem.code == "too_deep"
        assert problem.pointer.count("/nodes") == DEEPEST + 2
    assert [p.code for p in problems_of(document(nested(2000, {"a": {"task": "t"}})))] == ["not_json"]


def test_final_nodes():
    """`finally` reads every node of the document, depends on its own only, and shares its ids with `nodes`."""
    nodes = {
        "a": {"task": "t", "params": {"v": "${{ nodes.f.output }}"}},
        "m": {"kind": "map", "items": [], "nodes": {"in": {"task": "t"}}},
        "u": {"task": "t", "compensate": {"task": "u"}},
    }
    final = {
        "f": {
            "task": "t",
            "depends_on": ["a"],
            "params": {"v": "${{ nodes.a.output }}", "w": "${{ nodes.in.output }}"},
        },
        "a": {"task": "t"},
        "g": {"kind": "map", "items": "${{ nodes.m.output }}", "nodes": {"m": {"task": "t"}}},
        "u~compensate": {"task": "t"},
        "h": {"task": "t", "depends_on": ["m"]},
    }
    found = problems_of(document(nodes, **{"finally": final}))
    assert sorted((p.pointer, p.code) for p in found) == [
        ("/finally/a", "duplicate_id"),
        ("/finally/f/params/w", "unknown_reference"),
        ("/finally/g/nodes/m", "shadowed_id"),
        ("/finally/h/depends_on/0", "unknown_dependency"),
        ("/finally/u~0compensate", "duplicate_id"),
        ("/nodes/a/params/v", "unknown_reference"),
    ]
    assert "it is in `finally`, which runs when everything here has ended" in " | ".join(p.detail for p in found)


def test_concurrency():
    """The key of `concurrency` is known before any node has run."""
    found = problems_of(
        document({"a": {"task": "t"}}, concurrency={"key": ["${{ nodes.a.output }}", "${{ item }}"], "limit": 0})
    )
    assert sorted((p.pointer, p.code) for p in found) == [
        ("/concurrency/key/0", "unknown_reference"),
        ("/concurrency/key/1", "unknown_name"),
        ("/concurrency/limit", "out_of_range"),
    ]


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"kind": "foreach"}, "did you mean 'map'?"),
        ({"kind": "choice"}, "did you mean 'switch'?"),
        ({"kind": "sleep"}, "did you mean 'wait'?"),
        ({"kind": "lop"}, "did you mean 'loop'?"),
        ({"items": [1]}, "a task node (`kind` is task where it is not written) needs the key 'task'"),
        ({"items": [1]}, "a task node has no key 'items'; `kind: map` has it; write its `kind`"),
        ({"task": "t", "for_each": [1]}, "a node with `kind: map` and `items`"),
        ({"task": "t", "withItems": [1]}, "a node with `kind: map` and `items`"),
        ({"task": "t", "choices": []}, "a node with `kind: switch`, `cases` and `default`"),
        ({"task": "t", "dependsOn": []}, "did you mean 'depends_on'?"),
        ({"kind": "map", "items": [], "steps": {}}, "a map node has no key 'steps'; did you mean 'nodes'?"),
        ({"kind": "map", "items": [], "nodes": {"b": {"task": "t", "tsk": 1}}}, "a task node has no key 'tsk'"),
        ({"kind": "map", "task": "t", "over": []}, "a map node has no key 'over'; did you mean 'items'?"),
        ({"kind": "switch", "branches": []}, "a switch node has no key 'branches'; did you mean 'cases'?"),
        ({"kind": "switch", "cases": [{"if": "x"}], "default": []}, "a case has no key 'if'; did you mean 'when'?"),
        ({"kind": "loop", "max": 3}, "a loop node has no key 'max'; did you mean 'max_iterations'?"),
        ({"kind": "wait", "any": [{"event": "s"}]}, "an entry of any has no key 'event'; did you mean 'signal'?"),
        ({"kind": "approval", "approvers": []}, "an approval node has no key 'approvers'; did you mean 'assignees'?"),
        ({"kind": "end", "retry": {}}, "an end node has no key 'retry'; `kind: task`, `kind: map`"),
        ({"task": "t", "compensate": {"tsk": "u"}}, "compensate has no key 'tsk'; did you mean 'task'?"),
        ({"task": "t", "params": {"v": "${{ secrets.key }}"}}, "secrets are not supported yet"),
        ({"task": "t", "params": {"v": "${{ item }}"}}, "only the inside of a map without `as` has it"),
        ({"task": "t", "params": {"v": "${{ iteration }}"}}, "only the inside of a loop"),
        ({"kind": "map", "as": "order", "items": [], "task": "t", "params": {"v": "${{ ordr }}"}}, "mean 'order'?"),
        (
            {"kind": "loop", "while": "nodes.b.output", "max_iterations": 1, "nodes": {"b": {"task": "t"}}},
            "it is inside 'a', and this is evaluated before; a `while` may use `last`",
        ),
    ],
)
def test_remedies(node, sentence):
    """A problem names the kind, the thing and the remedy, in words that people know from other engines too."""
    assert sentence in details_of(document({"a": node}))


def test_a_node_inside_is_not_seen_from_outside():
    """An expression that names what it cannot see is told where that is."""
    nodes = {
        "m": {"kind": "map", "items": [], "nodes": {"in": {"task": "t"}}},
        "a": {"task": "t", "params": {"v": "${{ nodes.in.output }}"}},
        "w": {"kind": "workflow", "nodes": {"b": {"task": "t", "when": "nodes.a.output"}}},
        "s": {"kind": "map", "items": [], "nodes": {"c": {"task": "t", "depends_on": ["a"]}}},
    }
    details = details_of(document(nodes))
    assert "it is inside 'm', which nobody outside sees; use the output of 'm'" in details
    assert "a child workflow sees nothing but its own `input`" in details
    assert "let the container depend on that one" in details


def test_the_number_of_expressions_counts_everything(monkeypatch):
    """The bound on expressions holds over the whole document, whatever they stand in."""
    monkeypatch.setattr("wf_core.schema.semantics.MOST_EXPRESSIONS", 3)
    inner = {"b": {"task": "t", "params": {"v": ["${{ input.a }}"] * 2}}}
    nodes = {"w": {"kind": "workflow", "nodes": inner}, "m": {"kind": "map", "items": [], "nodes": inner}}
    assert [p.code for p in problems_of(document(nodes))] == ["too_many_expressions"]


def test_policies_are_checked_at_any_depth():
    """An unknown policy is found inside bodies, children and `finally`."""
    retry = {"policy": "exponental"}
    inner = {"b": {"task": "t", "retry": retry}}
    nodes = {
        "m": {"kind": "map", "items": [], "nodes": copy.deepcopy(inner), "retry": retry},
        "w": {"kind": "workflow", "nodes": inner, "defaults": {"retry": retry}},
    }
    parsed = parse_document(document(nodes, **{"finally": {"f": {"task": "t", "retry": retry}}}))
    found = check_policies(parsed, ["exponential"], ["fifo"])
    assert sorted(p.pointer for p in found) == [
        "/finally/f/retry/policy",
        "/nodes/m/nodes/b/retry/policy",
        "/nodes/m/retry/policy",
        "/nodes/w/defaults/retry/policy",
        "/nodes/w/nodes/b/retry/policy",
    ]


def test_tasks_are_checked_at_any_depth():
    """Unknown tasks and wrong parameters are found wherever a task is named."""
    catalogue = {"t": TaskInfo(name="t", params={"type": "object", "properties": {"n": {"type": "integer"}}})}
    bad = {"task": "t", "params": {"n": "x"}}
    nodes = {
        "m": {"kind": "map", "items": [], **bad},
        "l": {"kind": "loop", "while": "true", "max_iterations": 1, "nodes": {"in": bad, "ok": {"task": "t"}}},
        "w": {"kind": "workflow", "nodes": {"in": {"task": "u"}}},
        "c": {"task": "t", "compensate": {"task": "v"}},
    }
    parsed = parse_document(document(nodes, **{"finally": {"f": {**bad, "compensate": bad}}}))
    assert sorted((p.pointer, p.code) for p in check_tasks(parsed, Catalogue(tasks=catalogue))) == [
        ("/finally/f/compensate/params/n", "wrong_parameter"),
        ("/finally/f/params/n", "wrong_parameter"),
        ("/nodes/c/compensate/task", "unknown_task"),
        ("/nodes/l/nodes/in/params/n", "wrong_parameter"),
        ("/nodes/m/params/n", "wrong_parameter"),
        ("/nodes/w/nodes/in/task", "unknown_task"),
    ]


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({}, 1),
        ({"retry": {}, "timeout": 1, "when": "true", "on_error": "continue", "join": "always", "queue": "q"}, 1),
        ({"catch": []}, 1),
        ({"catch": [{"to": "b"}]}, 2),
        ({"compensate": {"task": "u"}}, 2),
        ({"cache": {"key": 1}}, 2),
        ({"heartbeat": 1}, 2),
        ({"queue_timeout": 1}, 2),
        ({"total_timeout": 1}, 2),
        ({"kind": "end"}, 2),
    ],
)
def test_rules(fields, rules):
    """A document that uses only what the first rules had is pinned to them."""
    node = fields if "kind" in fields else {"task": "t", **fields}
    nodes = {"a": node, "b": {"task": "t"}}
    assert rules_of(parse_document(document(nodes))) == rules
    assert rules_of(parse_document(document(nodes, **{"finally": {"f": {"task": "t"}}}))) == 2
    assert rules_of(parse_document(document(nodes, concurrency={"key": 1}))) == 2


def test_the_published_schema_goes_by_kind():
    """The JSON Schema accepts every kind, as maps and as lists, and refuses what a kind does not take."""
    validator = jsonschema_rs.validator_for(workflow_json_schema())
    as_lists = {**EVERYTHING, "nodes": listed(EVERYTHING["nodes"]), "finally": listed(EVERYTHING["finally"])}
    for good in (EVERYTHING, as_lists):
        assert [error.message for error in validator.iter_errors(good)] == []
    for node in (
        {"task": "t", "items": []},
        {"kind": "map", "items": []},
        {"kind": "map", "items": [], "nodes": {"b": {}}},
        {"kind": "map", "items": [], "nodes": [{"task": "t"}]},
        {"kind": "end", "task": "t"},
        {"kind": "ends"},
        {"kind": "wait", "any": [{"signal": "s", "duration": 1}]},
    ):
        assert not validator.is_valid(document({"a": node})), node
