"""Compiled documents."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wf_core.errors import DocumentError
from wf_core.expressions import Expression, Scope
from wf_core.plan import compile_plan, load_plan
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.loading import load_json
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document
from wf_core.wire import FrozenSettings, RetrySettings


def plan_of(nodes, **fields):
    return compile_plan(parse_document({"name": "x", "nodes": nodes, **fields}))


def upstream(plan, node_id):
    return [plan.nodes[i].id for i in plan.graph.upstream[plan.index_of[node_id]]]


def test_nodes_stand_in_the_order_of_the_document():
    """An index names a node by its place in the document."""
    plan = plan_of({"z": {"task": "t"}, "a": {"task": "u", "depends_on": ["z", "z"]}})
    assert [(node.index, node.id, node.task) for node in plan.nodes] == [(0, "z", "t"), (1, "a", "u")]
    assert plan.index_of == {"z": 0, "a": 1}
    assert upstream(plan, "a") == ["z"]
    assert plan.leaves == (1,)


def test_expressions_make_upstreams():
    """What a node's params, when or join name is upstream of it, once, beside what depends_on lists."""
    plan = plan_of(
        {
            "end": {
                "task": "t",
                "depends_on": ["d", "p"],
                "params": {"v": ["x ${{ nodes.p.output }}"]},
                "when": "nodes.w.output > 1",
                "join": 'nodes["j-1"].status == "COMPLETED"',
            },
            "d": {"task": "t"},
            "p": {"task": "t"},
            "w": {"task": "t"},
            "j-1": {"task": "t"},
            "alone": {"task": "t"},
        },
        output="${{ nodes.alone.error }}",
    )
    assert upstream(plan, "end") == ["d", "p", "w", "j-1"]
    needed = {plan.nodes[i].id for i in plan.root.needed}
    assert needed == {"p", "w", "alone"}, "a status alone is no output"


def test_without_an_output_the_leaves_are_needed():
    """The output of a document that writes none is made of its leaves."""
    plan = plan_of({"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}})
    assert plan.output is None
    assert plan.root.needed == {1}


def test_fields_of_a_node():
    """A node's settings are resolved: durations in milliseconds, defaults of the document, the rule `always`."""
    plan = plan_of(
        {
            "a": {"task": "t", "join": "always", "when": True},
            "b": {"task": "t", "timeout": 1.5, "priority": 9, "queue": "q", "on_error": "continue", "when": False},
        },
        defaults={"timeout": "5m"},
        timeout="1h",
        max_parallel=2,
        version="3",
    )
    a, b = plan.nodes
    assert (a.join, a.when, a.timeout_ms, a.queue, a.priority) == ("all_done", None, 300_000, "default", 5)
    assert (b.join, b.timeout_ms, b.queue, b.priority, b.on_error) == ("all_success", 1500, "q", 9, "continue")
    assert isinstance(b.when, Expression)
    assert b.when.holds(Scope({}, {}, {})) is False
    assert (plan.timeout_ms, plan.max_parallel, plan.version, plan.scheduling) == (3_600_000, 2, "3", "fifo")


def test_retry_settings_come_from_node_document_and_environment():
    """Each field comes from the node, else from the document's defaults, else from the settings frozen at creation."""
    plan = plan_of(
        {
            "own": {"task": "t", "retry": {"delay": "5s", "retry_on": ["E", "F"], "max_retries": 0}},
            "default": {"task": "t"},
        },
        defaults={"retry": {"policy": "fixed", "delay": "1m", "max_elapsed": "1h", "jitter": 0}},
    )
    frozen = FrozenSettings(retry=RetrySettings(max_retries=7, base=3.0))
    own, default = (node.retry_settings(frozen) for node in plan.nodes)
    assert own == RetrySettings(
        policy="fixed", max_retries=0, delay_ms=5000, base=3.0, jitter=0, max_elapsed_ms=3_600_000, retry_on=("E", "F")
    )
    assert (default.delay_ms, default.max_retries, default.retry_on) == (60_000, 7, ())
    assert plan_of({"a": {"task": "t"}}).nodes[0].retry_settings(frozen) is frozen.retry


def test_unchecked_documents_are_checked():
    """A document that was not validated still compiles only when it is right."""
    for node in ({"task": "t", "depends_on": ["a"]}, {"task": "t", "when": "1 +"}):
        document = WorkflowSchema.model_validate({"name": "x", "nodes": {"a": node}})
        with pytest.raises(DocumentError):
            compile_plan(document)


EXPRESSIONS = [
    "nodes.{}.output",
    "nodes['{}'].output.x + 1",
    "size(nodes.{}.output) > 0 ? 'nodes.n0.output' : string(input.k)",
    "input.l.map(i, i == nodes.{}.error.type)",
    "nodes.{}.status == 'FAILED'",
]


@st.composite
def documents(draw):
    count = draw(st.integers(1, 8))
    nodes = {}
    for index in range(count):
        node = {"task": "t"}
        if index:
            other = st.integers(0, index - 1).map(lambda i: f"n{i}")
            node["depends_on"] = draw(st.lists(other, max_size=3))
            texts = st.builds(str.format, st.sampled_from(EXPRESSIONS), other)
            node["params"] = {"p": [f"{draw(st.sampled_from(['', 'x ']))}${{{{ {draw(texts)} }}}}"], "q": index}
            node["when"] = draw(st.one_of(st.just(True), texts))
            node["join"] = draw(st.sampled_from(["always", "all_success"]) | texts)
        nodes[f"n{index}"] = node
    order = draw(st.permutations(list(nodes)))
    return {"name": "x", "nodes": {node_id: nodes[node_id] for node_id in order}}


@given(documents())
def test_a_loaded_plan_is_the_compiled_plan(document):
    """What the log carries gives the very plan that the document gave when it was submitted."""
    canonical = canonical_bytes(parse_document(document))
    compiled = compile_plan(parse_document(load_json(canonical)))
    loaded = load_plan(canonical, document_hash(canonical))
    assert loaded == compiled
    for one, other in zip(loaded.nodes, compiled.nodes, strict=True):
        assert one.params.names == other.params.names
        assert one.params.values == other.params.values


def test_a_loaded_plan_evaluates():
    """An expression of a loaded plan is compiled when it is first needed."""
    canonical = canonical_bytes(
        parse_document({"name": "x", "nodes": {"a": {"task": "t", "params": {"v": "${{ input.l.map(i, i + 1) }}"}}}})
    )
    plan = load_plan(canonical, "h")
    for _ in range(2):
        assert plan.nodes[0].params.render(Scope({"l": [1, 2]}, {}, {})) == {"v": [2, 3]}


def chain(count):
    return {f"n{i}": {"task": "core.echo", "depends_on": [f"n{i - 1}"] if i else []} for i in range(count)}


def star(count):
    params = {"v": "x ${{ nodes.root.output }}", "w": [1, {"n": 2}]}
    middle = {f"n{i}": {"task": "core.echo", "params": params, "timeout": "5m"} for i in range(count)}
    return {"root": {"task": "core.noop"}, **middle, "end": {"task": "core.noop", "depends_on": list(middle)}}


@pytest.mark.parametrize(("shape", "small", "large"), [(chain, 10_000, 100_000), (star, 2_000, 20_000)])
def test_large_documents(shape, small, large):
    """100,000 nodes in a chain, or 20,000 side by side, take time that grows with their number."""
    seconds = {}
    for count in (small, large):
        start = time.process_time()
        document = parse_document({"name": "big", "nodes": shape(count)})
        assert max(compile_plan(document).graph.levels) == (count - 1 if shape is chain else 2)
        seconds[count] = time.process_time() - start
    assert seconds[large] < 30 * max(seconds[small], 0.1)
