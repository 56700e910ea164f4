"""Joins: the truth table is computed here a second time, from the words of the specification."""

from __future__ import annotations

import itertools

import pytest

from wf_orchestrator.machine.joins import RULES, Answer, Tally, judge

SUCCESS, FAILURE, SKIP, OPEN = "success", "failure", "skip", "open"


def says(rule: str, ends: tuple[str, ...]) -> Answer:
    """What language.md says about a rule and the direct upstream ends, in its own order."""
    if not ends:
        return Answer.YES
    yes = {
        "all_success": lambda: all(e == SUCCESS for e in ends),
        "all_done": lambda: True,
        "all_failed": lambda: all(e == FAILURE for e in ends),
        "any_success": lambda: SUCCESS in ends,
        "any_failed": lambda: FAILURE in ends,
        "none_failed": lambda: FAILURE not in ends,
        "none_failed_min_one_success": lambda: FAILURE not in ends and SUCCESS in ends,
        "none_skipped": lambda: SKIP not in ends,
        "caught": lambda: True,
    }[rule]()
    if OPEN in ends:
        return Answer.YES if rule.startswith("any_") and yes else Answer.WAIT
    if yes:
        return Answer.YES
    wanted_success = "success" in rule or rule == "none_failed"
    return Answer.BLOCKED if wanted_success and FAILURE in ends else Answer.SKIP


@pytest.mark.parametrize("rule", list(RULES))
def test_truth_table(rule):
    """A join says what the specification says, for every combination of up to four upstream ends."""
    for size in range(5):
        for ends in itertools.product((SUCCESS, FAILURE, SKIP, OPEN), repeat=size):
            tally = Tally(size, ends.count(SUCCESS), ends.count(FAILURE), ends.count(SKIP))
            assert judge(RULES[rule], tally) is says(rule, ends), ends


@pytest.mark.parametrize("rule", list(RULES))
def test_an_early_yes_stays_a_yes(rule):
    """A rule that starts a node early would have started it at the end as well."""
    if not RULES[rule].early:
        return
    for ends in itertools.product((SUCCESS, FAILURE, SKIP, OPEN), repeat=4):
        if says(rule, ends) is Answer.YES:
            closed = itertools.product((SUCCESS, FAILURE, SKIP), repeat=ends.count(OPEN))
            known = tuple(e for e in ends if e != OPEN)
            assert all(says(rule, known + rest) is Answer.YES for rest in closed)


UPSTREAM = {
    "good": {"task": "t"},
    "bad": {"task": "t"},
    "skipped": {"task": "t", "when": "false"},
}
CASES = {
    "all_success": ("UPSTREAM_FAILED", "SKIPPED"),
    "all_done": ("QUEUED", "QUEUED"),
    "always": ("QUEUED", "QUEUED"),
    "all_failed": ("SKIPPED", "SKIPPED"),
    "any_success": ("QUEUED", "QUEUED"),
    "any_failed": ("QUEUED", "SKIPPED"),
    "none_failed": ("UPSTREAM_FAILED", "QUEUED"),
    "none_failed_min_one_success": ("UPSTREAM_FAILED", "QUEUED"),
    "none_skipped": ("SKIPPED", "SKIPPED"),
}


@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")])
@pytest.mark.parametrize("rule", list(CASES))
def test_a_join_over_real_nodes(world, rule, order):
    """A node with each rule ends, or starts, the same whichever upstream node ended first."""
    nodes = {
        **UPSTREAM,
        "failing": {"task": "t", "depends_on": ["good", "bad", "skipped"], "join": rule},
        "skipping": {"task": "t", "depends_on": ["good", "skipped"], "join": rule},
        "keeps": {"task": "t"},
    }
    w = world({"nodes": nodes, "on_failure": "continue"}).start()
    for node in order:
        w.done(node) if node == "good" else w.fail_for_good(node)
    assert (w.status("failing"), w.status("skipping")) == CASES[rule]


def test_any_success_starts_early(world):
    """`any_success` starts the node as soon as one upstream node succeeded."""
    nodes = {
        "a": {"task": "t"},
        "b": {"task": "t"},
        "c": {"task": "t", "depends_on": ["a", "b"], "join": "any_success"},
    }
    w = world({"nodes": nodes}).start()
    w.done("b")
    assert w.statuses == {"a": "QUEUED", "b": "COMPLETED", "c": "QUEUED"}
    w.done("c", "a")
    assert w.ended == "COMPLETED"


def test_a_no_waits_for_all(world):
    """A no is decided when all direct upstream nodes have ended, not before."""
    nodes = {"a": {"task": "t"}, "b": {"task": "t"}, "c": {"task": "t", "depends_on": ["a", "b"]}}
    w = world({"nodes": nodes, "on_failure": "continue"}).start()
    w.fail_for_good("a")
    assert w.status("c") == "PENDING"
    w.done("b")
    assert w.status("c") == "UPSTREAM_FAILED"


def test_a_failure_that_is_continued_counts_as_success(world):
    """A node that FAILED under `on_error: continue` is a success to joins, though its status says FAILED."""
    nodes = {
        "a": {"task": "t", "on_error": "continue"},
        "b": {"task": "t", "depends_on": ["a"]},
        "c": {"task": "t", "depends_on": ["a"], "join": "any_failed"},
        "d": {"task": "t", "depends_on": ["a"], "join": 'nodes.a.status == "FAILED"'},
    }
    w = world({"nodes": nodes}).start()
    w.fail_for_good("a")
    assert w.statuses == {"a": "FAILED", "b": "QUEUED", "c": "SKIPPED", "d": "QUEUED"}
    w.done("b", "d")
    assert w.ended == "COMPLETED"


def test_skips_travel_down(world):
    """A skip travels down through joins that want success, and stops at one that does not mind."""
    nodes = {
        "a": {"task": "t", "when": "false"},
        "b": {"task": "t", "depends_on": ["a"]},
        "c": {"task": "t", "depends_on": ["b"]},
        "d": {"task": "t", "depends_on": ["c"], "join": "none_failed"},
    }
    w = world({"nodes": nodes}).start()
    assert w.statuses == {"a": "SKIPPED", "b": "SKIPPED", "c": "SKIPPED", "d": "QUEUED"}


def test_a_join_expression(world):
    """A join expression over statuses is asked when all it names have ended; its no is a skip."""
    nodes = {
        "a": {"task": "t"},
        "b": {"task": "t"},
        "yes": {"task": "t", "join": 'nodes.a.status == "COMPLETED" || nodes.b.status == "COMPLETED"'},
        "no": {"task": "t", "depends_on": ["b"], "join": 'nodes.a.status == "COMPLETED"'},
    }
    w = world({"nodes": nodes, "on_failure": "continue"}).start()
    w.done("b")
    assert (w.status("yes"), w.status("no")) == ("PENDING", "PENDING")
    w.fail_for_good("a")
    assert (w.status("yes"), w.status("no")) == ("QUEUED", "SKIPPED")


def test_a_join_that_is_no_truth_value(world):
    """A join expression that gives something else than true or false fails the node, and says so."""
    nodes = {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"], "join": "size(nodes.a.status)"}}
    w = world({"nodes": nodes}).start()
    w.done("a")
    assert w.status("b") == "FAILED"
    assert w.execution.error is not None
    assert (w.execution.error.type, w.execution.error.node) == ("ExpressionError", "b")
    assert "true or false" in w.execution.error.message
