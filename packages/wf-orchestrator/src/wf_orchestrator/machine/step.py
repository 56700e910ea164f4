"""The hands of the machine: each primitive changes the state and writes down in the outcome that it did.

A `Step` lives for one event. Whoever ends a node through it need not care about what follows: `ended` is the work list
that `cascade.settle` runs to a fixed point.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from wf_core import ids
from wf_core.states import AttemptStatus, NodeStatus
from wf_core.store.codec import AttemptRecord, pack_attempts
from wf_core.wire import Failure, TaskMessage
from wf_orchestrator.machine import fields
from wf_orchestrator.machine.effects import ClearTimer, Dispatch, Effect, Ended, HistoryEntry, Outcome, SetTimer
from wf_orchestrator.machine.state import KEPT_COMMANDS, Cell, Execution, PartitionState
from wf_orchestrator.machine.transitions import ExecutionEvent, NodeEvent, next_execution, next_node

if TYPE_CHECKING:
    from wf_core.wire import Cancelled, Triggered

_json = msgspec.json.Encoder()
_MOST_MESSAGE = 500


def summary(error: Failure) -> dict[str, Any]:
    """An error as the history tells it; the attempt keeps the whole."""
    return {"type": error.type, "message": error.message[:_MOST_MESSAGE]}


class Step:
    """One event being folded."""

    __slots__ = ("dirty", "ended", "fresh", "now", "outcome", "partition", "x")

    def __init__(self, partition: PartitionState, outcome: Outcome, execution: Execution) -> None:
        self.partition = partition
        self.outcome = outcome
        self.x = execution
        self.now = partition.ts
        self.ended: deque[int] = deque()
        """Nodes that have ended and whose downstream was not told yet."""
        self.fresh: dict[int, None] = {}
        """Nodes that became ready in this step, in order; they lie in the heap `x.waiting` as well."""
        self.dirty: dict[str, None] = {}

    def effect(self, effect: Effect) -> None:
        """Adds an effect."""
        self.outcome.effects.append(effect)

    def touch(self, *names: str) -> None:
        """Marks fields of the execution as changed."""
        self.dirty.update(dict.fromkeys(names))

    def tell(self, kind: str, index: int | None = None, data: dict[str, Any] | None = None) -> None:
        """Adds a line to the history, about a node or about the execution."""
        node, attempt, status = "", 0, str(self.x.status)
        if index is not None:
            cell = self.x.cells[index]
            node, attempt, status = self.x.node(index).id, cell.attempt, str(cell.status)
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
        if status.is_terminal:
            x.left -= 1
            x.attempts.pop(index, None)
            x.inputs.pop(index, None)
            self.ended.append(index)

    def turn(self, event: ExecutionEvent) -> None:
        """Takes the execution along a row of the table."""
        old = self.x.status
        self.x.status = next_execution(old, event)
        first = self.outcome.moved[0] if self.outcome.moved else old
        self.outcome.moved = (first, self.x.status)
        self.touch("status")

    def obey(self, command: Triggered | Cancelled) -> None:
        """Remembers a command, so that a copy is ignored."""
        self.x.commands.append((command.id, command.request))
        del self.x.commands[:-KEPT_COMMANDS]
        self.touch("commands")

    def ready(self, index: int) -> None:
        """The node may start as soon as there is a slot."""
        self.fresh[index] = None
        heapq.heappush(self.x.waiting, (-self.x.node(index).priority, index))

    def dispatch(self, index: int, params: bytes, *, lost: int | None = None) -> None:
        """The next attempt goes to the outbox."""
        x, node = self.x, self.x.node(index)
        attempt = x.cells[index].attempt + 1
        self.move(index, NodeEvent.DISPATCH, attempt=attempt, lost=lost)
        if index not in x.inputs:
            x.inputs[index] = self.outcome.results["i:" + node.id] = params
        self.partition.seq += 1
        message = TaskMessage(
            execution=x.id,
            node=node.id,
            attempt=attempt,
            task=node.task,
            params=params,
            workflow=x.name,
            queued_at=self.now,
            timeout_ms=node.timeout_ms,
            priority=node.priority,
            lost=x.cells[index].lost,
        )
        token = ids.token(x.id, node.id, attempt)
        seq = self.partition.seq
        self.effect(Dispatch(token, node.queue, node.priority, seq, message, x.ready_node(index)))
        self.tell("node.queued", index)

    def leave(self, index: int, *, cancel: bool = False) -> None:
        """The node's attempt leaves the in-flight set."""
        token = self.x.token(index)
        self.effect(Ended(token, self.x.node(index).queue, cancel))
        if self.x.halting == "halt" and not self.x.is_wanted(index):
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
        log.append(record)
        self._write_attempts(index, log)

    def decide_last(self, index: int, decision: str, reason: str) -> None:
        """Writes what followed on the node's last attempt that ended."""
        log = self.x.attempts[index]
        log[-1] = msgspec.structs.replace(log[-1], decision=decision, reason=reason)
        self._write_attempts(index, log)

    def _write_attempts(self, index: int, log: list[AttemptRecord]) -> None:
        self.outcome.results["a:" + self.x.node(index).id] = pack_attempts(log)

    def cancel(self, index: int, reason: str, *, tell: bool = True, cancel: bool = True) -> None:
        """Ends a node that is not wanted any more. `cancel`: a worker that runs its attempt must be told."""
        cell = self.x.cells[index]
        if cell.status is NodeStatus.QUEUED:
            self.leave(index, cancel=cancel)
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
        elif cell.status is NodeStatus.RETRYING:
            self.drop_retry(index, reason)
        self.move(index, NodeEvent.CANCEL)
        if tell:
            self.tell("node.cancelled", index, {"reason": reason})

    def drop_retry(self, index: int, reason: str) -> None:
        """Clears whichever timer a RETRYING node waits for."""
        if self.x.is_undecided(index):
            self.clear_timer("decide", index)
            self.decide_last(index, "stop", reason)
        else:
            self.clear_timer("retry", index)

    def close(self) -> None:
        """Writes the changed fields into the outcome."""
        if self.outcome.changed_nodes:
            self.touch("counts")
        self.outcome.changed_fields.update(fields.encode(self.x, self.dirty))
