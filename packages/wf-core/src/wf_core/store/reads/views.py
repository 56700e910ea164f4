"""The shapes of answers: `msgspec.json.encode(view)` is the body.

Times are aware UTC datetimes (RFC 3339 in JSON), absent values None (`null`). Values of users stay the JSON bytes that
they are stored as (`msgspec.Raw`), so integers of any size come back as they went in.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from wf_core.catalogue import TaskInfo
from wf_core.states import AttemptClass, AttemptStatus, ExecutionStatus, NodeStatus
from wf_core.store.codec import AttemptRecord
from wf_core.wire import Failure

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """Why something failed; `node` and `attempt` say where an execution's failure began."""

    type: str
    message: str
    node: str | None = None
    attempt: int | None = None


class NodeErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node failed, or why its last attempt did."""

    type: str
    message: str


class AttemptErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed, in full."""

    type: str
    message: str
    traceback: str | None


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A node within its execution. `attempts` counts all of them, the running one too."""

    status: NodeStatus
    attempts: int
    started_at: datetime | None
    ended_at: datetime | None
    error: NodeErrorView | None


class ExecutionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An execution in a list. `counts` leaves out statuses that no node has; RUNNING nodes count as QUEUED here."""

    execution_id: str
    name: str
    version: str | None
    status: ExecutionStatus
    labels: dict[str, str]
    counts: dict[str, int]
    error: ErrorView | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class ExecutionView(msgspec.Struct, frozen=True, kw_only=True):
    """One execution. `nodes` holds the first 1,000, `nodes_omitted` says how many follow; both unset on request."""

    execution_id: str
    name: str
    version: str | None
    status: ExecutionStatus
    labels: dict[str, str]
    input: msgspec.Raw
    output: msgspec.Raw | None
    error: ErrorView | None
    counts: dict[str, int]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    parent: None = None
    nodes: dict[str, NodeSummary] | msgspec.UnsetType = msgspec.UNSET
    nodes_omitted: int | msgspec.UnsetType = msgspec.UNSET


class ExecutionPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list, newest first; a cursor may lead to an empty last page."""

    items: list[ExecutionSummary]
    next_cursor: str | None


class ResultsView(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of the nodes that have completed so far, and the execution's own once it has."""

    execution_id: str
    status: ExecutionStatus
    output: msgspec.Raw | None
    results: dict[str, msgspec.Raw]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node in a list. `worker` is who runs it or ran it last."""

    node: str
    kind: str = "task"
    task: str
    status: NodeStatus
    attempts: int
    queue: str
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: NodeErrorView | None


class NodePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of nodes in the document's order."""

    items: list[NodeView]
    next_cursor: str | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that ended, and what was decided about the next."""

    attempt: int
    status: AttemptStatus
    class_: AttemptClass | None = msgspec.field(name="class")
    worker: str | None
    package: str | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    error: AttemptErrorView | None
    decision: str | None
    reason: str | None


class NodeDetail(NodeView, frozen=True, kw_only=True):
    """One node with everything that is known of it."""

    input: msgspec.Raw | None
    output: msgspec.Raw | None
    child: None = None
    history: list[AttemptView]


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of an execution's history. `seq` is the cursor after it, and the same after a replay."""

    seq: str
    ts: datetime
    kind: str
    node: str | None
    attempt: int | None
    status: str | None
    data: msgspec.Raw | None


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries in order; `next_cursor` is None when these are all that there are so far."""

    items: list[EventView]
    next_cursor: str | None


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that beats. `catalogue` names what it can run; `silent_ms` is the age of its last heartbeat."""

    id: str
    host: str
    pid: int
    queues: list[str]
    slots: int
    free: int
    version: str
    catalogue: str
    started_at: datetime | None
    last_seen: datetime
    silent_ms: int


class TaskView(TaskInfo, frozen=True, kw_only=True):
    """A task that live workers can run: on which queues, and which workers."""

    queues: list[str]
    workers: list[str]


def moment(ms: int | None) -> datetime | None:
    """The time of Unix milliseconds; None for None and for 0, which means never."""
    return _EPOCH + timedelta(milliseconds=ms) if ms else None


def error_view(failure: Failure | None) -> ErrorView | None:
    """The first failure of an execution."""
    if failure is None:
        return None
    return ErrorView(type=failure.type, message=failure.message, node=failure.node, attempt=failure.attempt)


def attempt_view(record: AttemptRecord) -> AttemptView:
    """An attempt as its node's history shows it."""
    error = None
    if record.error is not None:
        trace = record.error.traceback or None
        error = AttemptErrorView(type=record.error.type, message=record.error.message, traceback=trace)
    return AttemptView(
        attempt=record.attempt,
        status=record.status,
        class_=record.class_,
        worker=record.worker or None,
        package=record.package or None,
        queued_at=moment(record.queued_at),
        started_at=moment(record.started_at),
        ended_at=moment(record.ended_at),
        error=error,
        decision=record.decision or None,
        reason=record.reason or None,
    )
