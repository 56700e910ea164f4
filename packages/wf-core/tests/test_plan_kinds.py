"""Compiled documents: kinds of nodes, and bodies inside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from wf_core.errors import DocumentError
from wf_core.expressions import Scope
from wf_core.plan import compile_plan, load_plan
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.loading import load_json, load_yaml
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document
from wf_core.wire import FrozenSettings

EVERYTHING = load_yaml((Path(__file__).parent / "schema" / "every_kind.yaml").read_bytes())


def plan_of(nodes, **fields):
    return compile_plan(parse_document({"name": "x", "nodes": nodes, **fields}))


def named(body, indexes):
    return {body.nodes[index].id for index in indexes}


def upstream(body, node_id):
    return named(body, body.graph.upstream[body.index_of[node_id]])


def test_a_loaded_plan_is_the_compiled_plan():
    """What the log carries gives the very plan of a document with every kind."""
    canonical = canonical_bytes(parse_document(EVERYTHING))
    assert load_plan(canonical, document_hash(canonical)) == compile_plan(parse_document(load_json(canonical)))


def test_a_task_has_no_spec():
    """A task keeps its task and parameters; other kinds have a spec, and neither."""
    plan = plan_of({"a": {"task": "t", "params": {"v": 1}}, "e": {"kind": "end"}})
    a, e = plan.nodes
    assert (a.kind, a.task, a.spec, a.params.render(Scope({}, {}, {}))) == ("task", "t", None, {"v": 1})
    assert (e.kind, e.task, e.params.is_constant, e.params.constant_json) == ("end", "", True, b"{}")


def test_what_stands_inside_makes_the_container_wait():
    """A node inside that names one outside makes the container come after it, at every level, and needs its output."""
    plan = plan_of(
        {
            "a": {"task": "t"},
            "b": {"task": "t"},
            "c": {"task": "t"},
            "m": {
                "kind": "map",
                "items": "${{ nodes.b.output }}",
                "nodes": {
                    "one": {"task": "t"},
                    "l": {
                        "kind": "loop",
                        "until": "nodes.c.status == 'COMPLETED' && nodes.deep.output > 1",
                        "max_iterations": 2,
                        "nodes": {"deep": {"task": "t", "params": {"v": ["${{ nodes.a.output + nodes.one.output }}"]}}},
                    },
                },
            },
        },
        output=1,
    )
    root, body = plan.root, plan.nodes[3].spec.body
    assert upstream(root, "m") == {"a", "b", "c"}
    assert upstream(body, "l") == {"one"}
    assert named(root, root.needed) == {"a", "b"}, "a status alone is no output"
    assert named(body, body.needed) == {"one", "l"}, "l is the leaf, whose output is the item's"
    assert (body.pointer, body.single, body.leaves) == ("/nodes/m", False, (1,))
    assert body.nodes[1].spec.body.pointer == "/nodes/m/nodes/l"
    assert body.nodes[1].spec.until.pointer == "/nodes/m/nodes/l/until"


def test_the_output_of_a_body():
    """A body may say what its output is; without that it is made of its leaves."""
    inner = {"b": {"task": "t"}, "c": {"task": "t", "depends_on": ["b"]}}
    output = "${{ nodes.b.output }}"
    plan = plan_of({"m": {"kind": "map", "items": [], "nodes": inner, "output": output}})
    body = plan.nodes[0].spec.body
    assert body.output.pointer == "/nodes/m/output"
    assert named(body, body.needed) == {"b"}


def test_a_map_of_nodes():
    """A map's own attempts are those of all its items together."""
    plan = plan_of(
        {"m": {"kind": "map", "items": [1], "as": "o", "tolerate": 3, "timeout": 2, "nodes": {"b": {"task": "t"}}}},
        defaults={"timeout": 60},
    )
    (m,) = plan.nodes
    spec = m.spec
    assert (spec.as_, spec.max_parallel, spec.batch, spec.tolerate, spec.tolerate_share) == ("o", None, None, 3, None)
    assert (m.timeout_ms, m.own_retry, spec.body.nodes[0].timeout_ms) == (2000, False, 60_000)


def test_a_map_of_one_task():
    """In the short form what the map says of attempts is each item's: its path is the scope's key."""
    plan = plan_of(
        {
            "a": {"task": "t"},
            "m": {
                "kind": "map", "items": [1], "order": "sequential", "tolerate": "25%", "task": "u",
                "params": {"v": "${{ item }}", "w": "${{ nodes.a.output }}"},
                "retry": {"max_retries": 7}, "timeout": 1, "queue": "q", "priority": 2, "heartbeat": 3,
                "queue_timeout": 4, "total_timeout": 5,
            },
        },
        defaults={"retry": {"max_retries": 1, "base": 5}},
    )  # fmt: skip
    m = plan.nodes[1]
    body = m.spec.body
    (item,) = body.nodes
    assert (m.spec.max_parallel, m.spec.tolerate, m.spec.tolerate_share) == (1, 0, 0.25)
    assert (m.timeout_ms, m.own_retry, m.total_timeout_ms, m.queue, m.task) == (None, False, 5000, "default", "")
    assert (body.single, item.id, item.task, item.queue, item.priority) == (True, "m", "u", "q", 2)
    assert (item.timeout_ms, item.heartbeat_ms, item.queue_timeout_ms, item.own_retry) == (1000, 3000, 4000, True)
    settings = item.retry_settings(FrozenSettings())
    assert (settings.max_retries, settings.base) == (7, 5)
    assert upstream(plan.root, "m") == {"a"}
    assert "a" in named(plan.root, plan.root.needed)


def test_loops():
    """A loop has one condition: `while`, which sees what is outside, or `until`, which sees the pass."""
    fields = {"kind": "loop", "max_iterations": 3, "nodes": {"b": {"task": "t"}}}
    plan = plan_of(
        {
            "a": {**fields, "while": True, "delay": "2s", "keep_last": 4},
            "c": {**fields, "until": "${{ nodes.b.output == last }}"},
        }
    )
    a, c = (node.spec for node in plan.nodes)
    assert (a.while_.text, a.until, a.max_iterations, a.delay_ms, a.keep_last) == ("true", None, 3, 2000, 4)
    assert (c.while_, c.until.text, c.delay_ms, c.keep_last) == (None, "nodes.b.output == last", 0, None)
    assert c.until.names == {"last"}


def test_switches_and_catches():
    """Nodes that a switch or a catch names come after it; the join of a catch's target is `caught`."""
    plan = plan_of(
        {
            "s": {"kind": "switch", "cases": [{"when": "input.x > 1", "to": ["a", "b"]}], "default": ["b"]},
            "a": {"task": "t", "catch": [{"errors": ["E"], "to": "h", "as": "e"}, {"to": "h"}]},
            "b": {"task": "t", "catch": [{"to": "h"}], "on_error": "continue"},
            "h": {"task": "t", "params": {"e": "${{ e }}"}},
        },
        output=1,
    )
    s, a, b, h = plan.nodes
    assert [(case.when.text, case.to) for case in s.spec.cases] == [("input.x > 1", (1, 2))]
    assert s.spec.default == (2,)
    assert (a.switches, b.switches, h.switches) == ((0,), (0,), ())
    assert [(c.errors, c.to, c.as_) for c in a.catch] == [(("E",), 3, "e"), ((), 3, None)]
    assert (a.join, h.join, h.catchers) == ("all_success", "caught", (1, 2))
    assert plan.graph.upstream == ((), (0,), (0,), (1, 2))
    assert named(plan.root, plan.root.needed) == {"s", "a", "b"}


def test_an_error_is_named_inside_the_target_too():
    """The name that a catch gives is known to its target, and inside it."""
    inner = {"b": {"task": "t", "params": {"v": "${{ err.message + string(item) }}"}}}
    plan = plan_of(
        {"a": {"task": "t", "catch": [{"to": "m", "as": "err"}]}, "m": {"kind": "map", "items": [1], "nodes": inner}}
    )
    assert plan.nodes[1].spec.body.nodes[0].params.names == {"err", "item"}


def test_compensations():
    """A compensation reads its own node and what that could see, and runs where that ran."""
    plan = plan_of(
        {
            "a": {"task": "t"},
            "b": {
                "task": "t",
                "queue": "q",
                "compensate": {"task": "u", "params": {"v": "${{ nodes.a.output + nodes.b.output }}"}},
            },
        },
        defaults={"timeout": 3, "retry": {"max_retries": 9}},
        output=1,
    )
    body = plan.nodes[1].compensate
    (undo,) = body.nodes
    assert (body.single, body.pointer) == (True, "/nodes/b/compensate")
    assert (undo.id, undo.task, undo.queue, undo.timeout_ms) == ("b~compensate", "u", "q", 3000)
    assert undo.retry_settings(FrozenSettings()).max_retries == 9
    assert undo.params.expressions[0].pointer == "/nodes/b/compensate/params/v"
    assert upstream(plan.root, "b") == {"a"}
    assert named(plan.root, plan.root.needed) == {"a", "b"}


def test_the_cache():
    """The key of a cache names nodes as parameters do."""
    plan = plan_of(
        {"a": {"task": "t"}, "b": {"task": "t", "cache": {"key": "${{ nodes.a.output }}", "ttl": "1m"}}}, output=1
    )
    assert plan.nodes[1].cache.ttl_ms == 60_000
    assert plan.nodes[1].cache.key.references == {"a"}
    assert upstream(plan.root, "b") == {"a"}
    assert named(plan.root, plan.root.needed) == {"a"}


def test_waits():
    """A wait has one term, or several by name; a duration is known or a template."""
    plan = plan_of(
        {
            "a": {"kind": "wait", "duration": "5m", "timeout": 3},
            "b": {"kind": "wait", "any": [{"signal": "s", "match": "payload.x"}, {"until": "${{ input.t }}"}]},
            "c": {"kind": "wait", "all": [{"duration": "${{ input.d }}"}], "timeout": 1, "on_timeout": {"value": [1]}},
        }
    )
    a, b, c = (node.spec for node in plan.nodes)
    assert (a.mode, a.terms[0].name, a.terms[0].duration_ms, a.timeout_ms, a.on_timeout) == (
        "one",
        "duration",
        300_000,
        3000,
        "fail",
    )
    assert plan.nodes[0].timeout_ms is None, "it is the wait's own"
    assert (b.mode, [(t.name, t.signal) for t in b.terms]) == ("any", [("s", "s"), ("until", None)])
    assert b.terms[0].match.names == {"payload"}
    assert b.terms[1].until.names == {"input"}
    assert (c.mode, c.terms[0].duration_ms.names) == ("all", {"input"})
    assert c.on_timeout.constant_json == b"[1]"


def test_approvals_ends_and_dynamic_nodes():
    """What else a node may be, compiled."""
    plan = plan_of(
        {
            "a": {"kind": "approval", "schema": {}, "assignees": ["x"], "on_timeout": "skip", "timeout": 1},
            "e": {"kind": "end", "status": "FAILED", "error": "no ${{ nodes.a.output }}"},
            "d": {"kind": "dynamic", "nodes": "${{ nodes.a.output }}", "retry": {"max_retries": 2}, "timeout": 4},
        }
    )
    a, e, d = plan.nodes
    assert (a.spec.schema, a.spec.assignees.constant_json) == ({}, b'["x"]')
    assert (a.spec.timeout_ms, a.spec.on_timeout, a.timeout_ms) == (1000, "skip", None)
    assert (e.spec.status, e.spec.output, e.spec.error.references) == ("FAILED", None, {"a"})
    assert (d.spec.allow, d.spec.max_nodes, d.own_retry, d.timeout_ms) == (("*",), 1000, True, 4000)
    assert plan.graph.upstream == ((), (0,), (0,))


def test_final_nodes_read_the_document():
    """`finally` is a body of its own that reads the document's nodes and waits for none of them."""
    inner = {"b": {"task": "t", "params": {"v": "${{ nodes.c.output }}"}}}
    plan = plan_of(
        {"a": {"task": "t"}, "c": {"task": "t"}, "d": {"task": "t"}},
        output=1,
        **{
            "finally": {
                "f": {"task": "t", "params": {"v": "${{ nodes.a.output }}"}},
                "m": {"kind": "map", "items": [], "depends_on": ["f"], "nodes": inner},
            }
        },
    )
    assert plan.final.pointer == "/finally"
    assert plan.final.graph.upstream == ((), (0,))
    assert plan.graph.upstream == ((), (), ())
    assert named(plan.root, plan.root.needed) == {"a", "c"}
    assert plan.final.nodes[1].spec.body.pointer == "/finally/m"
    assert plan_of({"a": {"task": "t"}}).final is None


def test_registered_children():
    """A child by name keeps the name; its input is the node's, and nothing by default."""
    plan = plan_of({"a": {"kind": "workflow", "workflow": "w", "version": "2"}})
    spec = plan.nodes[0].spec
    assert (spec.workflow, spec.version, spec.document, spec.on_parent_close) == ("w", "2", None, "cancel")
    assert spec.input.constant_json == b"{}"


def test_children_that_are_written_in_the_document():
    """An inline child is a document of its own, with its parent's defaults; its nodes are not its parent's."""
    inner = {"a": {"task": "t"}, "deeper": {"kind": "workflow", "nodes": {"z": {"task": "t"}, "a": {"task": "t"}}}}
    plan = plan_of(
        {
            "a": {"task": "t"},
            "w": {
                "kind": "workflow",
                "input": {"v": "${{ nodes.a.output }}"},
                "output": "${{ nodes.a.output }}",
                "defaults": {"retry": {"delay": 3}},
                "nodes": inner,
            },
        },
        defaults={"retry": {"max_retries": 1, "delay": 9}, "timeout": 5},
    )
    assert plan.graph.upstream == ((), (0,))
    child = load_plan(plan.nodes[1].spec.document, "h")
    assert (child.name, [node.id for node in child.nodes]) == ("x/w", ["a", "deeper"])
    assert child.output.references == {"a"}
    settings = child.nodes[0].retry_settings(FrozenSettings())
    assert (settings.max_retries, settings.delay_ms, child.nodes[0].timeout_ms) == (1, 3000, 5000)
    grandchild = load_plan(child.nodes[1].spec.document, "h")
    assert (grandchild.name, [node.id for node in grandchild.nodes]) == ("x/w/deeper", ["z", "a"])
    assert grandchild.nodes[0].timeout_ms == 5000
    assert parse_document(load_json(plan.nodes[1].spec.document)), "it is valid by itself"


def test_the_name_of_a_child_is_bounded():
    """The name of a child that would be too long loses its beginning."""
    plan = compile_plan(
        parse_document({"name": "n" * 200, "nodes": {"i" * 200: {"kind": "workflow", "nodes": {"a": {"task": "t"}}}}})
    )
    name = load_json(plan.nodes[0].spec.document)["name"]
    assert (len(name), name[0], name[-1]) == (200, "…", "i")


def test_concurrency():
    """How many executions of one key may run is part of the plan."""
    plan = plan_of({"a": {"task": "t"}}, concurrency={"key": "${{ input.k }}", "on_conflict": "skip"})
    assert (plan.concurrency.limit, plan.concurrency.on_conflict) == (1, "skip")
    assert plan.concurrency.key.names == {"input"}


@pytest.mark.parametrize(
    "node",
    [
        {"kind": "map", "items": []},
        {"kind": "loop", "max_iterations": 1, "nodes": {"b": {"task": "t", "when": "nodes.q.output"}}, "until": "true"},
        {"kind": "switch", "cases": [{"when": "true", "to": ["q"]}], "default": []},
        {"kind": "wait"},
    ],
)
def test_unchecked_documents_are_checked(node):
    """A document that was not validated still compiles only when all of it is right."""
    document = WorkflowSchema.model_validate({"name": "x", "nodes": {"a": node}})
    with pytest.raises(DocumentError):
        compile_plan(document)
