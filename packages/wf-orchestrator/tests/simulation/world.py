"""The world around the machine: a Redis that forgets, a log that repeats, a clock, and the oracle.

Every method of `Redis` is one atomic script. A call may be lost before or after it happened; a roll-back takes Redis to
an earlier state as a whole; the log may be lost whole. After every write the oracle folds the log up to the stored
offset with the real machine and compares all that APPLY writes.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wf_testservers.memory import Store

from wf_core import ids, wire
from wf_core.plan import Plan, load_plan
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document
from wf_core.store.keys import PartitionKeys
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.snapshot import load, result_fields, to_ops
from wf_orchestrator.machine.state import Execution, PartitionState

T = TypeVar("T")

PARTITIONS, TASK_PARTITIONS = 2, 3
LEASE_MS, DEATH_MS, ORPHAN_MS, ACCEPTED_MS = 4_000, 3_000, 8_000, 5_000
ROLLBACK_DEPTH = 14
KEYS = [PartitionKeys.of("sim", p) for p in range(PARTITIONS)]


class TimedOut(Exception):  # noqa: N818 - what a caller sees when a request or its reply is lost
    """The call may or may not have happened."""


class Violation(AssertionError):  # noqa: N818 - the field's word
    """The protocol broke its promise."""


def _plan(document: dict[str, Any]) -> Plan:
    canonical = canonical_bytes(parse_document(document))
    return load_plan(canonical, document_hash(canonical))


def _node(*after: str, **fields: Any) -> dict[str, Any]:
    return {"task": "t", "depends_on": list(after), **fields}


_QUICK = {"retry": {"delay": "200ms", "jitter": 0, "max_retries": 2}}
_GRAPH = {
    "a": _node(),
    "b": _node("a"),
    "c": _node("a", on_error="continue"),
    "d": _node("b", "c"),
    "e": _node("a", when="true"),
    "f": _node("e", join="all_done"),
    "g": _node("f", priority=8),
}
PLANS = [
    _plan({"name": "halts", "defaults": _QUICK, "nodes": _GRAPH}),
    _plan({"name": "goes on", "defaults": _QUICK, "on_failure": "continue", "nodes": _GRAPH}),
    _plan({"name": "stops", "defaults": _QUICK, "on_failure": "cancel", "max_parallel": 2, "nodes": _GRAPH}),
    _plan({"name": "in time", "defaults": _QUICK, "timeout": "20s", "scheduling": "priority", "nodes": _GRAPH}),
]
BY_HASH = {plan.hash: plan for plan in PLANS}


def partition_of(execution_id: str) -> int:
    """The home partition."""
    return ids.partition_of(execution_id)


def load_execution(store: Store, keys: PartitionKeys, execution_id: str) -> Execution | None:
    """Loads an execution as the shell does."""
    fields = store.get(keys.execution(execution_id))
    if not fields:
        return None
    plan = BY_HASH[fields["document"].decode()]
    cells = bytes(store.get(keys.nodes(execution_id)) or b"")
    results = store.get(keys.results(execution_id))
    wanted = {name: results[name] for name in result_fields(plan, fields, cells) if name in results}
    return load(execution_id, plan, fields, cells, wanted)


@dataclass
class Meta:
    """`{p}:m`."""

    own: str = ""
    lease: int = 0
    off: int = 0
    bid: str = ""
    inc: int = 0
    gen: int = 0
    live: bool = False
    seq: int = 0
    ts: int = 0


@dataclass
class Shard:
    """One partition in Redis."""

    keys: PartitionKeys
    store: Store = field(default_factory=Store)
    meta: Meta = field(default_factory=Meta)
    beats: dict[str, int] = field(default_factory=dict)

    def hash(self, key: str) -> dict[str, Any]:
        """The hash or zset at a key, to be written to."""
        held: dict[str, Any] = self.store.keys.setdefault(key, {})
        return held

    @property
    def in_flight(self) -> dict[str, Any]:
        """Token → time of its dispatch."""
        return self.hash(self.keys.in_flight)

    @property
    def outbox(self) -> dict[str, int]:
        """Token → score."""
        return self.hash(self.keys.outbox("default"))

    @property
    def sent(self) -> dict[str, tuple[int, int, int]]:
        """Token → task partition, offset, incarnation."""
        return self.hash(self.keys.sent)

    @property
    def claims(self) -> dict[str, tuple[str, int]]:
        """Token → worker, time."""
        return self.hash(self.keys.claims)

    @property
    def accepted(self) -> dict[str, tuple[int, wire.Event]]:
        """`execution/verb` → time, record."""
        return self.hash(self.keys.accepted)


@dataclass
class TaskLease:
    """`{t:queue:n}`."""

    own: str = ""
    lease: int = 0
    off: int = 0
    inc: int = 0


@dataclass
class Data:
    """All that Redis holds."""

    shards: list[Shard] = field(default_factory=lambda: [Shard(keys) for keys in KEYS])
    tasks: list[TaskLease] = field(default_factory=lambda: [TaskLease() for _ in range(TASK_PARTITIONS)])


class Oracle:
    """Folds each partition's log by itself and compares."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.folded = [(0, PartitionState(), Store(), {}) for _ in range(PARTITIONS)]

    def check(self, data: Data, log: list[list[wire.Event]]) -> None:
        """Raises Violation when what Redis holds is not the fold of the log up to the stored offset."""
        for p, shard in enumerate(data.shards):
            offset, partition, store, executions = self.folded[p]
            if offset > shard.meta.off:  # Redis went back
                offset, partition, store, executions = 0, PartitionState(), Store(), {}
            for position in range(offset, shard.meta.off):
                event = log[p][position]
                outcome = decide(partition, executions.get(event.execution), event, position, _plan_of(event))
                if outcome.crash:
                    raise Violation(outcome.crash)
                if outcome.execution is not None:
                    executions[event.execution] = outcome.execution
                store.apply(to_ops(KEYS[p], [outcome], 0))
            self.folded[p] = (shard.meta.off, partition, store, executions)
            _compare(p, shard.keys, store, shard)


def _compare(p: int, keys: PartitionKeys, store: Store, shard: Shard) -> None:
    others = {keys.outbox("default"), keys.sent, keys.claims, keys.accepted}  # other scripts write these as well
    held = shard.store.keys
    for key in (store.keys.keys() | held.keys()) - others:
        if store.get(key) != (held.get(key) or {}):
            raise Violation(f"partition {p} at offset {shard.meta.off}: {key} differs from the fold of the log")
    for token in shard.in_flight:
        if token not in shard.outbox and token not in shard.sent:
            raise Violation(f"{token} is in flight, but neither in the outbox nor ever sent")


def _plan_of(event: wire.Event) -> Plan | None:
    return BY_HASH[event.document] if isinstance(event, wire.Created) else None


class World:
    """Everything that is shared. `mutant` names the rule that is broken on purpose, "" for none."""

    def __init__(self, seed: int, mutant: str = "", *, rollbacks: bool = True, log_loss: bool = False) -> None:
        self.random = random.Random(seed)
        self.mutant = mutant
        self.rollbacks = rollbacks
        self.log_loss = log_loss
        self.faults = True
        self.now = 1_000_000
        self.incarnation = 1
        self.data = Data()
        self.log: list[list[wire.Event]] = [[] for _ in range(PARTITIONS)]
        self.tasks: list[list[wire.TaskMessage]] = [[] for _ in range(TASK_PARTITIONS)]
        self.history: deque[bytes] = deque(maxlen=ROLLBACK_DEPTH)
        self.runs: Counter[str] = Counter()
        self.stats: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=60)
        self.late: list[tuple[int, list[Any], Any]] = []
        self.oracle = Oracle()
        self._serial = 0

    def unique(self, name: str) -> str:
        """A name that is used once."""
        self._serial += 1
        return f"{name}.{self._serial}"

    def chance(self, share: float) -> bool:
        """Whether a fault of this probability happens now."""
        return self.faults and self.random.random() < share

    # -- Redis

    def call(self, script: Callable[[Data], T], *, writes: bool = True) -> T:
        """Runs a script atomically. Raises TimedOut when the request or the reply is lost."""
        if self.chance(0.02):
            self.stats["requests lost"] += 1
            raise TimedOut
        if writes:
            self.history.append(pickle.dumps(self.data, -1))
        reply = script(self.data)
        if writes and not self.log_loss:
            self.oracle.check(self.data, self.log)
        if self.chance(0.02):
            self.stats["replies lost"] += 1
            raise TimedOut
        return pickle.loads(pickle.dumps(reply, -1))  # noqa: S301 - our own bytes; a caller must not share Redis' memory

    def roll_back(self) -> None:
        """Redis forgets its last writes, all of them together."""
        if not self.history:
            return
        for _ in range(self.random.randint(1, len(self.history))):
            kept = self.history.pop()
        self.data = pickle.loads(kept)  # noqa: S301 - our own bytes
        self.history.clear()
        self.stats["roll-backs"] += 1

    # -- the log

    def append(self, records: list[T], record: T) -> int:
        """Appends and returns the offset. Raises TimedOut when the append or its acknowledgement is lost or late."""
        if self.chance(0.02):
            self.stats["appends lost"] += 1
            raise TimedOut
        if self.chance(0.02):
            self.late.append((self.now + self.random.choice((50, 500, 3_000, 12_000)), records, record))
            self.stats["appends late"] += 1
            raise TimedOut
        records.append(record)
        if self.chance(0.03):
            self.stats["acknowledgements lost"] += 1
            raise TimedOut
        return len(records) - 1

    def deliver_late(self) -> None:
        """Copies that were under way arrive."""
        due = [copy for copy in self.late if copy[0] <= self.now or not self.faults]
        self.late = [copy for copy in self.late if copy not in due]
        for _, records, record in due:
            records.append(record)

    def lose_log(self) -> None:
        """A broker without a disk starts again."""
        self.log[:] = [[] for _ in range(PARTITIONS)]
        self.tasks[:] = [[] for _ in range(TASK_PARTITIONS)]
        self.late.clear()
        self.incarnation += 1
        self.stats["logs lost"] += 1

    def open_executions(self) -> dict[str, str]:
        """Executions that Redis knows and that have not ended, with how they stand.

        A PENDING one may stay so where data can be lost: the API died before it answered the trigger, and Redis forgot
        that it was accepted. Nothing was promised.
        """
        ended = ["COMPLETED", "FAILED", "CANCELLED", *(["PENDING"] if self.rollbacks or self.log_loss else [])]
        found: dict[str, str] = {}
        for p, shard in enumerate(self.data.shards):
            prefix = KEYS[p].execution("")
            for key, fields in shard.store.keys.items():
                if key.startswith(prefix) and fields["status"].decode() not in ended:
                    found[key.removeprefix(prefix)] = fields["status"].decode()
        return found

    def residue(self) -> dict[str, Any]:
        """What must be empty when every execution has ended."""
        left: dict[str, Any] = {}
        for shard in self.data.shards:
            for name, value in (
                ("in flight", shard.in_flight),
                ("messages", shard.hash(shard.keys.messages)),
                ("outbox", shard.outbox),
                ("timers", shard.hash(shard.keys.timers)),
                ("claims", shard.claims),
                ("accepted", shard.accepted),
            ):
                if value:
                    left.setdefault(name, {}).update(value)
        return left
