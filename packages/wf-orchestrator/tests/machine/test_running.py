"""What a workflow does when nothing goes wrong."""

from __future__ import annotations

from wf_core import wire
from wf_core.wire import FrozenSettings
from wf_orchestrator.machine.effects import Accepted, Dispatch, Ended, KeepDocument

DIAMOND = {
    "a": {"task": "t", "params": {"day": "${{ input.day }}"}},
    "b": {"task": "t", "params": {"x": "${{ nodes.a.output.n }}"}},
    "c": {
        "task": "t",
        "params": {"text": "n is ${{ nodes.a.output.n }}"},
        "queue": "slow",
        "priority": 9,
        "timeout": "2s",
    },
    "d": {"task": "t", "params": {"b": "${{ nodes.b.output }}", "c": "${{ nodes.c.output }}"}},
}


def test_created_waits_for_its_trigger(world):
    """An execution is PENDING until it is triggered, and nothing is dispatched before."""
    w = world({"nodes": DIAMOND}).create({"day": "mon"})
    assert w.ended == "PENDING"
    assert w.last.effects == [Accepted(f"{w.execution.id}/create")]
    w.trigger()
    assert w.ended == "RUNNING"
    assert w.statuses == {"a": "QUEUED", "b": "PENDING", "c": "PENDING", "d": "PENDING"}
    assert w.last.effects[0] == Accepted(f"{w.execution.id}/trigger")


def test_a_diamond_runs_through(world):
    """Nodes start when their upstream nodes have ended, with their outputs; the leaf's output is the output."""
    w = world({"nodes": DIAMOND}).start({"day": "mon"})
    assert w.params("a") == {"day": "mon"}
    w.done("a", output={"n": 2**70})
    assert w.params("b") == {"x": 2**70}
    assert w.params("c") == {"text": f"n is {2**70}"}
    w.done("c", output=[1])
    assert w.status("d") == "PENDING"
    w.done("b", output=None)
    assert w.params("d") == {"b": None, "c": [1]}
    w.done("d", output={"ok": True})
    assert (w.ended, w.output) == ("COMPLETED", {"ok": True})
    assert w.execution.ended_at == w.now


def test_what_a_dispatch_carries(world):
    """A dispatch names queue and priority, and its message what a worker needs; the seq grows through the partition."""
    w = world({"nodes": DIAMOND}).start({"day": "mon"})
    outcome = w.done("a", output={"n": 1})
    first, second = (effect for effect in outcome.effects if isinstance(effect, Dispatch))
    assert (first.ready.node, first.priority, first.queue, first.seq) == ("c", 9, "slow", 2)
    assert (second.ready.node, second.priority, second.queue, second.seq) == ("b", 5, "default", 3)
    assert (first.ready.level, first.ready.height) == (1, 1)
    assert first.message.timeout_ms == 2000
    assert (first.message.task, first.message.attempt, first.message.workflow) == ("t", 1, "test")
    assert outcome.effects[0] == Ended(f"{w.execution.id}/a/1", "default")


def test_trigger_may_bring_the_input(world):
    """The input of a trigger replaces that of the creation."""
    w = world({"nodes": DIAMOND}).create({"day": "mon"})
    w.trigger({"day": "tue"})
    assert w.params("a") == {"day": "tue"}


def test_several_leaves_give_an_object(world):
    """Without `output` several leaves give an object of their outputs by id; a skipped one is null."""
    nodes = {"a": {"task": "t"}, 'b"': {"task": "t"}, "c": {"task": "t", "when": "false"}}
    w = world({"nodes": nodes}).start()
    w.done('b"', output=2)
    w.done("a", output=[1])
    assert w.output == {"a": [1], 'b"': 2, "c": None}


def test_output_template(world):
    """`output` may name any node, skipped ones too, and keeps JSON types."""
    nodes = {"a": {"task": "t"}, "b": {"task": "t", "when": "false"}, "c": {"task": "t", "depends_on": ["a"]}}
    output = {"a": "${{ nodes.a.output }}", "b": '${{ nodes.b.status == "SKIPPED" ? 0 : nodes.b.output.y }}'}
    w = world({"nodes": nodes, "output": output}).start()
    w.done("a", output=[1, 2])
    w.done("c")
    assert w.output == {"a": [1, 2], "b": 0}


def test_an_output_that_fails_fails_the_execution(world):
    """An execution whose output expression fails is FAILED with ExpressionError, though every node completed."""
    w = world({"nodes": {"a": {"task": "t"}}, "output": "${{ nodes.a.output.x.y }}"}).start()
    w.done("a", output={})
    assert (w.ended, w.statuses) == ("FAILED", {"a": "COMPLETED"})
    assert w.execution.error is not None
    assert w.execution.error.type == "ExpressionError"


def test_an_output_that_is_too_large_fails_the_execution(world):
    """The outputs of the leaves together have a limit, and the error says so."""
    nodes = {"a": {"task": "t"}, "b": {"task": "t"}}
    w = world({"nodes": nodes}, settings=FrozenSettings(max_payload_bytes=1)).start()
    w.done("a", "b", output="x" * 200)
    assert w.ended == "FAILED"
    assert w.execution.error is not None
    assert (w.execution.error.type, "404 bytes" in w.execution.error.message) == ("PayloadError", True)


def test_all_nodes_skipped(world):
    """An execution whose nodes are all skipped is COMPLETED at once, with null."""
    w = world({"nodes": {"a": {"task": "t", "when": "false"}, "b": {"task": "t", "depends_on": ["a"]}}}).start()
    assert (w.ended, w.output) == ("COMPLETED", None)


def test_the_history_tells_it_in_order(world):
    """The history lists what happened to the execution and its nodes, each line once."""
    w = world({"nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}}).start()
    w.done("a", "b")
    told = [(entry["kind"], entry.get("node", ""), entry["status"]) for entry in w.history()]
    assert told == [
        ("execution.created", "", "PENDING"),
        ("execution.triggered", "", "RUNNING"),
        ("node.queued", "a", "QUEUED"),
        ("node.completed", "a", "COMPLETED"),
        ("node.queued", "b", "QUEUED"),
        ("node.completed", "b", "COMPLETED"),
        ("execution.ended", "", "COMPLETED"),
    ]


def test_attempts_are_kept(world):
    """A completed attempt is kept with its worker, package and times."""
    w = world({"nodes": {"a": {"task": "t"}}}).start()
    queued = w.now
    w.done("a")
    (attempt,) = w.attempts("a")
    assert attempt == {
        "attempt": 1, "status": "COMPLETED", "worker": "w1", "package": "p 1",
        "queued_at": queued, "started_at": w.now - 10, "ended_at": w.now - 5,
    }  # fmt: skip


def test_time_never_goes_back(world):
    """The time of a partition is the largest that any record carried."""
    w = world({"nodes": {"a": {"task": "t"}}}).start()
    before = w.partition.ts
    w.now -= 500
    w.done("a")
    assert w.partition.ts == before == w.execution.ended_at


def test_documents_are_kept(world):
    """A part of a document in the log is kept under its hash, with the number of parts."""
    w = world({"nodes": {"a": {"task": "t"}}})
    outcome = w.send(w.record(wire.Document, hash="h", part=1, parts=2, data=b"zz"))
    assert outcome.effects == [KeepDocument("h", 1, 2, b"zz")]
    assert w.store.get("wf:{0}:d:h") == {"1": b"zz", "parts": b"2"}
