"""The hands of the machine: each primitive changes the state and writes down in the outcome that it did.

A `Step` lives for one event. Whoever ends a node through it need not care about what follows: `ended`, `finished` and
`starting` are the work lists that `cascade.settle` runs to a fixed point.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from wf_core import ids
from wf_core.states import AttemptStatus, NodeStatus, ScopeState
from wf_core.store.codec import AttemptRecord, pack_attempts, pack_scope
from wf_core.wire import Failure, TaskMessage, encode
from wf_orchestrator.machine import continuing, fields, scopes
from wf_orchestrator.machine.effects import (
    Begun,
    ClearTimer,
    Dispatch,
    Effect,
    Ended,
    HistoryEntry,
    Outcome,
    SetTimer,
    StopTails,
)
from wf_orchestrator.machine.scope import ROOT, Scope
from wf_orchestrator.machine.state import KEPT_COMMANDS, Cell, Execution, PartitionState
from wf_orchestrator.machine.transitions import ExecutionEvent, NodeEvent, next_execution, next_node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wf_core.wire import Command

_json = msgspec.json.Encoder()
_MOST_MESSAGE = 500
_SECOND_RULES = 2


class Kind(NamedTuple):
    """What a kind of node does. The functions push onto the step's work lists; `cascade.settle` runs these."""

    begin: Callable[[Step, int], None]
    """The node is ready: start its next attempt, or end it."""
    body_ended: Callable[[Step, int, Scope], None]
    """One of its bodies has ended."""
    advance: Callable[[Step, int], None]
    """The execution goes on after a pause: open what may be opened."""
    drop: Callable[[Step, int, str], None]
    """Its open attempt ends from outside: clear its timers, close its children. Its bodies are ended by the caller."""
    under_halt: Literal["cancel", "inside", "stay"]
    """When its body has failed: end at once, go on while a body inside runs, or go on by itself."""


class Fate(NamedTuple):
    """How an `end` node ends the body that it is in."""

    state: ScopeState
    output: bytes | None
    error: Failure | None


def summary(error: Failure) -> dict[str, Any]:
    """An error as the history tells it; the attempt keeps the whole."""
    return {"type": error.type, "message": error.message[:_MOST_MESSAGE]}


class Step:
    """One event being folded."""

    __slots__ = (
        "begun",
        "dirty",
        "ended",
        "fates",
        "finished",
        "fresh",
        "kinds",
        "now",
        "opened",
        "opening",
        "outcome",
        "partition",
        "stale",
        "starting",
        "waking",
        "x",
    )

    def __init__(
        self, partition: PartitionState, outcome: Outcome, execution: Execution, kinds: Mapping[str, Kind]
    ) -> None:
        self.partition = partition
        self.outcome = outcome
        self.x = execution
        self.kinds = kinds
        self.now = partition.ts
        self.ended: deque[int] = deque()
        """Nodes that have ended and whose downstream was not told yet."""
        self.finished: deque[Scope] = deque()
        """Scopes whose nodes have all ended."""
        self.starting: deque[int] = deque()
        """Nodes that take no slot and are ready."""
        self.fresh: dict[int, None] = {}
        """Nodes that became ready in this step, in order."""
        self.begun: set[int] = set()
        """Those of them that were begun."""
        self.opening: deque[Scope] = deque()
        """Scopes that were opened and whose first nodes were not considered yet."""
        self.waking: deque[Scope] = deque()
        """Scopes that were opened again and all of whose nodes are to be asked."""
        self.fates: dict[str, Fate] = {}
        """By scope: what an `end` node in it said."""
        self.opened = 0
        """Scopes that were opened in this step."""
        self.stale = False
        """Whether the heap `x.waiting` holds nodes that are held no more."""
        self.dirty: dict[str, None] = {}

    def kind(self, index: int) -> Kind:
        """What a node's kind does."""
        return self.kinds[self.x.node(index).kind]

    def effect(self, effect: Effect) -> None:
        """Adds an effect."""
        self.outcome.effects.append(effect)

    def touch(self, *names: str) -> None:
        """Marks fields of the execution as changed."""
        self.dirty.update(dict.fromkeys(names))

    def touch_scope(self, scope: Scope) -> None:
        """Marks what is stored of a scope as changed; what the root stores are fields of the execution."""
        if scope.key == ROOT:
            self.touch("halting", "wanted")
        else:
            self.outcome.scopes[scope.key] = pack_scope(scope.record())

    def keep(self, name: str, value: bytes | None) -> None:
        """Writes a field of the results; None removes it."""
        self.outcome.results[name] = value

    def tell(self, kind: str, index: int | None = None, data: dict[str, Any] | None = None) -> None:
        """Adds a line to the history, about a node or about the execution."""
        node, attempt, status = "", 0, str(self.x.status)
        if index is not None:
            cell = self.x.cells[index]
            node, attempt, status = self.x.path(index), cell.attempt, str(cell.status)
        packed = _json.encode(data) if data else b""
        self.outcome.history.append(HistoryEntry(kind, node, attempt, status, self.now, packed))

    def move(self, index: int, event: NodeEvent, *, attempt: int | None = None, lost: int | None = None) -> None:
        """Takes a node along a row of the table."""
        x = self.x
        old = x.cells[index]
        status = next_node(old.status, event)
        cell = Cell(status, old.attempt if attempt is None else attempt, old.lost if lost is None else lost, self.now)
        x.cells[index] = self.outcome.changed_nodes[index] = cell
        x.counts[old.status] -= 1
        x.counts[status] += 1
        x.lookups.discard(index)
        if status.is_terminal:
            self._drop_total(index)
            scope = x.owner[index]
            scope.left -= 1
            x.inputs.pop(index, None)
            if not scope.keeps:
                x.attempts.pop(index, None)
            self.ended.append(index)
            if x.era and old.status is NodeStatus.PENDING:
                scopes.drop_attempts(x, index)  # of bodies from before a retry, which it now never opens
            if scope.left == 0:
                self.finished.append(scope)

    def put_cell(self, index: int, cell: Cell) -> None:
        """Writes a cell that no row of the table leads to: its scope is opened, or opened again."""
        self.x.cells[index] = self.outcome.changed_nodes[index] = cell

    def turn(self, event: ExecutionEvent) -> None:
        """Takes the execution along a row of the table."""
        old = self.x.status
        self.x.status = next_execution(old, event)
        first = self.outcome.moved[0] if self.outcome.moved else old
        self.outcome.moved = (first, self.x.status)
        self.touch("status")

    def obey(self, command: Command) -> None:
        """Remembers a command, so that a copy is ignored."""
        self.x.commands.append((command.id, command.request))
        del self.x.commands[:-KEPT_COMMANDS]
        self.touch("commands")

    def leave_first_rules(self) -> None:
        """A release with the first rules only could not go on with the execution: from now on it leaves it alone."""
        if self.x.rules < _SECOND_RULES:
            self.x.rules = _SECOND_RULES
            self.touch("rules")

    def ready(self, index: int) -> None:
        """The node may start: a task as soon as there is a slot, anything else in this step (unless it is paused)."""
        node = self.x.node(index)
        self.fresh[index] = None
        if node.kind == "task" or self.x.is_paused:
            heapq.heappush(self.x.waiting, (-node.priority, index))
        else:
            self.starting.append(index)

    def open_node(self, index: int) -> None:
        """The next attempt of a node begins that holds no worker: a container, a wait, a lookup."""
        self.move(index, NodeEvent.OPEN, attempt=self.x.cells[index].attempt + 1)
        self.start_total(index)

    def dispatch(self, index: int, params: bytes, *, lost: int | None = None, again: bool = True) -> None:
        """An attempt goes to the outbox: the next one, or (not `again`) the one that was opened for a lookup."""
        x, node = self.x, self.x.node(index)
        attempt = x.cells[index].attempt + again
        self.move(index, NodeEvent.DISPATCH, attempt=attempt, lost=lost)
        if again:
            self.start_total(index)
        path = x.path(index)
        if index not in x.inputs:
            x.inputs[index] = params
            self.keep("i:" + path, params)
        self.partition.seq += 1
        then = continuing.tail(x, index, params)
        message = TaskMessage(
            execution=x.id,
            node=path,
            attempt=attempt,
            task=node.task,
            params=params,
            workflow=x.name,
            queued_at=self.now,
            timeout_ms=x.timeout_ms(node),
            priority=node.priority,
            lost=x.cells[index].lost,
            heartbeat_ms=node.heartbeat_ms,
            id=node.id if then else "",
            then=then,
        )
        token, seq, ready = ids.token(x.id, path, attempt), self.partition.seq, x.ready_node(index)
        self.effect(Dispatch(token, node.queue, node.priority, seq, message, ready, encode(message)))
        if node.queue_timeout_ms is not None:
            self.set_timer("queue", index, self.now + node.queue_timeout_ms)
        self.tell("node.queued", index)

    def take_over(self, index: int, params: bytes, worker: str) -> None:
        """The next attempt of a node that had not started runs: `worker` began it, with `params`, by itself."""
        x = self.x
        self.move(index, NodeEvent.BEGIN, attempt=x.cells[index].attempt + 1)
        x.inputs[index] = params
        self.keep("i:" + x.path(index), params)
        self.effect(Begun(x.token(index), worker, self.now))
        if x.is_paused or not x.is_wanted(index):
            self.effect(StopTails(x.id))
        if not x.is_wanted(index):
            self.set_timer("withdraw", index, self.now)
        self.tell("node.queued", index, {"worker": worker})

    def leave(self, index: int, *, cancel: bool = False) -> None:
        """The node's attempt leaves the in-flight set."""
        x, node = self.x, self.x.node(index)
        token = x.token(index)
        self.effect(Ended(token, node.queue, cancel))
        if node.queue_timeout_ms is not None:
            self.effect(ClearTimer("queue", token))
        if x.owner[index].halting == "halt" and not x.is_wanted(index):
            self.effect(ClearTimer("withdraw", token))

    def set_timer(self, kind: str, index: int, due_ms: int) -> None:
        """A timer about the node's current attempt."""
        self.effect(SetTimer(kind, self.x.token(index), due_ms))

    def clear_timer(self, kind: str, index: int) -> None:
        """No timer about the node's current attempt."""
        self.effect(ClearTimer(kind, self.x.token(index)))

    def record(self, index: int, record: AttemptRecord) -> None:
        """Keeps an attempt that ended."""
        log = self.x.attempts.setdefault(index, [])
        era = self.x.owner[index].era
        log.append(msgspec.structs.replace(record, era=era) if era else record)
        self._write_attempts(index, log)

    def decide_last(self, index: int, decision: str, reason: str) -> None:
        """Writes what followed on the node's last attempt that ended."""
        log = self.x.attempts[index]
        log[-1] = msgspec.structs.replace(log[-1], decision=decision, reason=reason)
        self._write_attempts(index, log)

    def _write_attempts(self, index: int, log: list[AttemptRecord]) -> None:
        self.keep("a:" + self.x.path(index), pack_attempts(log))

    def cancel(self, index: int, reason: str, *, tell: bool = True, cancel: bool = True) -> None:
        """Ends a node that is not wanted any more; what is inside it is the caller's (`scopes.cancel`).

        `cancel`: a worker that runs its attempt must be told.
        """
        cell = self.x.cells[index]
        self.stale = self.stale or index in self.fresh or self.x.is_held(index)
        if cell.status is NodeStatus.QUEUED:
            self.leave(index, cancel=cancel)
        elif cell.status is NodeStatus.RETRYING:
            self.drop_retry(index, reason)
        if cell.status is NodeStatus.QUEUED or (cell.status is NodeStatus.WAITING and not self.x.is_held(index)):
            self.record(
                index,
                AttemptRecord(
                    attempt=cell.attempt,
                    status=AttemptStatus.CANCELLED,
                    queued_at=cell.time_ms,
                    ended_at=self.now,
                    reason=reason,
                ),
            )
        self.move(index, NodeEvent.CANCEL)
        if tell:
            self.tell("node.cancelled", index, {"reason": reason})

    def skip(self, index: int) -> None:
        """A guard, a join or a switch said no, or an `end` came first."""
        self.move(index, NodeEvent.SKIP)
        self.tell("node.skipped", index)

    def start_total(self, index: int) -> None:
        """The time of all attempts begins to count, with the first one of this era."""
        total_ms = self.x.node(index).total_timeout_ms
        if total_ms is not None and not self.x.attempts_of_era(index):
            self.set_timer("total", index, self.now + total_ms)

    def _drop_total(self, index: int) -> None:
        """Clears the timer that `start_total` set; the node ends."""
        x = self.x
        if x.node(index).total_timeout_ms is not None and x.cells[index].attempt:
            self.effect(ClearTimer("total", ids.token(x.id, x.path(index), x.first_of_era(index))))

    def start_timeout(self, index: int) -> None:
        """The time of an attempt that no worker runs begins to count."""
        timeout_ms = self.x.node(index).timeout_ms
        if timeout_ms is not None:
            self.set_timer("timeout", index, self.now + timeout_ms)

    def drop_timeouts(self, index: int) -> None:
        """Clears the timer of an open attempt that holds no worker."""
        if self.x.node(index).timeout_ms is not None:
            self.clear_timer("timeout", index)

    def forget_node(self, index: int) -> None:
        """Removes what is stored about a node."""
        path = self.x.path(index)
        for name in ("o:", "i:", "a:", "c:", "ch:"):
            self.keep(name + path, None)
        x = self.x
        for kept in (x.attempts, x.outputs, x.errors, x.values, x.caught, x.compensations, self.fresh):
            kept.pop(index, None)

    def drop_retry(self, index: int, reason: str) -> None:
        """Clears whichever timer a RETRYING node waits for."""
        if self.x.is_undecided(index):
            self.clear_timer("decide", index)
            self.decide_last(index, "stop", reason)
        else:
            self.clear_timer("retry", index)

    def close_scope(self, scope: Scope, state: ScopeState) -> None:
        """A scope has ended: nobody counts in it any more."""
        x = self.x
        scope.state, scope.held = state, False
        for ends in (x.succeeded, x.failed, x.skipped):
            ends[scope.base : scope.end] = [0] * len(scope.body.nodes)
        self.touch_scope(scope)

    def close(self) -> None:
        """Writes the changed fields into the outcome; `counts` once a batch, by `snapshot`."""
        if self.outcome.changed_nodes or "counts" in self.dirty:
            self.dirty.pop("counts", None)
            self.outcome.recounted = True
        self.outcome.changed_fields.update(fields.encode(self.x, self.dirty))
