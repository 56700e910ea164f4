"""Random histories with workers that go on by themselves, some of them although they should have stopped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from wf_core import ids, wire
from wf_core.continuing import next_of
from wf_core.states import NodeStatus
from wf_orchestrator.machine.effects import Begun, Dispatch, Ended

QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=100, stateful_step_count=40)
IN_VAIN = ("dead", "drain")
"""Why an attempt is lost whose worker begins nothing any more, or never did."""


@st.composite
def bodies(draw: st.DrawFn, name: str = "n") -> dict[str, Any]:
    """Nodes most of which only wait for the one before them."""
    nodes: dict[str, Any] = {}
    for i in range(draw(st.integers(2, 4))):
        upstream = {f"{name}{i - 1}"} if i and draw(st.integers(0, 4)) else set()
        if i > 1 and draw(st.integers(0, 3)) == 0:
            upstream.add(f"{name}{draw(st.integers(0, i - 2))}")
        node: dict[str, Any] = {"task": "t", "depends_on": sorted(upstream)}
        if name == "n" and draw(st.integers(0, 5)) == 0:
            inner = draw(bodies("k"))
            kind = draw(st.sampled_from(["map", "loop"]))
            node = {"kind": kind, "depends_on": sorted(upstream), "nodes": inner}
            node |= {"items": [1, 2]} if kind == "map" else {"until": "iteration == 1", "max_iterations": 2}
            if draw(st.booleans()):
                node["retry"] = {"max_retries": 1, "delay": "0s", "jitter": 0}
        elif upstream and draw(st.booleans()):
            node["params"] = {"x": f"${{{{ nodes.{min(upstream)}.output }}}}"}
        if draw(st.integers(0, 6)) == 0:
            node["on_error"] = "continue"
        nodes[f"{name}{i}"] = node
    return nodes


@dataclass
class Stray:
    """An attempt that was taken from its worker, which does not know it yet."""

    token: str
    since: int
    """Records in the log when it was taken away."""


class Machine(RuleBasedStateMachine):
    """Workers that run what they are given and what they began, and one user."""

    make: Any = None
    w: Any = None
    vain: list[wire.Result]
    """Results of workers that were cut off when they had them: they begin nothing, and nobody knows when they come."""

    @initialize(nodes=bodies(), on_failure=st.sampled_from(["halt", "cancel", "continue"]))
    def start(self, nodes: dict[str, Any], on_failure: str) -> None:
        self.ran: Counter[str] = Counter()
        self.flying: dict[str, int] = {}
        self.strays: list[Stray] = []
        self.vain = []
        self.completed: list[int] = []
        """When each attempt that completed came into flight."""
        self.w = self.make({"nodes": nodes, "on_failure": on_failure}).create()
        self.send(self.w.record(wire.Triggered, id="t"))

    def send(self, event: Any) -> None:
        w = self.w
        about = ids.token(w.execution.id, event.node, event.attempt) if hasattr(event, "node") else ""
        if isinstance(event, wire.Result) and event.status == "COMPLETED" and about in self.flying:
            self.completed.append(self.flying[about])
        w.send(event)
        for effect in w.last.effects:
            if isinstance(effect, Dispatch | Begun):
                self.flying[effect.token] = len(w.log)
                self.ran[effect.token] += isinstance(effect, Dispatch)
            elif isinstance(effect, Ended):
                self.flying.pop(effect.token, None)
                if effect.token != about:
                    self.strays.append(Stray(effect.token, len(w.log)))

    def paths_in_flight(self) -> list[str]:
        return sorted(ids.split_token(token)[1] for token in self.flying)

    def in_flight(self, data: Any) -> str | None:
        paths = self.paths_in_flight()
        return data.draw(st.sampled_from(paths)) if paths else None

    @rule(data=st.data(), goes_on=st.integers(0, 3))
    def an_attempt_completes(self, data: Any, goes_on: int) -> None:
        if (node := self.in_flight(data)) is None:
            self.a_user_retries(data)
            return
        self.complete(node, goes_on=goes_on > 0)

    def complete(self, node: str, *, goes_on: bool = True) -> None:
        """An attempt in flight completes; what its worker goes on with is its own."""
        token = ids.token(self.w.execution.id, node, self.w.attempt(node))
        if goes_on and next_of(self.w.messages[token], b"1") is not None:
            begun = self.begin(token)
            assert begun in self.flying, f"{begun} was begun in vain, and its worker goes on"
        else:
            self.send(self.w.result(node, output=b"1"))

    def begin(self, token: str) -> str:
        """The worker of an attempt goes on; the token that it runs then."""
        _, node, attempt = ids.split_token(token)
        event = self.w.begins(node, 1, attempt)
        begun = ids.token(event.execution, event.begin.node, event.begin.attempt)
        self.ran[begun] += 1
        self.send(event)
        return begun

    @rule(data=st.data())
    def an_attempt_fails(self, data: Any) -> None:
        if (node := self.in_flight(data)) is not None:
            error = wire.Failure(type="Oops", message="m")
            self.send(self.w.result(node, status="FAILED", error=error))

    @rule(data=st.data(), reason=st.sampled_from(IN_VAIN))
    def an_attempt_is_lost(self, data: Any, reason: str) -> None:
        if (node := self.in_flight(data)) is not None:
            attempt = self.w.attempt(node)
            if reason == "dead" and next_of(self.w.message(node), b"1") is not None:
                self.vain.append(self.w.begins(node, 1, attempt))
            self.send(self.w.record(wire.Lost, node=node, attempt=attempt, reason=reason, worker="w1"))

    @rule(data=st.data())
    def a_worker_that_was_cut_off_comes_back(self, data: Any) -> None:
        """Its result is refused, and soon the attempt completes that was made in place of its own."""
        if self.vain:
            late = self.vain.pop(data.draw(st.integers(0, len(self.vain) - 1)))
            self.send(msgspec.structs.replace(late, ts=self.w.now))
            if late.node in self.paths_in_flight() and data.draw(st.booleans()):
                self.complete(late.node)

    @rule(data=st.data(), again=st.booleans())
    def a_policy_decides(self, data: Any, again: bool) -> None:
        x = self.w.execution
        asked = [i for i, cell in enumerate(x.cells) if cell.status is NodeStatus.RETRYING]
        if not asked:
            return
        index = data.draw(st.sampled_from(asked))
        about = {"node": x.path(index), "attempt": x.cells[index].attempt}
        if x.is_undecided(index):
            delay = 0 if again else None
            self.send(self.w.record(wire.Decision, delay_ms=delay, reason="r", policy="p", **about))
        else:
            self.send(self.w.record(wire.Timer, timer="retry", **about))

    @rule(kind=st.sampled_from([wire.Paused, wire.Resumed]), rare=st.integers(0, 3))
    def a_user_pauses_or_resumes(self, kind: Any, rare: int) -> None:
        if rare == 0:
            self.send(self.w.record(kind, id=f"p{len(self.w.log)}"))

    @rule(data=st.data(), rare=st.integers(0, 1))
    def a_user_cancels(self, data: Any, rare: int) -> None:
        if rare == 0 and self.flying:
            self.send(self.w.record(wire.Cancelled, id=f"k{len(self.w.log)}"))
            self.a_worker_does_not_know_that_it_must_stop(data)

    @rule(data=st.data())
    def a_user_retries(self, data: Any) -> None:
        if self.w.execution.status.is_terminal:
            nodes = data.draw(st.lists(st.sampled_from(sorted(self.w.plan.index_of)), max_size=2))
            self.send(self.w.record(wire.Retried, id=f"a{len(self.w.log)}", nodes=tuple(nodes)))
            self.a_worker_does_not_know_that_it_must_stop(data)

    @rule(data=st.data())
    def a_worker_does_not_know_that_it_must_stop(self, data: Any) -> None:
        """It goes on, but not for as long as it takes to run again what was taken from it."""
        able = [
            stray
            for stray in self.strays
            if stray.token in self.w.messages
            and next_of(self.w.messages[stray.token], b"1") is not None
            and not any(since >= stray.since for since in self.completed)
        ]
        if able and data.draw(st.booleans()):
            stray = data.draw(st.sampled_from(able))
            self.strays.remove(stray)
            self.strays.append(Stray(self.begin(stray.token), stray.since))

    @rule(data=st.data())
    def a_record_comes_again(self, data: Any) -> None:
        self.send(data.draw(st.sampled_from([e for e in self.w.log if not isinstance(e, wire.Created)])))

    @invariant()
    def no_attempt_runs_twice(self) -> None:
        if self.w is not None:
            assert [token for token, times in self.ran.items() if times > 1] == []

    def teardown(self) -> None:
        if self.w is None or self.w.execution.status.is_terminal:
            return
        self.send(self.w.record(wire.Resumed, id="last"))
        for _ in range(300):
            if self.w.execution.status.is_terminal:
                return
            for token in list(self.flying):
                if token in self.flying:
                    _, node, attempt = ids.split_token(token)
                    self.send(self.w.result(node, attempt, output=b"1"))
            x = self.w.execution
            for index, cell in enumerate(x.cells):
                if cell.status is NodeStatus.RETRYING:
                    about = {"node": x.path(index), "attempt": cell.attempt}
                    self.send(self.w.record(wire.Decision, delay_ms=None, reason="r", policy="p", **about))
                    self.send(self.w.record(wire.Timer, timer="retry", **about))
        raise AssertionError(f"never ends: {self.w.statuses}")


def test_random_histories_with_tails(world):
    """No attempt runs twice, whoever begins it: by the outbox, by its predecessor's worker, or by one that strayed.

    What is stored is what is known, and every execution can end.
    """

    class Tails(Machine):
        make = staticmethod(world)

    run_state_machine_as_test(Tails, settings=QUIET)
