"""The records of `wf.events`: everything that happens to executions."""

from __future__ import annotations

import msgspec

from wf_core.wire.parts import Begin, Failure, FrozenSettings, Parent
from wf_core.wire.versions import RULES


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind"):
    """What every record of `wf.events` carries."""

    execution: str
    ts: int
    source: str
    v: int = 1


class Document(Record, frozen=True, tag="document"):
    """Part `part` of `parts` of a zlib-compressed canonical document; ahead of the first `created` naming it."""

    hash: str
    part: int
    parts: int
    data: bytes


class Created(Record, frozen=True, tag="created"):
    """An execution was accepted. `input` is JSON bytes; `request` a hash of the request for idempotency."""

    id: str
    document: str
    name: str
    version: str | None = None
    labels: dict[str, str] = {}
    input: bytes = b"{}"
    settings: FrozenSettings = FrozenSettings()
    rules: int = RULES
    request: str = ""
    parent: Parent | None = None
    depth: int = 0
    """Executions above this one."""
    definitions: dict[str, str] = {}
    """`name` or `name@version`, as the document or one below it writes it → hash of the document: pinned."""


class Triggered(Record, frozen=True, tag="triggered"):
    """An execution may start. `input`, when given, replaces that of `created`."""

    id: str
    input: bytes | None = None
    request: str = ""


class Cancelled(Record, frozen=True, tag="cancelled"):
    """Someone asked to cancel an execution."""

    id: str
    reason: str = ""
    request: str = ""


class Paused(Record, frozen=True, tag="paused"):
    """Someone asked that an execution start nothing until it is resumed."""

    id: str
    reason: str = ""
    request: str = ""


class Resumed(Record, frozen=True, tag="resumed"):
    """Someone asked that a paused execution go on."""

    id: str
    request: str = ""


class Retried(Record, frozen=True, tag="retried"):
    """Someone asked that an ended execution go on from its failed nodes.

    `nodes`: also from these node paths and all downstream of them. `input`, when given, replaces the execution's.
    """

    id: str
    nodes: tuple[str, ...] = ()
    input: bytes | None = None
    request: str = ""


class Signalled(Record, frozen=True, tag="signalled"):
    """A signal came for an execution. `payload` is JSON bytes."""

    id: str
    name: str
    payload: bytes = b"null"
    request: str = ""


class Answered(Record, frozen=True, tag="answered"):
    """Someone answered an approval. `answer` is JSON bytes that fit its schema, `by` who it was."""

    id: str
    node: str
    attempt: int
    answer: bytes = b"null"
    by: str = ""
    request: str = ""


class ChildEnded(Record, frozen=True, tag="child_ended"):
    """A child execution ended; addressed to the node of its parent. `output` is JSON bytes when it COMPLETED."""

    node: str
    attempt: int
    child: str
    status: str
    output: bytes | None = None
    error: Failure | None = None


class Cached(Record, frozen=True, tag="cached"):
    """What the cache holds for a node: its output, or None when it holds nothing."""

    node: str
    attempt: int
    output: bytes | None = None


class Result(Record, frozen=True, tag="result"):
    """An attempt ended on a worker: exactly one of `output` (JSON bytes) and `error` is set. Times as of the worker."""

    node: str
    attempt: int
    worker: str
    started_at: int
    ended_at: int
    status: str = "COMPLETED"
    """An AttemptStatus: COMPLETED, FAILED, TIMED_OUT or CANCELLED."""
    output: bytes | None = None
    error: Failure | None = None
    package: str = ""
    """Distribution and version of the task's code, `wf-tasks-builtin 0.1.0`."""
    worker_package: str = ""
    """Distribution and version of the worker, `wf-worker 0.1.0`."""
    host: str = ""
    log_tail: str = ""
    """The last lines that the attempt logged or printed, when it did not complete."""
    begin: Begin | None = None
    """The node after it that its worker begins as soon as the log has this record. Such a record has `v` 2."""


class Timer(Record, frozen=True, tag="timer"):
    """A timer fell due. `timer` is its kind; node is empty for one of the execution (`deadline`)."""

    timer: str
    node: str = ""
    attempt: int = 0


class Lost(Record, frozen=True, tag="lost"):
    """An attempt was lost to the platform.

    `reason`: dead (its worker is silent), crash (its process ended), orphan, drain, or withdrawn (unclaimed and
    unwanted).
    """

    node: str
    attempt: int
    reason: str
    worker: str = ""
    silent_ms: int = 0
    detail: str = ""
    """What the worker knows about it: how the process ended."""
    started_at: int | None = None
    """When it began to run, where its worker lives to tell."""
    package: str = ""
    worker_package: str = ""
    host: str = ""
    log_tail: str = ""
    """As of `Result`, where its worker lives to tell."""


class Decision(Record, frozen=True, tag="decision"):
    """A retry policy's verdict on attempt `attempt`: after `delay_ms` again, or stop when it is None."""

    node: str
    attempt: int
    delay_ms: int | None
    reason: str
    policy: str


class Unsendable(Record, frozen=True, tag="unsendable"):
    """The log refuses an attempt's task message for good: the node fails."""

    node: str
    attempt: int
    error: Failure


class Acquire(Record, frozen=True, tag="acquire"):
    """An execution asks for a concurrency key; lies in the log of the key's partition (`ids.partition_of_key`).

    `era` tells its runs apart: how often `retry` had started it again.
    """

    key: str
    era: int
    limit: int
    """Most executions that may hold the key, this one among them."""
    on_conflict: str
    """When it is held by so many: `queue`, `skip`, `reject` or `cancel_running`."""


class Holds(Record, frozen=True, tag="holds"):
    """An execution knows that it was granted a concurrency key; lies where `Acquire` lies."""

    key: str
    era: int


class Release(Record, frozen=True, tag="release"):
    """An execution needs a concurrency key no more: it ended, or never wanted it; lies where `Acquire` lies."""

    key: str
    era: int


class KeyAnswer(Record, frozen=True, tag="key_answer"):
    """What becomes of an execution's request for a concurrency key."""

    key: str
    era: int
    answer: str
    """`granted`, `queued`, `refused`, `evicted` (another one needs its place) or `released`."""
    holder: str = ""
    """Of a queued or refused one: the execution that has held the key longest."""


class Expired(Record, frozen=True, tag="expired"):
    """An ended execution is older, or there are more of them, than retention keeps: it is deleted."""

    reason: str = "age"
    """`age` or `count`."""


class Expanded(Record, frozen=True, tag="expanded"):
    """What became of the nodes of a `dynamic` node: the canonical JSON of a document that holds them, or `error`."""

    node: str
    document: bytes = b""
    attempt: int = 0
    error: Failure | None = None
    definitions: dict[str, str] = {}
    """As of `Created`, of the definitions that these nodes name."""


Event = (
    Document
    | Created
    | Triggered
    | Cancelled
    | Paused
    | Resumed
    | Retried
    | Signalled
    | Answered
    | ChildEnded
    | Cached
    | Result
    | Timer
    | Lost
    | Decision
    | Unsendable
    | Acquire
    | Holds
    | Release
    | KeyAnswer
    | Expired
    | Expanded
)
KeyRecord = Acquire | Holds | Release
"""What an execution says to a concurrency key: the execution is at home elsewhere, as a rule."""
Command = Triggered | Cancelled | Paused | Resumed | Retried | Signalled | Answered
"""What someone asks of an execution that exists: each carries an id and is carried out once."""
