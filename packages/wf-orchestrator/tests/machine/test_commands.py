"""Commands carry ids: copies are ignored, and what needs no folding is said to be done."""

from __future__ import annotations

import pytest

from wf_core import wire
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import Accepted, Ended
from wf_orchestrator.machine.state import KEPT_COMMANDS, PartitionState

NODES = {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}


def only_accepted(outcome):
    return not (
        outcome.changed_nodes or outcome.changed_fields or outcome.history or outcome.moved or outcome.results
    ) and [type(effect) for effect in outcome.effects] == [Accepted]


def test_copies_of_commands_change_nothing(world):
    """A command that comes again, or too late, only takes its entry out of the accepted ones."""
    w = world({"nodes": NODES}).start()
    for event in list(w.log):
        assert only_accepted(w.send(event))
    assert only_accepted(w.trigger(command="another"))
    w.done("a", "b")
    assert only_accepted(w.cancel())
    assert only_accepted(w.trigger(command="late"))
    assert w.ended == "COMPLETED"


def test_an_id_is_obeyed_once(world):
    """A command whose id was obeyed before is a copy, whatever it asks for."""
    w = world({"nodes": NODES}).create()
    assert only_accepted(w.trigger(command="c"))
    w.trigger(command="t")
    assert only_accepted(w.cancel(command="t"))
    assert w.ended == "RUNNING"


def test_cancel_ends_every_node_at_once(world):
    """A cancel ends every node, in whatever status, and then the execution; a late result changes nothing."""
    nodes = {**NODES, "r": {"task": "t"}, "d": {"task": "t"}, "done": {"task": "t"}}
    w = world({"nodes": nodes, "timeout": "1h"}).start()
    w.done("done")
    w.fail("r")
    w.fail("d")
    w.verdict("d", 1000)
    outcome = w.cancel("enough")
    assert Ended(f"{w.execution.id}/a/1", "default", cancel=True) in outcome.effects
    assert Accepted(f"{w.execution.id}/cancel") in outcome.effects
    assert w.statuses == {"a": "CANCELLED", "b": "CANCELLED", "r": "CANCELLED", "d": "CANCELLED", "done": "COMPLETED"}
    assert (w.ended, w.timers()) == ("CANCELLED", {})
    assert b"enough" in w.history("execution.cancelling")[0]["data"]
    late = w.send(w.result("a", 1, output=b"1"))
    assert (late.changed_nodes, late.results, late.effects) == ({}, {}, [])


def test_cancel_before_the_trigger(world):
    """An execution that was never triggered can be cancelled, and not be triggered afterwards."""
    w = world({"nodes": NODES}).create()
    w.cancel()
    assert (w.ended, set(w.statuses.values())) == ("CANCELLED", {"CANCELLED"})
    assert only_accepted(w.trigger())


def test_cancel_while_halting(world):
    """A cancel while the execution halts ends it as CANCELLED, with the failure kept."""
    w = world({"nodes": {"bad": {"task": "t"}, "slow": {"task": "t"}}}).start()
    w.fail_for_good("bad")
    w.cancel()
    assert (w.ended, w.status("slow")) == ("CANCELLED", "CANCELLED")
    assert w.execution.error is not None
    assert w.execution.error.node == "bad"


@pytest.mark.parametrize("kind", [wire.Triggered, wire.Cancelled])
def test_a_command_that_overtook_the_creation_is_not_accepted(world, kind):
    """A trigger or cancel of an execution that does not exist yet changes nothing and stays accepted."""
    w = world({"nodes": NODES})
    outcome = w.send(w.record(kind, id="x"))
    assert (outcome.execution, outcome.effects) == (None, [])


def test_commands_are_kept_to_a_limit(world):
    """An execution keeps the ids of its last 256 commands, and its request."""
    w = world({"nodes": NODES}).create()
    w.execution.commands = [(str(n), "") for n in range(KEPT_COMMANDS)]
    w.check = False
    w.trigger(command="new")
    assert len(w.execution.commands) == KEPT_COMMANDS
    assert w.execution.commands[-1] == ("new", "")
    assert w.execution.commands[0] == ("1", "")


def test_records_before_the_trigger_change_nothing(world):
    """A result for an execution that is PENDING, or that nobody created, is ignored."""
    w = world({"nodes": NODES})
    stray = w.result("a", 1, output=b"1")
    assert decide(PartitionState(), None, stray, 0).execution is None
    w.create()
    assert not w.send(stray).changed_nodes


def test_records_about_unknown_nodes_change_nothing(world):
    """A record about a node that the document lacks is ignored."""
    w = world({"nodes": NODES}).start()
    outcome = w.send(w.result("nobody", 1, output=b"1"))
    assert (outcome.changed_nodes, outcome.effects) == ({}, [])
