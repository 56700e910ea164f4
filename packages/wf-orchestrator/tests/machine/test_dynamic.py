"""`dynamic` nodes: what a template gives is checked, frozen and run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wf_core import ids, wire
from wf_core.errors import DocumentError
from wf_core.plan import DynamicPlan
from wf_orchestrator.expansion_records import checked, expanded, waiting

from .conftest import EXECUTION_ID, World, compiled

ECHO = {"task": "core.echo"}
GIVEN = {
    "a": {"task": "core.echo", "params": {"value": "${{ input.n }}"}},
    "b": {"task": "core.echo", "params": {"value": "${{ nodes.a.output }}"}},
    "c": {"task": "core.echo"},
}


class Expanding(World):
    """A world that has the nodes of dynamic nodes checked, as the shell does."""

    def expand(self, node: str = "d") -> wire.Expanded:
        """The check that is due is done; its record."""
        x = self.execution
        token = ids.token(EXECUTION_ID, node, self.attempt(node))
        assert f"expand|{token}" in self.timers()
        index = waiting(x, token)
        assert index is not None
        self.now += 10
        event = expanded(x, index, source="test", now=self.now)
        self.send(event)
        return event


def dynamic(given: Any = None, **node: Any) -> Expanding:
    """A started execution whose node `d` gives the nodes of its input, and `z` comes after it."""
    nodes = {
        "d": {"kind": "dynamic", "nodes": "${{ input.nodes }}", **node},
        "z": {"task": "core.echo", "params": {"value": "${{ nodes.d.output }}"}},
    }
    world = Expanding({"nodes": nodes})
    world.start({"nodes": GIVEN if given is None else given, "n": 7})
    return world


def test_runs_what_the_template_gives() -> None:
    """The nodes run inside, by path, see the execution's input and each other; the output is that of all, by id."""
    world = dynamic()
    assert world.status("d") == "WAITING"
    assert set(world.timers()) == {f"expand|{EXECUTION_ID}/d/1"}
    world.expand()
    assert world.timers() == {}
    assert (world.status("d/a"), world.status("d/b"), world.status("d/c")) == ("QUEUED", "PENDING", "QUEUED")
    assert world.params("d/a") == {"value": 7}
    world.done("d/a", output=1)
    assert world.params("d/b") == {"value": 1}
    world.done("d/b", output=2)
    world.done("d/c", output=3)
    assert world.params("z") == {"value": {"a": 1, "b": 2, "c": 3}}
    world.done("z", output=4)
    assert world.ended == "COMPLETED"


def test_a_copy_of_the_check_changes_nothing() -> None:
    """Twice is once, before and after its nodes have ended."""
    world = dynamic()
    event = world.expand()
    before = dict(world.statuses)
    world.send(event)
    assert world.statuses == before
    world.done("d/a", "d/b", "d/c", output=1)
    world.send(event)
    assert world.status("d") == "COMPLETED"


def test_what_is_wrong_fails_the_node() -> None:
    """Nodes that are no document fail the node, saying what is wrong and where; a retry would not help."""
    world = dynamic({"a": {"task": "core.echo", "depends_on": ["nobody"]}}, retry={"max_retries": 3})
    world.expand()
    assert world.status("d") == "FAILED"
    error = world.execution.error
    assert error is not None
    assert error.type == "ExpansionError"
    assert "/nodes/a/depends_on" in error.message
    assert "nobody" in error.message


@pytest.mark.parametrize(("given", "kind"), [("text", "TypeError"), (7, "TypeError")])
def test_what_is_no_object_fails_the_node(given: Any, kind: str) -> None:
    """A template that gives something else fails the node, naming the type, without a check."""
    world = dynamic(given)
    assert world.execution.error is not None
    assert world.execution.error.type == kind
    assert "object of nodes" in world.execution.error.message


@pytest.mark.parametrize("given", [{}, []])
def test_no_nodes_are_done_at_once(given: Any) -> None:
    """An empty plan has nothing to check."""
    world = dynamic(given)
    assert (world.status("d"), world.timers()) == ("COMPLETED", {})
    assert world.params("z") == {"value": {}}


def test_a_failure_inside_fails_it() -> None:
    """A node inside that fails, fails the node, as anywhere."""
    world = dynamic()
    world.expand()
    world.done("d/c", output=1)
    world.fail_for_good("d/a")
    assert (world.status("d/b"), world.status("d")) == ("UPSTREAM_FAILED", "FAILED")
    assert world.execution.error is not None
    assert world.execution.error.node == "d/a"


def test_a_retry_starts_the_same_nodes_again() -> None:
    """Once right, the nodes are frozen: another attempt starts them again, and asks nobody."""
    world = dynamic({"a": ECHO}, retry={"max_retries": 2})
    world.expand()
    world.fail_for_good("d/a")
    world.verdict("d", 0)
    world.due("d")
    assert world.attempt("d") == 2
    assert world.timers() == {}
    assert world.status("d/a") == "QUEUED"
    assert world.attempt("d/a") == 2
    world.done("d/a", output=5)
    assert world.params("z") == {"value": {"a": 5}}


def test_a_cancel_ends_it() -> None:
    """A cancel ends it while it waits for its check, and while its nodes run."""
    world = dynamic()
    world.cancel()
    assert world.ended == "CANCELLED"
    world = dynamic()
    world.expand()
    world.cancel()
    assert (world.ended, world.status("d/a")) == ("CANCELLED", "CANCELLED")


def spec(*allow: str, most: int = 10) -> DynamicPlan:
    plan = compiled(
        {"nodes": {"d": {"kind": "dynamic", "nodes": "${{ input }}", "allow": list(allow), "max_nodes": most}}}
    )
    found = plan.nodes[0].spec
    assert isinstance(found, DynamicPlan)
    return found


def problems(nodes: Any, *allow: str, most: int = 10, pinned: dict[str, str] | None = None) -> dict[str, str]:
    """What is wrong with nodes: pointer → code."""
    with pytest.raises(DocumentError) as error:
        checked("d", nodes, spec(*(allow or ("*",)), most=most), pinned or {})
    return {problem.pointer: problem.code for problem in error.value.problems}


def test_only_allowed_tasks() -> None:
    """Every task at any depth must fit one of the patterns: in maps, in children, and those that undo."""
    nodes = {
        "a": {"task": "shop.price"},
        "b": {"task": "shell.run"},
        "m": {"kind": "map", "items": [1], "task": "shell.run"},
        "n": {"kind": "map", "items": [1], "nodes": {"x": {"task": "shell.run"}, "y": {"task": "shop.y"}}},
        "w": {"kind": "workflow", "nodes": {"x": {"task": "shell.run"}}},
        "u": {"task": "shop.a", "compensate": {"task": "shell.run"}},
    }
    assert problems(nodes, "shop.*", "core.*") == {
        "/nodes/b/task": "not_allowed",
        "/nodes/m/task": "not_allowed",
        "/nodes/n/nodes/x/task": "not_allowed",
        "/nodes/w/nodes/x/task": "not_allowed",
        "/nodes/u/compensate/task": "not_allowed",
    }


def test_a_dynamic_node_inside_allows_no_more() -> None:
    """Otherwise the list would say nothing."""
    inner = {"kind": "dynamic", "nodes": "${{ input.more }}"}
    assert problems({"d": inner}, "shop.*") == {"/nodes/d/allow": "not_allowed"}
    assert checked("d", {"d": {**inner, "allow": ["shop.*"]}}, spec("shop.*"), {})


def test_not_too_many_nodes() -> None:
    """Nodes are counted at every depth."""
    nodes = {"m": {"kind": "map", "items": [1], "nodes": {"x": ECHO, "y": ECHO}}}
    assert problems(nodes, most=2) == {"/nodes": "too_many"}
    assert checked("d", nodes, spec("*", most=3), {})


def test_only_pinned_definitions() -> None:
    """A child of a definition that was not pinned at creation cannot be started, and so is refused."""
    nodes = {
        "w": {"kind": "workflow", "workflow": "other"},
        "v": {"kind": "workflow", "workflow": "other", "version": "2"},
    }
    found = problems(nodes, pinned={"other": "h"})
    assert found == {"/nodes/v/workflow": "unknown_definition"}


def test_self_contained() -> None:
    """Its nodes name the input, the execution and each other, and nothing around them."""
    assert "/nodes/a/params/value" in problems({"a": {"task": "t", "params": {"value": "${{ nodes.z.output }}"}}})


@pytest.mark.parametrize("node_id", ["a-b", 'say "hi"', "back\\slash", "}} x", "ключ", "${{ x }}", "it's"])
def test_any_id(node_id: str) -> None:
    """The output has every node under its id, whatever it is called."""
    world = dynamic({node_id: ECHO})
    world.expand()
    world.done(f"d/{node_id}", output=1)
    assert world.params("z") == {"value": {node_id: 1}}


def test_a_list_of_nodes() -> None:
    """A list of nodes that each carry `id` means the same."""
    document = json.loads(checked("d", [{"id": "a", "task": "core.echo"}], spec("*"), {}))
    assert set(document["nodes"]) == {"a"}
