"""What one event causes, as data. `snapshot.to_ops` writes all of it in one APPLY; the shell acts on it afterwards.

Timers (`SetTimer.kind`) are members `kind|token` of the timers. What the shell does when one is due:

* `decide`, token of the failed attempt: asks `verdicts.request(execution, node, attempt)`. None: the timer is stale,
  nothing to do. Else it calls `policies.verdict.verdict` and appends `Decision`.
* `retry`, token of the failed attempt: appends `Timer(timer="retry", node, attempt)`.
* `withdraw`, token of an attempt in flight that is not wanted any more: calls `scripts.withdraw` with all that are due
  and appends `Lost(reason="withdrawn")` for those that it returned. An attempt that a worker has claimed keeps its
  timer until it ends: nothing to do, look again later.
* `deadline`, token `token(execution, "", 0)`: appends `Timer(timer="deadline")`.
* `queue`, token of an attempt in flight: as `withdraw`, with `Lost(reason="queue_timeout")`, for those unclaimed.
* `cache`, token of an attempt that begins with a lookup: appends `Cached`, see `machine.caching`.
* `acquire`, `release`, `grant`, `evict`, token `token(execution, concurrency key, era)`: see `machine.concurrency`.
* any other (`timeout` of an attempt that no worker runs, `total` of all attempts, with the number of the first one of
  its era, …): appends `Timer(timer=kind, node, attempt)`.

The machine clears a timer when it folds what the timer led to; firing one twice is harmless.

They are structs since an event makes several, and a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wf_core.policies import ReadyNode
    from wf_core.states import ExecutionStatus
    from wf_core.wire import KeyAnswer, KeyRecord, TaskMessage
    from wf_orchestrator.machine.concurrency import Key
    from wf_orchestrator.machine.state import Cell, Execution


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """An attempt enters the in-flight set and the outbox of its queue.

    `seq` grows with each dispatch of the partition, `ready` is what a scheduling policy sees, `packed` the message as
    it is stored and sent.
    """

    token: str
    queue: str
    priority: int
    seq: int
    message: TaskMessage
    ready: ReadyNode
    packed: bytes


class Begun(msgspec.Struct, frozen=True, gc=False):
    """An attempt that its worker began by itself enters the in-flight set, claimed by that worker at `ts` (Unix ms)."""

    token: str
    worker: str
    ts: int


class Ended(msgspec.Struct, frozen=True, gc=False):
    """An attempt leaves the in-flight set. `cancel`: a worker may still run it and must be told."""

    token: str
    queue: str
    cancel: bool = False


class StopTails(msgspec.Struct, frozen=True, gc=False):
    """Workers shall begin nothing more of an execution by themselves: it is paused, or halts.

    It may get lost: what they begin meanwhile is taken over, and then they are told again.
    """

    execution: str


class SetTimer(msgspec.Struct, frozen=True, gc=False):
    """`kind|token` falls due at `due_ms`, Unix time in ms."""

    kind: str
    token: str
    due_ms: int


class ClearTimer(msgspec.Struct, frozen=True, gc=False):
    """`kind|token` is not wanted any more."""

    kind: str
    token: str


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The command in this field of `{p}:acc` was folded: `<execution>/create`, `/trigger` or `/cancel`."""

    field: str


class KeepDocument(msgspec.Struct, frozen=True, gc=False):
    """A part of a compressed document came along in the log."""

    hash: str
    part: int
    parts: int
    data: bytes


class Deleted(msgspec.Struct, frozen=True, gc=False):
    """All that was written about an execution that had ended goes, and its places in the indexes.

    `status` is the one that it ended with; `expired` that of the partition from now on.
    """

    execution: str
    name: str
    labels: Mapping[str, str]
    status: ExecutionStatus
    expired: int


class KeepKey(msgspec.Struct, frozen=True, gc=False):
    """A concurrency key that lives in this partition changed."""

    name: str
    key: Key


class Send(msgspec.Struct, frozen=True, gc=False):
    """Something to say once, in the log of another partition as a rule: the shell gives it the time and the source.

    It may get lost; whoever needs it asks again.
    """

    record: KeyRecord | KeyAnswer


class CacheStore(msgspec.Struct, frozen=True, gc=False):
    """An output for the cache, for `ttl_ms`. It may get lost."""

    name: str
    output: bytes
    ttl_ms: int


Effect = (
    Dispatch
    | Begun
    | Ended
    | StopTails
    | SetTimer
    | ClearTimer
    | Accepted
    | KeepDocument
    | Deleted
    | KeepKey
    | Send
    | CacheStore
)


class HistoryEntry(NamedTuple):
    """One line of an execution's history. `data` is a JSON object in bytes, or empty.

    Of the execution: `execution.created`, `.triggered`, `.failing` (its first failure; data: the error), `.cancelling`
    (data: reason), `.ended` (data: the error if any). Of a node: `node.queued` (data: the worker, of an attempt that it
    began by itself after the node before), `.retrying` (an attempt failed; data: the error, worker, attempt_status),
    `.decided` (data: delay_ms or null, reason, policy), `.lost` (data: reason,
    worker, lost, limit), `.completed` (data: worker, started_at, ended_at), `.failed` (data: the error, worker),
    `.cancelled` (data: reason), `.skipped`, `.upstream_failed`.
    Of control: `execution.paused` (data: reason), `.resumed`, `.retried` (data: from), `.acquiring` (data: the
    concurrency key, its limit), `.waiting` (data: key, holder), `.admitted` (data: key); `node.cached`.
    Of waits and approvals: `node.waiting` (not told of a wait that ends at once; data: signals or assignees, and due:
    when time does something, Unix ms or null), `execution.signalled` (data: name, command, consumed_by: the path of
    the wait that took it, or null: it is kept), `execution.signal_dropped` (no room; data: name, command, reason),
    `node.signalled` (a wait took one that was kept; data: name, command), `node.unmatched` (a `match` failed; data:
    error, name and command of the first signal that it failed for, signals: for how many), `node.answered` (data: by,
    command).
    `status` is the node's, or the execution's, afterwards.
    Nodes that had not started when everything was cancelled at once are not listed one by one.
    """

    kind: str
    node: str
    attempt: int
    status: str
    ts: int
    data: bytes


class Outcome(msgspec.Struct):
    """All that one event changed.

    `execution` is the state afterwards (None: there is none). The rest is what `snapshot.to_ops` writes:
    `changed_nodes` node index → cell; `changed_fields` field of `{p}:x` → value; `results` field of `{p}:r` → value
    (None: it goes); `scopes` likewise of `{p}:b`; `moved` the execution's status before (None: it is new) and after;
    `recounted` whether the number of nodes of some status changed.
    `crash` is the traceback of an internal error, for the log of the service; it is no part of the state.
    """

    offset: int
    execution: Execution | None = None
    effects: list[Effect] = []
    changed_nodes: dict[int, Cell] = {}
    changed_fields: dict[str, bytes | None] = {}
    results: dict[str, bytes | None] = {}
    scopes: dict[str, bytes | None] = {}
    moved: tuple[ExecutionStatus | None, ExecutionStatus] | None = None
    history: list[HistoryEntry] = []
    recounted: bool = False
    crash: str = ""
