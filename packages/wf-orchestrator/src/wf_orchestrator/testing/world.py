"""A partition in memory: the real machine, what it wrote, the clock, and what is still to happen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from wf_core import ids
from wf_core.errors import WfError
from wf_core.plan import Plan, load_plan
from wf_core.schema.validation import document_hash
from wf_core.states import ExecutionStatus
from wf_core.store.codec import pack_timer, unpack_timer
from wf_core.store.keys import PartitionKeys
from wf_core.wire import Created, Event, Retried
from wf_orchestrator.machine import concurrency
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import (
    Begun,
    CacheStore,
    ClearTimer,
    Dispatch,
    Effect,
    Ended,
    Outcome,
    Send,
    SetTimer,
    StopTails,
)
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import Execution, PartitionState
from wf_orchestrator.policy_book import PolicyBook
from wf_orchestrator.redis_model import Model
from wf_orchestrator.scheduling import arrange
from wf_orchestrator.testing import timers
from wf_orchestrator.testing.agenda import Agenda

KEYS = PartitionKeys.of("test", 0)
AGAIN_MS = 2_000
"""A timer that is still set when it has fired fires again so much later."""
Listener = Callable[[Outcome, Event], None]


class RunawayError(WfError):
    """The author of a test must act: a run goes on and on."""


class World:
    """Everything that one partition of an installation is made of, with a clock that only moves when told to."""

    def __init__(self, policies: PolicyBook, now_ms: int, most_records: int) -> None:
        self.now_ms = now_ms
        self.policies = policies
        self.partition = PartitionState()
        self.executions: dict[str, Execution] = {}
        self.plans: dict[str, Plan] = {}
        """By document hash."""
        self.definitions: dict[str, str] = {}
        """`name` or `name@version` → document hash."""
        self.log: list[Event] = []
        self.crashes: list[str] = []
        self.model = Model()
        self.agenda = Agenda()
        self.dispatch: Callable[[Dispatch], None] = lambda _: None
        self.begun: Callable[[Begun], None] = lambda _: None
        self.stop_tails: Callable[[StopTails], None] = lambda _: None
        self.ended: Callable[[Ended], None] = lambda _: None
        self.is_waiting: Callable[[str], bool] = lambda _: False
        """Whether an attempt waits for a worker."""
        self.listeners: list[Listener] = []
        self._most_records = most_records
        self._said = 0
        self._cache: dict[str, tuple[bytes, int]] = {}
        """Name → output, and until when it may be used."""
        self._fired: set[str] = set()
        """Timers, `kind|token`, that have fired since they were set."""

    def append(self, *events: Event) -> None:
        """Folds records, writes what they change, and plans what follows. Raises RunawayError after too many."""
        for event in events:
            if len(self.log) >= self._most_records:
                raise RunawayError(
                    f"after {self._most_records:,} records the run has not come to rest; "
                    "is there a loop without an end? (most_records=… allows more)"
                )
            plan = self.plans.get(event.document) if isinstance(event, Created) else None
            if isinstance(event, Retried):
                self._load_whole(event.execution)
            outcome = decide(self.partition, self.executions.get(event.execution), event, len(self.log), plan)
            self.log.append(event)
            self._keep(event.execution, outcome)
            arrange(self.policies, self.executions, [outcome])
            self.model.apply(to_ops(KEYS, [outcome]))
            self._deliver(outcome)
            for listener in self.listeners:
                listener(outcome, event)

    def _load_whole(self, execution_id: str) -> None:
        """Loads an execution that has ended with all of its results, as `retry` needs it."""
        execution = self.executions.get(execution_id)
        if execution is not None and execution.status.is_terminal:
            self.executions[execution_id] = self._loaded(execution, whole=True)

    def _loaded(self, execution: Execution, *, whole: bool = False) -> Execution:
        plan = self.plans.get(execution.document)
        return self.model.load(KEYS, execution.id, plan, whole=whole)

    def _keep(self, execution_id: str, outcome: Outcome) -> None:
        if outcome.crash:
            self.crashes.append(outcome.crash)
        if outcome.execution is None:
            self.executions.pop(execution_id, None)
        else:
            self.executions[execution_id] = outcome.execution

    def _deliver(self, outcome: Outcome) -> None:
        dispatched = [effect for effect in outcome.effects if isinstance(effect, Dispatch)]
        for effect in outcome.effects:
            self._act(effect)
        left = {effect.token for effect in outcome.effects if isinstance(effect, Ended)}
        for effect in sorted(dispatched, key=lambda one: (-one.priority, one.seq)):
            if effect.token not in left:
                self.dispatch(effect)

    def _act(self, effect: Effect) -> None:
        match effect:
            case Ended():
                self.ended(effect)
            case Begun():
                self.begun(effect)
            case StopTails():
                self.stop_tails(effect)
            case SetTimer():
                self._fired.discard(pack_timer(effect.kind, effect.token))
                self._set_timer(pack_timer(effect.kind, effect.token), effect.due_ms)
            case CacheStore():
                self._cache[effect.name] = (effect.output, self.now_ms + effect.ttl_ms)
            case Send():
                self._say(effect.record)
            case ClearTimer():
                self._fired.discard(pack_timer(effect.kind, effect.token))
                self.agenda.clear(f"timer {pack_timer(effect.kind, effect.token)}")

    def _say(self, record: Event) -> None:
        """Appends a record behind all that happens now."""
        self._said += 1
        self.agenda.set(f"say {self._said}", self.now_ms, lambda: self.append(self.stamped(record)))

    def _set_timer(self, member: str, due_ms: int) -> None:
        """Plans a timer of the machine. One that has fired to no avail is no reason to let time pass."""
        fired = member in self._fired
        due_ms = self.now_ms + AGAIN_MS if fired else due_ms
        self.agenda.set(f"timer {member}", due_ms, lambda: self._fire(member), idle=fired)

    def _fire(self, member: str) -> None:
        kind, token = unpack_timer(member)
        self._fired.add(member)
        self.append(*timers.fire(self, kind, token))
        if member in self._fired and member.encode() in self.stored(KEYS.timers):
            self._set_timer(member, 0)

    def stored(self, key: str) -> Any:
        """What lies under a key of the store; `{}` for nothing."""
        return self.model.keys.get(key, {})

    def restart(self) -> None:
        """Drops the state and loads it from what was stored, as the next owner of the partition does."""
        partition = self.partition
        self.partition = PartitionState(seq=partition.seq, ts=partition.ts, expired=partition.expired)
        for name, key in self.stored(KEYS.concurrency).items():
            self.partition.keys[name.decode()] = concurrency.unpack(key)
        for execution_id, execution in self.executions.items():
            self.executions[execution_id] = self._loaded(execution)
        self.agenda.clear_all("timer ")
        for member, due_ms in self.stored(KEYS.timers).items():
            self._set_timer(member.decode(), round(due_ms))

    def keep(self, canonical: bytes) -> Plan:
        """Keeps a document, so that executions may be created of it; its plan."""
        name = document_hash(canonical)
        if name not in self.plans:
            self.plans[name] = load_plan(canonical, name)
        return self.plans[name]

    def cached(self, name: str) -> bytes | None:
        """What the cache holds under a name, and for long enough."""
        output, until_ms = self._cache.get(name, (None, 0))
        return output if until_ms > self.now_ms else None

    def stamped(self, record: Event) -> Event:
        """A record with the time and source of this moment."""
        return msgspec.structs.replace(record, ts=self.now_ms, source="test")

    def record(self, kind: type[Any], execution_id: str, **values: Any) -> Any:
        """A record of this moment."""
        return kind(execution=execution_id, ts=self.now_ms, source="test", **values)

    def about(self, kind: type[Any], token: str, **values: Any) -> Any:
        """A record of this moment about the attempt that `token` names."""
        execution_id, node, attempt = ids.split_token(token)
        return self.record(kind, execution_id, node=node, attempt=attempt, **values)

    def status(self, execution_id: str) -> ExecutionStatus:
        """Where an execution stands."""
        return self.executions[execution_id].status


def decoded(value: bytes | None) -> Any:
    """The value of JSON bytes; None for none."""
    return None if value is None else json.loads(value)
