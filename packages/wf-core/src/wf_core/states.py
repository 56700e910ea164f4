"""The words for where an execution, a node and an attempt stand; the transitions are the orchestrator's."""

from __future__ import annotations

from enum import StrEnum


class ExecutionStatus(StrEnum):
    """Where one run of a workflow stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the execution has ended."""
        return self in _ENDED_EXECUTION


class NodeStatus(StrEnum):
    """Where one node of an execution stands.

    `RUNNING` is never stored: a reader shows a `QUEUED` node whose token is claimed by a worker as `RUNNING`.
    """

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"

    @property
    def is_terminal(self) -> bool:
        """Whether the node has ended."""
        return self in _ENDED_NODE


class AttemptStatus(StrEnum):
    """How one try of a node ended."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    LOST = "LOST"
    CANCELLED = "CANCELLED"


class AttemptClass(StrEnum):
    """Whose budget an attempt that did not complete uses."""

    USER = "user"
    PLATFORM = "platform"
    TIMEOUT = "timeout"
    CRASH = "crash"
    """Its process ended under it."""


class ScopeState(StrEnum):
    """Where the inside of a map item, a loop pass or a dynamic node stands."""

    OPEN = "OPEN"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    """All of its leaves were skipped: a map item gives `null`."""
    DORMANT = "DORMANT"
    """Of an earlier attempt of its container: its nodes do not count until it is opened again."""


_ENDED_EXECUTION = frozenset({ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED})
_ENDED_NODE = frozenset(
    {
        NodeStatus.COMPLETED,
        NodeStatus.FAILED,
        NodeStatus.CANCELLED,
        NodeStatus.SKIPPED,
        NodeStatus.UPSTREAM_FAILED,
    }
)
