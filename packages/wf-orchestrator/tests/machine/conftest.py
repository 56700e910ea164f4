"""A world for the machine: it sends events, keeps a pure stand-in of the partition's Redis, and checks both."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from wf_testservers.memory import Store as MemoryStore

from wf_core import ids, wire
from wf_core.continuing import next_of
from wf_core.plan import Plan, load_plan
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document
from wf_core.states import ExecutionStatus, NodeStatus, ScopeState
from wf_core.store.keys import PartitionKeys
from wf_orchestrator.machine.decide import LATE_MS, decide
from wf_orchestrator.machine.effects import Begun, Dispatch, Effect, Ended, Outcome
from wf_orchestrator.machine.restore import fill, keep_results, result_fields, skeleton
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import Execution, PartitionState

KEYS = PartitionKeys.of("wf", 0)
EXECUTION_ID = ids.derived_execution_id("a key", 1)


class Store(MemoryStore):
    """What APPLY's operations do to Redis, and how the shell loads an execution from it."""

    def load(self, execution_id: str, plan: Plan, *, whole: bool = False) -> Execution | None:
        """Loads an execution as the shell does; `whole` before a retry."""
        fields = self.get(KEYS.execution(execution_id))
        if not fields:
            return None
        cells = bytes(self.get(KEYS.nodes(execution_id)) or b"")
        x = skeleton(execution_id, plan, fields, cells, self.get(KEYS.scopes(execution_id)) or {})
        results = self.get(KEYS.results(execution_id))
        if whole and x.status.is_terminal:
            return keep_results(x, results)
        return fill(x, {name: results[name] for name in result_fields(x) if name in results})


def compiled(document: dict[str, Any]) -> Plan:
    """The plan of a document, by way of its canonical bytes as in the log."""
    canonical = canonical_bytes(parse_document({"name": "test", **document}))
    return load_plan(canonical, document_hash(canonical))


class World:
    """One execution of a document, driven by hand."""

    def __init__(
        self, document: dict[str, Any] | Plan, *, settings: wire.FrozenSettings | None = None, check: bool = True
    ) -> None:
        self.plan = document if isinstance(document, Plan) else compiled(document)
        self.settings = settings or wire.FrozenSettings()
        self.check = check
        self.partition = PartitionState()
        self.x: Execution | None = None
        self.now = 1_000_000
        self.log: list[wire.Event] = []
        self.store = Store()
        self.last = Outcome(0)
        self.dispatched: list[str] = []
        self.begun: set[str] = set()
        """Tokens in flight that a worker began by itself."""
        self.messages: dict[str, wire.TaskMessage] = {}
        """What workers were given, or went on with, by token."""

    keys = KEYS

    # -- events

    def send(self, event: wire.Event) -> Outcome:
        """Folds one event, writes its outcome, and checks that what was written is what is known."""
        if isinstance(event, wire.Retried) and self.x is not None:
            self.x = self.store.load(EXECUTION_ID, self.plan, whole=True)
        self.last = decide(self.partition, self.x, event, len(self.log), self.plan)
        self.log.append(event)
        self.x = self.last.execution
        self._follow(self.last.effects)
        assert not self.last.crash, self.last.crash
        if self.check:
            self.store.apply(to_ops(KEYS, [self.last]))
            self.verify()
        if self.x is None:
            self.dispatched.clear()
        return self.last

    def _follow(self, effects: list[Effect]) -> None:
        """Notes what came into flight and what left it."""
        for effect in effects:
            if isinstance(effect, Dispatch | Begun):
                self.dispatched.append(effect.token)
            if isinstance(effect, Dispatch):
                self.messages[effect.token] = effect.message
            elif isinstance(effect, Begun):
                self.begun.add(effect.token)
            elif isinstance(effect, Ended):
                self.begun.discard(effect.token)

    def record(self, kind: type[Any], **values: Any) -> Any:
        """A record about this execution, a little later than the one before."""
        self.now += 10
        return kind(**{"execution": EXECUTION_ID, "ts": self.now, "source": "test", **values})

    def create(self, value: Any = None, command: str = "c") -> World:
        self.send(
            self.record(
                wire.Created, id=command, document=self.plan.hash, name="test", labels={"team": "a"},
                input=json.dumps(value or {}).encode(), settings=self.settings,
            )
        )  # fmt: skip
        return self

    def trigger(self, value: Any = None, command: str = "t") -> Outcome:
        return self.send(
            self.record(wire.Triggered, id=command, input=None if value is None else json.dumps(value).encode())
        )

    def start(self, value: Any = None) -> World:
        self.create(value).trigger()
        return self

    def cancel(self, reason: str = "", command: str = "k") -> Outcome:
        return self.send(self.record(wire.Cancelled, id=command, reason=reason))

    def pause(self, reason: str = "", command: str = "p") -> Outcome:
        return self.send(self.record(wire.Paused, id=command, reason=reason))

    def resume(self, command: str = "r") -> Outcome:
        return self.send(self.record(wire.Resumed, id=command))

    def retry(self, *nodes: str, value: Any = None, command: str = "") -> Outcome:
        data = None if value is None else json.dumps(value).encode()
        return self.send(self.record(wire.Retried, id=command or f"a{self.now}", nodes=nodes, input=data))

    def result(self, node: str, attempt: int | None = None, **values: Any) -> wire.Result:
        times = {"started_at": self.now, "ended_at": self.now + 5}
        return self.record(
            wire.Result,
            node=node,
            attempt=self.attempt(node) if attempt is None else attempt,
            worker="w1",
            package="p 1",
            **times,
            **values,
        )

    def done(self, *nodes: str, output: Any = None) -> Outcome:
        for node in nodes:
            self.send(self.result(node, output=json.dumps(output).encode()))
        return self.last

    def message(self, node: str) -> wire.TaskMessage:
        """What the worker of the node's current attempt was given."""
        return self.messages[ids.token(EXECUTION_ID, node, self.attempt(node))]

    def tail(self, node: str) -> list[str]:
        """The nodes that the worker of its current attempt may go on with."""
        then = self.message(node).then
        return [] if then is None else [following.node for following in then.following]

    def begins(self, node: str, output: Any = None, attempt: int | None = None) -> wire.Result:
        """The result of a worker that goes on with the node after it, as its tail says."""
        attempt = self.attempt(node) if attempt is None else attempt
        data = json.dumps(output).encode()
        found = next_of(self.messages[ids.token(EXECUTION_ID, node, attempt)], data)
        assert found is not None
        message, begin = found
        self.messages[ids.token(EXECUTION_ID, message.node, message.attempt)] = message
        return self.result(node, attempt, output=data, begin=begin, v=wire.BEGINS)

    def go_on(self, *nodes: str, output: Any = None) -> Outcome:
        """The nodes complete, each with the next one begun by its worker."""
        for node in nodes:
            self.send(self.begins(node, output))
        return self.last

    def fail(self, node: str, status: str = "FAILED", **error: Any) -> Outcome:
        """The attempt fails; the node waits for a verdict."""
        failure = wire.Failure(**{"type": "Oops", "message": "went wrong", **error})
        return self.send(self.result(node, status=status, error=failure))

    def verdict(self, node: str, delay_ms: int | None) -> Outcome:
        return self.send(
            self.record(
                wire.Decision, node=node, attempt=self.attempt(node), delay_ms=delay_ms, reason="so", policy="test"
            )
        )

    def fail_for_good(self, node: str, **error: Any) -> Outcome:
        self.fail(node, **error)
        return self.verdict(node, None) if self.status(node) == "RETRYING" else self.last

    def due(self, node: str) -> Outcome:
        return self.send(self.record(wire.Timer, timer="retry", node=node, attempt=self.attempt(node)))

    def deadline(self) -> Outcome:
        return self.send(self.record(wire.Timer, timer="deadline"))

    def expire(self, after_ms: int = LATE_MS) -> Outcome:
        """Retention deletes the execution so long after its end."""
        self.now = max(self.now, (self.execution.ended_at or 0) + after_ms - 10)
        return self.send(self.record(wire.Expired))

    def lose(self, node: str, reason: str = "dead") -> Outcome:
        return self.send(
            self.record(wire.Lost, node=node, attempt=self.attempt(node), reason=reason, worker="w1", silent_ms=3200)
        )

    def signal(self, name: str, payload: Any = None, command: str = "") -> Outcome:
        """A signal; each has an id of its own unless it is given."""
        data = json.dumps(payload).encode()
        return self.send(self.record(wire.Signalled, id=command or f"signal {len(self.log)}", name=name, payload=data))

    def answer(self, node: str, value: Any, *, attempt: int = 0, by: str = "", command: str = "") -> Outcome:
        """An answer to an approval, by default to the attempt that asks."""
        data = json.dumps(value).encode()
        command = command or f"answer {len(self.log)}"
        return self.send(self.record(wire.Answered, id=command, node=node, attempt=attempt, answer=data, by=by))

    def timer(self, kind: str, node: str, attempt: int | None = None) -> Outcome:
        """Time passes until the timer of a node's attempt is due, where one is set, and it fires."""
        attempt = self.attempt(node) if attempt is None else attempt
        due = self.timers().get(f"{kind}|{ids.token(EXECUTION_ID, node, attempt)}", 0)
        self.now = max(self.now, due - 10)
        return self.send(self.record(wire.Timer, timer=kind, node=node, attempt=attempt))

    # -- looking

    @property
    def execution(self) -> Execution:
        assert self.x is not None
        return self.x

    def cell(self, node: str) -> Any:
        index = self.execution.index_of(node)
        assert index is not None, node
        return self.execution.cells[index]

    def status(self, node: str) -> str:
        return str(self.cell(node).status)

    def attempt(self, node: str) -> int:
        return int(self.cell(node).attempt)

    @property
    def statuses(self) -> dict[str, str]:
        x = self.execution
        scopes = [scope for scope in x.scopes.values() if scope.state is not ScopeState.DORMANT]
        return {s.path(i): str(x.cells[i].status) for s in scopes for i in range(s.base, s.end)}

    @property
    def ended(self) -> str:
        return str(self.execution.status)

    @property
    def output(self) -> Any:
        return json.loads(self.execution.output or b"null")

    def params(self, node: str) -> Any:
        return json.loads(self.store.get(KEYS.results(EXECUTION_ID))["i:" + node])

    def history(self, kind: str = "") -> list[dict[str, Any]]:
        lines = self.store.get(KEYS.history(EXECUTION_ID)) or []
        return [line._asdict() for line in lines if not kind or line.kind == kind]

    def timers(self) -> dict[str, int]:
        return dict(self.store.get(KEYS.timers))

    def attempts(self, node: str) -> list[dict[str, Any]]:
        return msgspec.msgpack.decode(self.store.get(KEYS.results(EXECUTION_ID)).get("a:" + node, b"\x90"))

    # -- invariants

    def verify(self) -> None:
        """What was written gives back the state, and every derived fact agrees with the cells."""
        x = self.x
        if x is None:
            assert not [key for key, value in self.store.keys.items() if EXECUTION_ID in f"{key} {value}"]
            return
        x.waiting.sort()
        assert self.store.load(EXECUTION_ID, self.plan) == x
        counts: dict[NodeStatus, int] = defaultdict(int)
        for status in self.statuses.values():
            counts[NodeStatus(status)] += 1
        assert {s: n for s, n in x.counts.items() if n} == counts
        for scope in x.scopes.values():
            cells = x.cells[scope.base : scope.end]
            assert scope.left == sum(not cell.status.is_terminal for cell in cells) or not scope.is_open
        stored = json.loads(self.store.get(KEYS.execution(EXECUTION_ID))["counts"])
        assert stored == {str(s): n for s, n in counts.items()}
        self._verify_flight(x)
        self._verify_maps(x)
        self._verify_index(x)
        known = ("deadline", "decide", "retry", "withdraw", "wait", "approval")
        assert {timer for timer in self.timers() if timer.startswith(known)} == self._expected_timers(x)
        if x.status.is_terminal:
            assert not [n for status, n in x.counts.items() if n and not status.is_terminal]
            elsewhere = ("release", "child", "close")
            assert not [timer for timer in self.timers() if not timer.startswith(elsewhere)]
            assert not list(x.live_tokens())
        if x.status is ExecutionStatus.RUNNING:
            moving = counts[NodeStatus.QUEUED] or self.timers() or self._listens(x) or (x.hold and x.hold.is_waiting)
            assert moving, "nothing could ever move it on"

    def _listens(self, x: Execution) -> bool:
        """Whether a node waits for someone outside."""
        waits = ("wait", "approval", "workflow")
        return any(
            cell.status is NodeStatus.WAITING and x.node(index).kind in waits for index, cell in enumerate(x.cells)
        )

    def _verify_flight(self, x: Execution) -> None:
        tokens = set(x.live_tokens())
        assert set(self.store.get(KEYS.in_flight)) == tokens
        assert set(self.store.get(KEYS.claims)) == self.begun
        assert self.begun <= tokens
        assert set(self.store.get(KEYS.messages)) == tokens - self.begun
        queues = self.store.get(KEYS.queues) or set()
        assert {token for queue in queues for token in self.store.get(KEYS.outbox(queue))} == tokens - self.begun
        most = self.plan.max_parallel
        assert most is None or len(tokens) <= most
        assert len(set(self.dispatched)) == len(self.dispatched), "a token was used twice"

    def _verify_maps(self, x: Execution) -> None:
        """No map has more items under way than it may."""
        for index, progress in x.progress.items():
            most = x.node(index).spec.max_parallel
            assert most is None or progress.open <= most
            bodies = x.inside.get(index, {}).values()
            assert progress.open == sum(one.is_open and not one.held for one in bodies)

    def _verify_index(self, x: Execution) -> None:
        for words in ("all", f"s:{x.status}", "n:test", "l:team=a"):
            assert self.store.get(KEYS.index(words)) == {x.id: x.created_at}
        assert self.store.get(KEYS.index("ended")) == ({x.id: x.ended_at} if x.status.is_terminal else {})
        others = (status for status in ExecutionStatus if status is not x.status)
        assert not any(self.store.get(KEYS.index(f"s:{status}")) for status in others)

    def _expected_timers(self, x: Execution) -> set[str]:
        expected = set()
        if x.is_live and not x.ending and self.plan.timeout_ms is not None:
            expected.add(f"deadline|{x.id}//0")
        for index, cell in enumerate(x.cells):
            if cell.status is NodeStatus.RETRYING:
                expected.add(f"{'decide' if x.is_undecided(index) else 'retry'}|{x.token(index)}")
            if cell.status is NodeStatus.QUEUED and not x.is_wanted(index):
                expected.add(f"withdraw|{x.token(index)}")
            if index in x.waits and x.waits[index].next_due() is not None:
                expected.add(f"wait|{x.token(index)}")
                assert self.timers()[f"wait|{x.token(index)}"] == x.waits[index].next_due()
            if cell.status is NodeStatus.WAITING and x.node(index).kind == "approval" and not x.is_held(index):
                spec: Any = x.node(index).spec
                expected |= {f"approval|{x.token(index)}"} if spec.timeout_ms is not None else set()
        return expected


@pytest.fixture(scope="session")
def world() -> Callable[..., World]:
    """Makes a world from a document without its name."""
    return World
