"""`workflow` nodes: what the machine decides about child executions, and what it asks of the shell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wf_core import ids, wire
from wf_core.ids import child_execution_id, partition_of
from wf_core.states import ExecutionStatus
from wf_orchestrator.child_records import birth, closed, end, inherited, said, useless
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import ClearTimer, SetTimer
from wf_orchestrator.machine.kinds.workflow import signal_down
from wf_orchestrator.machine.step import Step

from .conftest import EXECUTION_ID, KEYS, World, compiled

INLINE = {"nodes": {"a": {"task": "core.echo", "params": {"value": "${{ input.n }}"}}}}
OUTSIDE = ("close|", "down|", "child|")
BY: dict[str, Any] = {"source": "test", "now": 5}


class Family(World):
    """A world in which timers about other executions may outlive this one."""

    def timers(self) -> dict[str, int]:
        return {name: due for name, due in super().timers().items() if not name.startswith(OUTSIDE)}

    def outside(self) -> set[str]:
        return {name for name in self.store.get(KEYS.timers) or {} if name.startswith((*OUTSIDE, "spawn|"))}

    def child_ended(self, node: str, status: str = "COMPLETED", attempt: int | None = None, **values: Any) -> None:
        token = ids.token(EXECUTION_ID, node, self.attempt(node) if attempt is None else attempt)
        event = self.record(
            wire.ChildEnded,
            node=node,
            attempt=ids.split_token(token)[2],
            child=child_execution_id(token),
            status=status,
            **values,
        )
        self.send(event)


def family(**node: Any) -> Family:
    """A started execution whose node `c` runs an inline child, and `z` comes after it."""
    nodes = {
        "c": {"kind": "workflow", **INLINE, "input": {"n": "${{ input.n }}"}, **node},
        "z": {"task": "core.echo", "params": {"value": "${{ nodes.c.output }}"}},
    }
    world = Family({"nodes": nodes})
    world.start({"n": 7})
    return world


def token(attempt: int = 1) -> str:
    return ids.token(EXECUTION_ID, "c", attempt)


def test_begins_by_asking_for_a_child() -> None:
    """The node waits, its input is kept, and a timer has the shell start the child, whose id is told."""
    world = family()
    child = child_execution_id(token())
    assert world.status("c") == "WAITING"
    assert world.params("c") == {"n": 7}
    assert world.outside() == {f"spawn|{token()}"}
    results = world.store.get(KEYS.results(EXECUTION_ID))
    assert json.loads(results["ch:c"]) == child
    assert json.loads(world.history("node.child")[0]["data"]) == {"execution_id": child}
    assert partition_of(child) == partition_of(EXECUTION_ID)


def test_completes_with_the_childs_output() -> None:
    """A child that COMPLETED gives its output; a copy of the record changes nothing."""
    world = family()
    world.child_ended("c", output=b'{"x":1}')
    assert world.status("c") == "COMPLETED"
    assert world.params("z") == {"value": {"x": 1}}
    assert world.outside() == set()
    world.child_ended("c", "FAILED", error=wire.Failure(type="E", message="m"))
    assert world.status("c") == "COMPLETED"


def test_fails_with_the_childs_error() -> None:
    """A child that FAILED fails the node with its own error, which names the child as its cause."""
    world = family()
    world.child_ended("c", "FAILED", error=wire.Failure(type="Oops", message="broken", node="a", attempt=4))
    assert world.status("c") == "FAILED"
    assert world.ended == "FAILED"
    error = world.execution.error
    assert error is not None
    assert (error.type, error.message, error.node, error.attempt) == ("Oops", "broken", "c", 1)
    kept = world.attempts("c")[0]["error"]
    assert kept["causes"][0]["type"] == "ChildFailedError"
    assert child_execution_id(token()) in kept["causes"][0]["message"]
    assert "'a'" in kept["causes"][0]["message"]


def test_a_cancelled_child_fails_its_node() -> None:
    """A child that someone cancelled did not do what it was for."""
    world = family()
    world.child_ended("c", "CANCELLED")
    assert world.execution.error is not None
    assert world.execution.error.type == "ChildCancelledError"


def test_a_child_that_says_why_it_cancelled_itself() -> None:
    """The node's error has the reason in its message, and its type among its classes."""
    world = family()
    world.child_ended("c", "CANCELLED", error=wire.Failure(type="OutOfStock", message="none left", node="stop"))
    error = world.execution.error
    assert error is not None
    assert error.type == "ChildCancelledError"
    assert error.message.endswith("was cancelled: none left")
    assert world.attempts("c")[0]["error"]["classes"] == ["ChildCancelledError", "OutOfStock"]


@pytest.mark.parametrize("named", ["Oops", "ChildFailedError"])
def test_catch_takes_a_childs_error(named: str) -> None:
    """A `catch` names the child's own error, or that a child failed."""
    nodes = {
        "c": {"kind": "workflow", **INLINE, "catch": [{"errors": [named], "to": "mend"}]},
        "mend": {"task": "core.echo"},
    }
    world = Family({"nodes": nodes})
    world.start()
    world.child_ended("c", "FAILED", error=wire.Failure(type="Oops", message="broken"))
    assert world.status("mend") == "QUEUED"


def test_a_retry_starts_another_child() -> None:
    """With a `retry` of its own the node tries again: a new attempt, a new child; the old one's end is stale."""
    world = family(retry={"max_retries": 1})
    world.child_ended("c", "FAILED", error=wire.Failure(type="Oops", message="broken"))
    world.verdict("c", 0)
    world.due("c")
    assert world.attempt("c") == 2
    assert world.outside() == {f"spawn|{token(2)}"}
    world.child_ended("c", attempt=1, output=b"1")
    assert world.status("c") == "WAITING"
    world.child_ended("c", output=b"2")
    assert world.status("c") == "COMPLETED"


def test_a_cancel_closes_the_child() -> None:
    """Cancelling the parent has the shell cancel the child."""
    world = family()
    world.cancel()
    assert world.ended == "CANCELLED"
    assert world.outside() == {f"close|{token()}"}


def test_an_abandoned_child_is_left_alone() -> None:
    """With `on_parent_close: abandon` the child goes on."""
    world = family(on_parent_close="abandon")
    world.cancel()
    assert world.outside() == set()


def test_a_child_that_is_abandoned_during_a_pause_is_resumed() -> None:
    """Nobody else would resume it: its parent tells it nothing any more."""
    world = family(on_parent_close="abandon")
    world.send(world.record(wire.Paused, id="p"))
    world.cancel()
    told = [said(effect.token, **BY) for effect in world.last.effects if getattr(effect, "kind", "") == "down"]
    assert [type(one) for one in told] == [wire.Resumed]
    assert told[0].execution == child_execution_id(token())


def test_a_timeout_closes_the_child() -> None:
    """An attempt whose time is over fails, and its child is cancelled."""
    world = family(timeout="1s")
    assert f"timeout|{token()}" in world.timers()
    world.send(world.record(wire.Timer, timer="timeout", node="c", attempt=1))
    assert world.status("c") == "FAILED"
    assert world.attempts("c")[0]["status"] == "TIMED_OUT"
    assert world.outside() == {f"close|{token()}"}


def test_depth_is_limited() -> None:
    """A child below 32 others is never asked for: its node fails."""
    world = Family({"nodes": {"c": {"kind": "workflow", **INLINE, "input": {}}}})
    parent = wire.Parent(execution=EXECUTION_ID, node="x", attempt=1)
    world.send(
        world.record(
            wire.Created, id="c", document=world.plan.hash, name="test", labels={"team": "a"}, depth=32, parent=parent
        )
    )
    world.trigger()
    assert world.execution.error is not None
    assert world.execution.error.type == "DepthLimitError"
    assert not [name for name in world.outside() if name.startswith("spawn")]


def test_a_wrong_input_template_fails_the_node() -> None:
    """An input that cannot be evaluated fails the node, not the machine."""
    world = Family({"nodes": {"c": {"kind": "workflow", **INLINE, "input": {"n": "${{ input.no.such }}"}}}})
    world.start({})
    assert world.execution.error is not None
    assert world.execution.error.type == "ExpressionError"


# -- the child's side


def child_of(parent: Family, document: dict[str, Any] | None = None) -> Family:
    """The child of `c` as its records make it, in a world of its own (under its parent's id, which the world wants)."""
    x = parent.execution
    index = x.index_of("c")
    assert index is not None
    plan = compiled({**INLINE, **(document or {})})
    world = Family(plan)
    for event in birth(x, index, plan, document=None, **BY):
        values = {name: getattr(event, name) for name in event.__struct_fields__ if name != "execution"}
        if isinstance(event, wire.Created):
            values |= {"labels": {"team": "a"}, "name": "test"}
        world.send(type(event)(**{**values, "execution": EXECUTION_ID, "ts": world.now}))
    return world


def test_a_birth_inherits() -> None:
    """A child inherits labels, settings under the document's defaults, and the pinned definitions."""
    document = {
        "defaults": {"retry": {"max_retries": 9, "delay": "2s"}, "timeout": "5s"},
        "nodes": {"c": {"kind": "workflow", "workflow": "other", "input": {"n": 1}}},
    }
    world = Family(document)
    world.start()
    x = world.execution
    x.definitions = {"other": "h", "more": "i"}
    plan = compiled({**INLINE, "labels": {"team": "b", "own": "1"}})
    created, triggered = birth(x, 0, plan, document=None, **BY)
    assert isinstance(created, wire.Created)
    assert isinstance(triggered, wire.Triggered)
    assert created.labels == {"team": "a", "own": "1"}
    assert created.definitions == x.definitions
    assert created.depth == 1
    assert created.parent == wire.Parent(execution=EXECUTION_ID, node="c", attempt=1)
    assert (created.settings.retry.max_retries, created.settings.retry.delay_ms) == (9, 2000)
    assert created.settings.timeout_ms == 5000
    assert created.settings == inherited(x)
    assert created.execution == triggered.execution == child_execution_id(token())
    assert birth(x, 0, plan, document=None, **BY) == [created, triggered], "a copy is the same"


def test_a_birth_checks_the_input() -> None:
    """Input that the child's schema refuses never makes a child: its parent is told why. Defaults are filled in."""
    world = family()
    schema = {"type": "object", "properties": {"n": {"type": "string"}, "m": {"default": 3}}}
    (refused,) = birth(world.execution, 0, compiled({**INLINE, "input": schema}), document=None, **BY)
    assert isinstance(refused, wire.ChildEnded)
    assert refused.error is not None
    assert refused.error.type == "InvalidInputError"
    assert "/input/n" in refused.error.message
    schema["properties"]["n"] = {"type": "integer"}  # type: ignore[index]
    created = birth(world.execution, 0, compiled({**INLINE, "input": schema}), document=None, **BY)[0]
    assert isinstance(created, wire.Created)
    assert json.loads(created.input) == {"n": 7, "m": 3}


def test_a_child_answers_its_spawn_and_tells_its_end() -> None:
    """The fold of `triggered` clears the timer that asked for it; the end of the child sets one for its parent."""
    world = child_of(family())
    first = decide(world.partition, None, world.log[0], 0, world.plan)
    assert ClearTimer("spawn", token()) not in first.effects, "the log may lose what comes next"
    assert ClearTimer("spawn", token()) in decide(world.partition, first.execution, world.log[1], 1).effects
    assert world.params("a") == {"value": 7}
    world.done("a", output=7)
    assert world.ended == "COMPLETED"
    assert world.outside() == {f"child|{EXECUTION_ID}//0"}


def test_the_timers_of_the_family_are_answered() -> None:
    """Each record that a timer about another execution leads to clears it, as soon as it is folded where it belongs."""
    world = child_of(family())
    cancel = closed(token(), **BY)
    done = decide(world.partition, None, cancel, 9)
    assert done.effects == [], "a child that does not exist yet is told again"
    assert ClearTimer("close", token()) in decide(world.partition, world.execution, cancel, 9).effects
    ended = world.record(wire.ChildEnded, node="c", attempt=1, child=EXECUTION_ID, status="COMPLETED")
    assert decide(world.partition, None, ended, 9).effects == [ClearTimer("child", ids.token(EXECUTION_ID, "", 0))]


def test_what_is_of_no_use_is_looked_at_again() -> None:
    """A timer is given up only if the fold finds it so too: Redis may have been rolled back when the shell looked."""
    world = family()
    for kind in ("spawn", "close", "down", "child"):
        given_up = useless(kind, token(), **BY)
        assert decide(world.partition, None, given_up, 9).effects == [ClearTimer(kind, token())]
    assert decide(world.partition, world.execution, useless("spawn", token(), **BY), 9).effects == []
    assert decide(world.partition, world.execution, useless("spawn", token(2), **BY), 9).effects != []
    about = ids.token(EXECUTION_ID, "", 0)
    for kind in ("down", "child"):
        assert decide(world.partition, world.execution, useless(kind, about, **BY), 9).effects == []
    there = wire.Timer(execution=EXECUTION_ID, ts=5, source="test", timer="close", node=token())
    assert decide(world.partition, world.execution, there, 9).effects == []


def test_commands_are_passed_down() -> None:
    """A pause of the parent sets a timer for each child that runs; the child's fold of it clears the timer."""
    world = family()
    x = world.execution
    step = Step(world.partition, world.last, x, {})
    x.commands.append(("p1", ""))
    world.last.effects.clear()
    signal_down(step, "pause")
    (effect,) = world.last.effects
    assert isinstance(effect, SetTimer)
    told = said(effect.token, **BY)
    assert isinstance(told, wire.Paused)
    assert told.execution == child_execution_id(token())
    child = child_of(family())
    here = wire.Paused(execution=EXECUTION_ID, ts=child.now, source="test", id=told.id)
    effects = decide(child.partition, child.execution, here, 9).effects
    assert ClearTimer("down", ids.token(EXECUTION_ID, told.id, 0)) in effects


def test_a_long_output_is_refused() -> None:
    """An output that no record holds fails the node with what to do about it; others travel."""
    parent = wire.Parent(execution=EXECUTION_ID, node="c", attempt=1)
    fine = end("x", parent, ExecutionStatus.COMPLETED, b"1", None, **BY)
    assert (fine.status, fine.output) == ("COMPLETED", b"1")
    long = end("x", parent, ExecutionStatus.COMPLETED, b"1" * 2**20, None, **BY)
    assert long.status == "FAILED"
    assert long.error is not None
    assert "`output`" in long.error.message


def test_a_child_has_the_rules_of_its_parent() -> None:
    """However plain its document: a release that knows no parents must not end it."""
    x = family().execution
    index = x.index_of("c")
    assert index is not None
    created = birth(x, index, compiled(INLINE), document=None, **BY)[0]
    assert isinstance(created, wire.Created)
    assert created.rules == x.rules == 2
