"""`cache`: an earlier output of the same task and key is used again."""

from __future__ import annotations

from typing import Any

from wf_core import wire
from wf_orchestrator.machine import caching
from wf_orchestrator.machine.effects import CacheStore

DOCUMENT: dict[str, Any] = {
    "nodes": {"a": {"task": "t", "params": {"n": "${{ input.n }}"}, "cache": {"key": "k-${{ input.n }}", "ttl": "1h"}}}
}


def found(w, node, output=None, attempt=None):
    return w.send(w.record(wire.Cached, node=node, attempt=attempt or w.attempt(node), output=output))


def stores(outcome):
    return [effect for effect in outcome.effects if isinstance(effect, CacheStore)]


def test_a_hit_completes_the_attempt(world):
    """The node waits for the lookup, and what is found is its output: no worker runs."""
    w = world(DOCUMENT).start({"n": 1})
    token = f"{w.execution.id}/a/1"
    assert (w.status("a"), w.timers()) == ("WAITING", {f"cache|{token}": w.now})
    assert caching.name_of(w.execution, "a", 1)
    outcome = found(w, "a", b"5")
    assert (w.ended, w.output, w.dispatched, stores(outcome)) == ("COMPLETED", 5, [], [])
    (attempt,) = w.attempts("a")
    assert (attempt["status"], attempt["reason"]) == ("COMPLETED", "from the cache")
    assert w.history("node.cached")


def test_a_miss_dispatches_the_same_attempt(world):
    """Nothing found: the attempt goes out, and its output is kept for the next one."""
    w = world(DOCUMENT).start({"n": 1})
    name = caching.name_of(w.execution, "a", 1)
    found(w, "a")
    assert (w.status("a"), w.attempt("a"), w.params("a"), w.timers()) == ("QUEUED", 1, {"n": 1}, {})
    assert caching.name_of(w.execution, "a", 1) == ""
    assert stores(w.done("a", output=3)) == [CacheStore(name, b"3", 3_600_000)]
    assert w.ended == "COMPLETED"


def test_the_name_is_of_the_task_and_the_key(world):
    """Another key or another task is another entry; another execution, node or document is not."""
    other = {"nodes": {"b": {"task": "t", "cache": {"key": "k-1"}}}}
    third = {"nodes": {"b": {"task": "u", "cache": {"key": "k-1"}}}}
    first = caching.name_of(world(DOCUMENT).start({"n": 1}).execution, "a", 1)
    assert first == caching.name_of(world(other).start().execution, "b", 1)
    assert first != caching.name_of(world(third).start().execution, "b", 1)
    assert first != caching.name_of(world(DOCUMENT).start({"n": 2}).execution, "a", 1)


def test_only_the_first_attempt_is_looked_up(world):
    """A retry after a failure goes straight to a worker; copies and late answers change nothing."""
    w = world(DOCUMENT).start({"n": 1})
    found(w, "a")
    found(w, "a", b"7")
    assert w.status("a") == "QUEUED"
    w.fail("a")
    w.verdict("a", 0)
    w.due("a")
    assert (w.status("a"), w.attempt("a")) == ("QUEUED", 2)


def test_a_lookup_holds_a_slot(world):
    """`max_parallel` counts lookups: each may become an attempt in flight."""
    cache = {"key": "k"}
    nodes = {name: {"task": "t", "cache": cache} for name in ("a", "b", "c")}
    w = world({"max_parallel": 2, "nodes": nodes}).start()
    assert sorted(w.execution.lookups) == [0, 1]
    found(w, "a")
    assert (len(w.execution.lookups), w.status("a")) == (1, "QUEUED")
    found(w, "b", b"1")
    assert sorted(w.execution.lookups) == [2]


def test_a_pause_puts_the_dispatch_off(world):
    """A miss during a pause is looked up again after it; a hit completes the node."""
    w = world({"nodes": {"a": DOCUMENT["nodes"]["a"], "b": DOCUMENT["nodes"]["a"]}}).start({"n": 1})
    w.pause()
    found(w, "a")
    found(w, "b", b"1")
    assert (w.statuses, w.timers()) == ({"a": "WAITING", "b": "COMPLETED"}, {})
    w.resume()
    assert w.timers() == {f"cache|{w.execution.id}/a/1": w.now}
    found(w, "a")
    assert w.status("a") == "QUEUED"


def test_a_lookup_can_be_cancelled(world):
    """A cancel ends the lookup."""
    w = world(DOCUMENT).start({"n": 1})
    w.cancel()
    assert (w.ended, w.timers(), w.attempts("a")[0]["status"]) == ("CANCELLED", {}, "CANCELLED")


def test_a_key_that_fails_fails_the_node(world):
    """A key that cannot be evaluated is the author's to mend."""
    w = world(DOCUMENT).start({})
    assert (w.ended, w.execution.error.type) == ("FAILED", "ExpressionError")


def test_what_was_undone_is_not_taken_from_the_cache(world):
    """After a retry it is done again: the cache may hold the output that was undone."""
    a = {**DOCUMENT["nodes"]["a"], "compensate": {"task": "u"}}
    w = world({"nodes": {"a": a, "b": {"task": "t", "depends_on": ["a"]}}}).start({"n": 1})
    found(w, "a", b"1")
    w.fail_for_good("b")
    w.done("a~compensate")
    w.retry()
    assert (w.status("a"), w.timers()) == ("QUEUED", {})
    assert stores(w.done("a", output=2))
    w.done("b")
    assert w.ended == "COMPLETED"
