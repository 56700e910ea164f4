"""Guards and parameters: when they are evaluated, and what becomes of one that fails."""

from __future__ import annotations

from wf_core.wire import FrozenSettings


def test_a_guard_is_asked_after_the_join(world):
    """A guard that is false skips the node; it is asked once its join is satisfied."""
    nodes = {
        "a": {"task": "t"},
        "yes": {"task": "t", "when": "nodes.a.output > 1"},
        "no": {"task": "t", "when": "${{ nodes.a.output < 1 }}"},
    }
    w = world({"nodes": nodes}).start()
    w.done("a", output=2)
    assert w.statuses == {"a": "COMPLETED", "yes": "QUEUED", "no": "SKIPPED"}


def test_a_guard_that_fails_fails_the_node(world):
    """A guard whose evaluation fails fails the node with ExpressionError, in an attempt that no worker saw."""
    nodes = {"a": {"task": "t"}, "b": {"task": "t", "when": "nodes.a.output.x.y > 1"}}
    w = world({"nodes": nodes}).start()
    w.done("a", output={})
    assert (w.status("b"), w.ended) == ("FAILED", "FAILED")
    (attempt,) = w.attempts("b")
    assert (attempt["attempt"], attempt["status"], attempt.get("worker"), attempt["decision"]) == (
        1,
        "FAILED",
        None,
        "stop",
    )
    assert attempt["error"]["type"] == "ExpressionError"
    assert w.execution.error is not None
    assert (w.execution.error.node, w.execution.error.attempt) == ("b", 1)


def test_a_guard_must_be_a_truth_value(world):
    """A guard that gives a number fails the node, and says what it gave."""
    w = world({"nodes": {"a": {"task": "t", "when": "1 + 1"}}}).start()
    assert w.execution.error is not None
    assert "gives true or false, and this gives a number" in w.execution.error.message


def test_parameters_that_fail_are_not_retried(world):
    """A node whose parameters fail is FAILED without a dispatch, and `on_error: continue` applies to it."""
    nodes = {
        "a": {"task": "t", "params": {"x": "${{ input.missing }}"}, "on_error": "continue"},
        "b": {"task": "t", "depends_on": ["a"], "params": {"why": "${{ nodes.a.error.type }}"}},
    }
    w = world({"nodes": nodes}).start()
    assert w.statuses == {"a": "FAILED", "b": "QUEUED"}
    assert w.params("b") == {"why": "ExpressionError"}
    assert w.dispatched == [f"{w.execution.id}/b/1"]


def test_parameters_have_a_size(world):
    """Parameters larger than four times the payload limit fail the node, naming the size."""
    settings = FrozenSettings(max_payload_bytes=100)
    for params in ({"x": "${{ nodes.a.output }}"}, {"x": "y" * 450}):
        nodes = {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"], "params": params}}
        w = world({"nodes": nodes}, settings=settings).start()
        w.done("a", output="y" * 450)
        assert w.status("b") == "FAILED"
        assert w.execution.error is not None
        assert w.execution.error.type == "PayloadError"
        assert "458 bytes" in w.execution.error.message
        assert "'b'" in w.execution.error.message


def test_what_expressions_see_of_the_execution(world):
    """Expressions see the execution's id, start, status and error."""
    names = ("id", "started_at", "status", "error")
    params = {name: f"${{{{ execution.{name} }}}}" for name in names}
    nodes = {"bad": {"task": "t"}, "clean": {"task": "t", "depends_on": ["bad"], "join": "always", "params": params}}
    w = world({"nodes": nodes}).start()
    w.fail_for_good("bad", message="boom")
    assert w.params("clean") == {
        "id": w.execution.id,
        "started_at": "1970-01-01T00:16:40.020Z",
        "status": "RUNNING",
        "error": {"type": "Oops", "message": "boom", "node": "bad", "attempt": 1},
    }


def test_nodes_that_have_not_ended_have_no_output(world):
    """A node that starts early sees null for what has not ended."""
    nodes = {
        "a": {"task": "t"},
        "b": {"task": "t"},
        "c": {
            "task": "t", "join": "any_success",
            "params": {"a": "${{ nodes.a.output }}", "b": "${{ nodes.b.output }}", "s": "${{ nodes.b.status }}"},
        },
    }  # fmt: skip
    w = world({"nodes": nodes}).start()
    w.done("a", output=1)
    assert w.params("c") == {"a": 1, "b": None, "s": "QUEUED"}


def test_many_readers_of_large_outputs(world):
    """Outputs are decoded once for many readers, and reading far more than the cache holds changes nothing."""
    nodes = {f"n{i}": {"task": "t"} for i in range(8)}
    readers = {f"r{i}": {"task": "t", "params": {"size": f"${{{{ size(nodes.n{i}.output) }}}}"}} for i in range(8)}
    w = world({"nodes": {**nodes, **readers}}, check=False).start()
    for i in range(8):
        outcome = w.done(f"n{i}", output="x" * (3 * 2**20 + i))
        assert outcome.results[f"i:r{i}"] == b'{"size":%d}' % (3 * 2**20 + i)


def test_an_output_that_is_no_json(world):
    """A worker's output that is no JSON fails the node that reads it, and names the node that gave it."""
    nodes = {"a": {"task": "t"}, "b": {"task": "t", "params": {"x": "${{ nodes.a.output }}"}}}
    w = world({"nodes": nodes}).start()
    w.send(w.result("a", output=b"{oops"))
    assert w.execution.error is not None
    assert (w.execution.error.type, w.execution.error.node) == ("PayloadError", "b")
    assert "the output of node 'a'" in w.execution.error.message
