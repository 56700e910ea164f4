"""What the other topics hold: task messages, the identity of the log, dead letters."""

from __future__ import annotations

import msgspec


class Following(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A node that its predecessor in a tail alone makes ready: what a worker needs to begin it by itself."""

    node: str
    attempt: int
    id: str
    """Its name in the expressions of the nodes after it."""
    task: str
    params: bytes
    """A JSON object; with `template` the document's, whose strings hold expressions."""
    template: bool = False
    timeout_ms: int | None = None
    heartbeat_ms: int | None = None


class Tail(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a worker may go on with, one after the other, without being told again."""

    following: tuple[Following, ...]
    limit: int
    """Most bytes of parameters."""
    nodes: dict[str, bytes] = {}
    """What their expressions name of nodes that ended before: id → JSON of `{output, status, error}`."""
    input: bytes | None = None
    """The execution's, when they name it."""


class TaskMessage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One attempt on its way to a worker. `params` is a JSON object in bytes; `timeout_ms` counts from its start."""

    execution: str
    node: str
    attempt: int
    task: str
    params: bytes
    workflow: str
    queued_at: int
    timeout_ms: int | None = None
    priority: int = 5
    lost: int = 0
    """Attempts of the node that were lost to the platform. What may have killed its process runs in one of its own."""
    heartbeat_ms: int | None = None
    """Longest silence of the task itself (`ctx.heartbeat`)."""
    id: str = ""
    """The node's name in the expressions of `then`; empty without it."""
    then: Tail | None = None
    """The nodes after this one that its worker may begin, once the log has its result."""
    v: int = 1


class Incarnation(msgspec.Struct, frozen=True, kw_only=True):
    """Record 0 of `wf.meta`: the identity of the log. Another one means that the log was lost whole."""

    id: str
    v: int = 1


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What lies in the dead letters: where a record came from, why it is there, and its bytes."""

    topic: str
    partition: int
    offset: int | None
    """Of the record; None for a command that never reached the log."""
    reason: str
    ts: int
    source: str
    record: bytes
    v: int = 1
