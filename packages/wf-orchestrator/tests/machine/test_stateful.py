"""Random histories: duplicated, late, stale and reordered events of every kind, against what must hold at every cut."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from wf_core import ids, wire
from wf_core.continuing import next_of
from wf_core.states import NodeStatus
from wf_orchestrator.machine.decide import LATE_MS, decide
from wf_orchestrator.machine.joins import RULES
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import PartitionState

QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=100, stateful_step_count=40)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A document of up to eight nodes in any shape; of some, workers may go on from node to node by themselves."""
    size, alike = draw(st.integers(1, 8)), draw(st.booleans())
    nodes: dict[str, Any] = {}
    for i in range(size):
        upstream = draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set()
        node: dict[str, Any] = {
            "task": "t",
            "depends_on": [f"n{u}" for u in sorted(upstream)],
            "join": draw(st.sampled_from(sorted({*RULES, "always"} - {"caught"}))),
            "on_error": draw(st.sampled_from(["fail", "fail", "continue"])),
            "priority": draw(st.integers(0, 9)),
            "queue": draw(st.sampled_from(["default", "slow"])),
        }
        if alike:
            node |= {"join": "all_success", "priority": 5, "queue": "default"}
        if upstream and draw(st.booleans()):
            node["params"] = {"x": f"${{{{ nodes.n{min(upstream)}.output }}}}"}
        if draw(st.integers(0, 5)) == 0:
            node["when"] = draw(st.sampled_from(["false", "input.missing", "true"]))
        nodes[f"n{i}"] = node
    document: dict[str, Any] = {"nodes": nodes, "on_failure": draw(st.sampled_from(["halt", "cancel", "continue"]))}
    if draw(st.booleans()):
        document["max_parallel"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        document["timeout"] = "1h"
    return document


def possible(draw: Any, w: Any) -> list[tuple[type[Any], dict[str, Any]]]:
    """Kinds of records about a node, with their fields."""
    error = wire.Failure(type="Oops", message="m")
    return [
        (wire.Result, {"output": b"1"}),
        (wire.Result, {"output": b'{"k":2}'}),
        (wire.Result, {"status": "FAILED", "error": error}),
        (wire.Result, {"status": "TIMED_OUT", "error": error}),
        (wire.Result, {"status": "CANCELLED"}),
        (wire.Decision, {"delay_ms": draw(st.sampled_from([None, 0, 100])), "reason": "r", "policy": "p"}),
        (wire.Timer, {"timer": "retry"}),
        (wire.Lost, {"reason": draw(st.sampled_from(["dead", "orphan", "drain", "withdrawn"])), "worker": "w1"}),
        (wire.Unsendable, {"error": error}),
        (wire.Expanded, {"document": "d"}),
    ]


def moves(draw: Any, w: Any) -> Any:
    """An event that might happen next to one of the nodes; also when there is no execution."""
    node = draw(st.sampled_from([plan.id for plan in w.plan.nodes]))
    attempt = (w.attempt(node) if w.x else 1) + draw(st.sampled_from([0, 0, 0, 0, -1, 1]))
    kind, values = draw(st.sampled_from(possible(draw, w)))
    if kind is not wire.Expanded:
        values = {**values, "attempt": attempt}
    if kind is wire.Result:
        values = {**values, "worker": "w1", "started_at": w.now, "ended_at": w.now + 1}
        values |= begins(w, node, attempt, values) if draw(st.booleans()) else {}
    return w.record(kind, node=node, **values)


def begins(w: Any, node: str, attempt: int, result: dict[str, Any]) -> dict[str, Any]:
    """What the result says if its worker goes on by itself, as far as its tail lets it."""
    message = w.messages.get(ids.token(w.log[0].execution, node, attempt))
    found = next_of(message, result["output"]) if message is not None and "output" in result else None
    if found is None:
        return {}
    following, begin = found
    w.messages[ids.token(following.execution, following.node, following.attempt)] = following
    return {"begin": begin, "v": wire.BEGINS}


COMMANDS: list[tuple[type[Any], dict[str, Any]]] = [
    (wire.Triggered, {"id": "t"}),
    (wire.Cancelled, {"id": "k"}),
    (wire.Timer, {"timer": "deadline"}),
    (wire.Expired, {}),
]


def rarely(draw: Any, w: Any) -> Any:
    """An event about the whole execution, perhaps ten minutes later: command, deadline, retention, new request."""
    w.now += draw(st.sampled_from([0, 0, LATE_MS // 2, LATE_MS]))
    kind, values = draw(st.sampled_from([*COMMANDS, (wire.Expired, {}), (wire.Created, {})]))
    if kind is wire.Created:
        values = {"id": "c", "document": w.plan.hash, "name": "test", "labels": {"team": "a"}, "settings": w.settings}
    return w.record(kind, **values)


def drain(w: Any) -> None:
    """Lets everything that is under way come to its end."""
    for _ in range(200):
        if w.x is None or w.x.status.is_terminal:
            return
        for node in w.statuses:
            if w.status(node) == "QUEUED":
                w.send(w.result(node, output=b"null", **begins(w, node, w.attempt(node), {"output": b"null"})))
            elif w.status(node) == "RETRYING":
                w.verdict(node, None) if w.execution.is_undecided(w.plan.index_of[node]) else w.due(node)
    raise AssertionError(f"never ends: {w.statuses}")


def test_random_histories(world):
    """Terminal states absorb until retention deletes, attempts only grow, what is stored is what is known.

    No record makes an execution twice, whenever its copies come, and every execution can end.
    """

    class Machine(RuleBasedStateMachine):
        w: Any = None

        @initialize(document=documents(), budget=st.integers(0, 2))
        def begin(self, document: dict[str, Any], budget: int) -> None:
            self.w = world(document, settings=wire.FrozenSettings(max_platform_retries=budget)).create({})
            self.before = list(self.w.execution.cells)
            self.end = self.w.execution.status
            self.births = [self.w.log[0]]
            self.held: list[Any] = []

        @rule()
        def trigger(self) -> None:
            self.w.trigger()

        @rule(data=st.data())
        def something_happens(self, data: Any) -> None:
            self.w.send(moves(data.draw, self.w))

        @rule(data=st.data(), rare=st.integers(0, 2))
        def something_is_late(self, data: Any, rare: int) -> None:
            self.held.append(rarely(data.draw, self.w) if rare == 0 else moves(data.draw, self.w))

        @precondition(lambda self: self.held)
        @rule(data=st.data())
        def what_was_late_comes(self, data: Any) -> None:
            self.w.send(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

        @precondition(lambda self: len(self.w.log) > 2)
        @rule(data=st.data())
        def an_old_record_comes_again(self, data: Any) -> None:
            self.w.send(data.draw(st.sampled_from(self.w.log)))

        @rule(data=st.data(), really=st.integers(0, 3))
        def something_happens_to_the_whole(self, data: Any, really: int) -> None:
            if really == 0:
                self.w.send(rarely(data.draw, self.w))

        @invariant()
        def terminal_states_absorb_and_attempts_grow(self) -> None:
            if self.w is None:
                return
            if self.w.x is None:
                assert self.end.is_terminal
                assert self.w.partition.expired > 0
                self.before = []
                return
            if not self.before:
                assert self.w.log[-1] not in self.births
                self.births.append(self.w.log[-1])
                self.before, self.end = list(self.w.execution.cells), self.w.execution.status
            for old, new in zip(self.before, self.w.execution.cells, strict=True):
                assert not old.status.is_terminal or old == new
                assert new.attempt >= old.attempt
                assert new.lost >= old.lost
            assert not self.end.is_terminal or self.end is self.w.execution.status
            self.before, self.end = list(self.w.execution.cells), self.w.execution.status

        def teardown(self) -> None:
            if self.w is not None:
                self.w.trigger()
                drain(self.w)
                assert self.w.x is None or self.w.execution.status.is_terminal

    run_state_machine_as_test(Machine, settings=QUIET)


@QUIET
@given(data=st.data())
def test_replay_in_pieces(world, data):
    """Folding a log in one go, or in batches of any size from what was stored between them, gives the same bytes."""
    w = world(data.draw(documents()), settings=wire.FrozenSettings(max_platform_retries=1)).start({})
    for _ in range(data.draw(st.integers(0, 25))):
        w.send(rarely(data.draw, w) if data.draw(st.integers(0, 6)) == 0 else moves(data.draw, w))
        if data.draw(st.integers(0, 9)) == 0:
            w.send(data.draw(st.sampled_from(w.log)))
    w.trigger()
    drain(w)
    other = type(w.store)()
    partition, offset = PartitionState(), 0
    while offset < len(w.log):
        batch = w.log[offset : offset + data.draw(st.integers(1, 10))]
        partition.expired = int(other.get(w.keys.expired) or 0)
        x = other.load(w.log[0].execution, w.plan)
        outcomes = []
        for event in batch:
            outcomes.append(decide(partition, x, event, offset, w.plan))
            x = outcomes[-1].execution
            offset += 1
        other.apply(to_ops(w.keys, outcomes))
    assert other.keys == w.store.keys
    assert partition == w.partition


@QUIET
@given(data=st.data())
def test_decide_is_deterministic(world, data):
    """The same event on the same state gives an equal outcome, and equal operations."""
    w = world(data.draw(documents())).start({})
    for _ in range(data.draw(st.integers(0, 15))):
        shared = [w.plan, *(scope.body for scope in (w.x.scopes.values() if w.x else ()))]
        x, partition = copy.deepcopy(w.x, {id(one): one for one in shared}), copy.copy(w.partition)
        event = rarely(data.draw, w) if data.draw(st.integers(0, 6)) == 0 else moves(data.draw, w)
        twin = decide(partition, x, event, len(w.log), w.plan)
        assert w.send(event) == twin
        assert to_ops(w.keys, [w.last]) == to_ops(w.keys, [twin])


ENDS = {"done": NodeStatus.COMPLETED, "fail": NodeStatus.FAILED}


def expected(w: Any, ends: dict[str, str]) -> dict[str, str]:
    """Where every node must end when nothing halts: computed once, from the top, by the words of language.md."""
    status: dict[str, str] = {}
    for node in w.plan.nodes:
        graph = w.plan.graph
        above = [w.plan.nodes[i] for i in graph.upstream[node.index]]
        kinds = ["success" if status[u.id] == "COMPLETED" or (status[u.id] == "FAILED" and u.on_error == "continue")
                 else "skip" if status[u.id] == "SKIPPED" else "failure" for u in above]  # fmt: skip
        yes = not kinds or {
            "all_success": all(k == "success" for k in kinds), "all_done": True,
            "all_failed": all(k == "failure" for k in kinds), "any_success": "success" in kinds,
            "any_failed": "failure" in kinds, "none_failed": "failure" not in kinds,
            "none_failed_min_one_success": "failure" not in kinds and "success" in kinds,
            "none_skipped": "skip" not in kinds,
        }[node.join]  # fmt: skip
        if yes:
            status[node.id] = str(ENDS[ends[node.id]])
        else:
            wants = "success" in node.join or node.join == "none_failed"
            status[node.id] = "UPSTREAM_FAILED" if wants and "failure" in kinds else "SKIPPED"
    return status


@QUIET
@given(data=st.data())
def test_the_order_of_ends_never_matters(world, data):
    """With `on_failure: continue` every node ends the same, whichever attempt ends first."""
    document = data.draw(documents())
    document["on_failure"] = "continue"
    for node in document["nodes"].values():
        node.pop("when", None)
    w = world(document).start({})
    ends = {node: data.draw(st.sampled_from(["done", "fail"])) for node in w.statuses}
    while not w.execution.status.is_terminal:
        running = [node for node, status in w.statuses.items() if status == "QUEUED"]
        node = data.draw(st.sampled_from(running))
        w.done(node) if ends[node] == "done" else w.fail_for_good(node)
    assert w.statuses == expected(w, ends)
    failed = any(s == "FAILED" and w.plan.nodes[i].on_error == "fail" for i, s in enumerate(w.statuses.values()))
    assert w.ended == ("FAILED" if failed else "COMPLETED")


@QUIET
@given(data=st.data())
def test_after_a_halt_only_clean_up_starts(world, data):
    """Once an execution halts, every dispatch is of a clean-up node or of one that comes after such a node."""
    document = data.draw(documents())
    document["on_failure"] = data.draw(st.sampled_from(["halt", "cancel"]))
    w = world(document).start({})
    cleaning = {node.id for node in w.plan.nodes if node.join in ("all_done", "all_failed", "any_failed")}
    for node in w.plan.nodes:
        if any(w.plan.nodes[u].id in cleaning for u in w.plan.graph.upstream[node.index]):
            cleaning.add(node.id)
    while not w.execution.status.is_terminal:
        seen = len(w.dispatched)
        halting = w.execution.halting
        node = data.draw(st.sampled_from([n for n, s in w.statuses.items() if s == "QUEUED"]))
        w.fail_for_good(node) if data.draw(st.booleans()) else w.done(node)
        assert not halting or {token.split("/")[1] for token in w.dispatched[seen:]} <= cleaning
    assert (w.execution.error is None) == (w.ended == "COMPLETED")
