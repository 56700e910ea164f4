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


class CauseView(msgspec.Struct, frozen=True, kw_only=True):
    """An error that led to another one."""

    type: str
    message: str


class AttemptErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed, in full; `causes` are the errors that led to it, the nearest first."""

    type: str
    message: str
    traceback: str | None
    causes: list[CauseView] = []


class ProgressView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a container is. Of a map `total` counts items (scopes, with `batch`), of a loop the passes allowed.

    `pass_` is the number, from 0, of a loop's newest pass; null for a map.
    """

    total: int | None
    opened: int
    ended: int
    failed: int
    pass_: int | None = msgspec.field(default=None, name="pass")


class ParentView(msgspec.Struct, frozen=True, kw_only=True):
    """The node that a child execution runs for."""

    execution_id: str
    node: str


class ChildView(msgspec.Struct, frozen=True, kw_only=True):
    """The execution that a `workflow` node runs."""

    execution_id: str


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A node within its execution. `attempts` counts all of them, the running one too."""

    status: NodeStatus
    attempts: int
    started_at: datetime | None
    ended_at: datetime | None
    error: NodeErrorView | None
    kind: str = "task"
    progress: ProgressView | msgspec.Raw | None = None


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
    """One execution. `nodes` holds the first 1,000 of the top level, `nodes_omitted` says how many follow there.

    Both are unset on request. Compensations that have begun are among the nodes, each after its own.

    `ending` is the status that it will end in while compensations and `finally` run,
    `halting` says `halt` or `cancel` once a failure keeps it from starting anything but clean-up.
    """

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
    parent: ParentView | None = None
    ending: ExecutionStatus | None = None
    halting: str | None = None
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
    """A node in a list. `worker` is who runs it or ran it last; `task` and `queue` are null for other kinds.

    `progress` is what a running task reported last, or how far a container is.
    """

    node: str
    kind: str = "task"
    task: str | None
    status: NodeStatus
    attempts: int
    queue: str | None
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: NodeErrorView | None
    progress: ProgressView | msgspec.Raw | None = None


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
    host: str | None
    package: str | None
    worker_package: str | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    error: AttemptErrorView | None
    decision: str | None
    reason: str | None
    log_tail: str | None


class NodeDetail(NodeView, frozen=True, kw_only=True):
    """One node with everything that is known of it."""

    input: msgspec.Raw | None
    output: msgspec.Raw | None
    child: ChildView | None = None
    compensation: NodeView | None = None
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
    broken: dict[str, str] = {}
    """Why tasks are missing on it: task or file name → a sentence; the first few."""


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
        causes = [CauseView(type=cause.type, message=cause.message) for cause in record.error.causes]
        trace = record.error.traceback or None
        error = AttemptErrorView(type=record.error.type, message=record.error.message, traceback=trace, causes=causes)
    return AttemptView(
        attempt=record.attempt,
        status=record.status,
        class_=record.class_,
        worker=record.worker or None,
        host=record.host or None,
        package=record.package or None,
        worker_package=record.worker_package or None,
        queued_at=moment(record.queued_at),
        started_at=moment(record.started_at),
        ended_at=moment(record.ended_at),
        error=error,
        decision=record.decision or None,
        reason=record.reason or None,
        log_tail=record.log_tail or None,
    )
