"""The state machines as data. An absent entry is impossible: reaching it is a bug and raises TransitionError.

`docs/states.md` is generated from here (`python -m wf_orchestrator.machine.diagram`).
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from wf_core.errors import WfError
from wf_core.states import ExecutionStatus, NodeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping


class TransitionError(WfError):
    """We must act: the machine tried what its tables call impossible."""


class NodeEvent(StrEnum):
    """What the machine decides about a node."""

    HOLD = "hold"
    """It may start, but `max_parallel` leaves no slot, or the execution is paused."""
    OPEN = "open"
    """An attempt begins that no worker runs: bodies, a child, a wait, a lookup."""
    DISPATCH = "dispatch"
    """Its first or next attempt goes to the outbox."""
    BEGIN = "begin"
    """The worker of the node before it went on with it by itself."""
    COMPLETE = "complete"
    """Its attempt delivered an output."""
    ASK = "ask"
    """Its attempt failed or timed out: the retry policy is asked, and an answer `again` sets a timer."""
    GIVE_UP = "give up"
    """It failed for good: no retry is left, an expression failed, the platform's budget is used."""
    SKIP = "skip"
    """A guard, a join, a switch or a `catch` said no; or it waited for too long, and `on_timeout` says so."""
    BLOCK = "block"
    """Its join wanted a success that can no longer come."""
    CANCEL = "cancel"
    """It is not wanted any more: a cancel, a timeout of the execution, or a halt."""


class ExecutionEvent(StrEnum):
    """What the machine decides about an execution."""

    TRIGGER = "trigger"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    """It has ended and goes on from what failed, or from nodes that are named."""
    COMPLETE = "complete"
    """Every node has ended, and no failure counts."""
    FAIL = "fail"
    """Every node has ended after a failure, the output failed, or the execution's time is over."""
    CANCEL = "cancel"
    CRASH = "crash"
    """The machine itself failed (InternalError)."""


_N, _E = NodeStatus, ExecutionStatus

NODE: Mapping[NodeStatus, Mapping[NodeEvent, NodeStatus]] = MappingProxyType(
    {
        _N.PENDING: {
            NodeEvent.HOLD: _N.WAITING,
            NodeEvent.OPEN: _N.WAITING,
            NodeEvent.DISPATCH: _N.QUEUED,
            NodeEvent.BEGIN: _N.QUEUED,
            NodeEvent.SKIP: _N.SKIPPED,
            NodeEvent.BLOCK: _N.UPSTREAM_FAILED,
            NodeEvent.GIVE_UP: _N.FAILED,
            NodeEvent.CANCEL: _N.CANCELLED,
        },
        # Ready, its guard passed, and waiting for a slot of max_parallel; also a retry that is due. Or its attempt is
        # open and no worker runs it.
        _N.WAITING: {
            NodeEvent.OPEN: _N.WAITING,
            NodeEvent.COMPLETE: _N.COMPLETED,
            NodeEvent.ASK: _N.RETRYING,
            NodeEvent.SKIP: _N.SKIPPED,
            NodeEvent.DISPATCH: _N.QUEUED,
            NodeEvent.GIVE_UP: _N.FAILED,
            NodeEvent.CANCEL: _N.CANCELLED,
        },
        # In flight. RUNNING is how readers show a QUEUED node whose token a worker has claimed.
        _N.QUEUED: {
            NodeEvent.HOLD: _N.WAITING,
            NodeEvent.DISPATCH: _N.QUEUED,
            NodeEvent.COMPLETE: _N.COMPLETED,
            NodeEvent.ASK: _N.RETRYING,
            NodeEvent.GIVE_UP: _N.FAILED,
            NodeEvent.CANCEL: _N.CANCELLED,
        },
        _N.RETRYING: {
            NodeEvent.OPEN: _N.WAITING,
            NodeEvent.HOLD: _N.WAITING,
            NodeEvent.DISPATCH: _N.QUEUED,
            NodeEvent.GIVE_UP: _N.FAILED,
            NodeEvent.CANCEL: _N.CANCELLED,
        },
        _N.RUNNING: {},  # never stored
        _N.COMPLETED: {},
        _N.FAILED: {},
        _N.CANCELLED: {},
        _N.SKIPPED: {},
        _N.UPSTREAM_FAILED: {},
    }
)

EXECUTION: Mapping[ExecutionStatus, Mapping[ExecutionEvent, ExecutionStatus]] = MappingProxyType(
    {
        _E.PENDING: {
            ExecutionEvent.TRIGGER: _E.RUNNING,
            ExecutionEvent.CANCEL: _E.CANCELLED,
            ExecutionEvent.CRASH: _E.FAILED,
        },
        _E.RUNNING: {
            ExecutionEvent.PAUSE: _E.PAUSED,
            ExecutionEvent.COMPLETE: _E.COMPLETED,
            ExecutionEvent.FAIL: _E.FAILED,
            ExecutionEvent.CANCEL: _E.CANCELLED,
            ExecutionEvent.CRASH: _E.FAILED,
        },
        # What runs goes on: its end may be that of the execution.
        _E.PAUSED: {
            ExecutionEvent.RESUME: _E.RUNNING,
            ExecutionEvent.COMPLETE: _E.COMPLETED,
            ExecutionEvent.FAIL: _E.FAILED,
            ExecutionEvent.CANCEL: _E.CANCELLED,
            ExecutionEvent.CRASH: _E.FAILED,
        },
        _E.COMPLETED: {ExecutionEvent.RETRY: _E.RUNNING},
        _E.FAILED: {ExecutionEvent.RETRY: _E.RUNNING},
        _E.CANCELLED: {ExecutionEvent.RETRY: _E.RUNNING},
    }
)

LISTENING: Mapping[str, NodeStatus] = MappingProxyType(
    {
        "result": _N.QUEUED,
        "lost": _N.QUEUED,
        "unsendable": _N.QUEUED,
        "decision": _N.RETRYING,
        "cached": _N.WAITING,
        "child_ended": _N.WAITING,
        "expanded": _N.WAITING,
        "answered": _N.WAITING,
    }
)
"""Record kind → the one node status in which such a record about the node's current attempt means something.

In any other status, for any other attempt, and in an execution that is neither RUNNING nor PAUSED it is late, stale or
a copy, and changes nothing. For timers it depends on their kind: `decide.TIMERS`.
"""


def next_node(status: NodeStatus, event: NodeEvent) -> NodeStatus:
    """The status after `event`. Raises TransitionError when the table has no such row."""
    try:
        return NODE[status][event]
    except KeyError:
        raise TransitionError(f"a {status} node cannot {event}") from None


def next_execution(status: ExecutionStatus, event: ExecutionEvent) -> ExecutionStatus:
    """The status after `event`. Raises TransitionError when the table has no such row."""
    try:
        return EXECUTION[status][event]
    except KeyError:
        raise TransitionError(f"a {status} execution cannot {event}") from None
