"""Records of the log and task messages: msgspec structs in msgpack.

Records are never rewritten; readers ignore fields that they do not know, and new fields have defaults. Values of users
travel as JSON bytes. Times are Unix milliseconds of Redis' clock.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from wf_core.errors import WfError

RULES = 2
"""The newest version of decide, CEL and built-in functions that this release has; it knows all before it as well.

1: tasks, joins, guards, retries. 2: every other kind, nested bodies, and commands beside trigger and cancel. An
execution is pinned to the lowest one that its document needs (`wf_core.plan.rules_of`), so that releases may be mixed.
"""
VERSION = 1
"""The newest form of records and task messages that this release reads: `v`."""


class NewerRecordError(WfError):
    """The operator must act: a newer release wrote this. It is no dead letter: leave it to a process that knows it."""


class Cause(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An error that led to another one: the next link of Python's chain of exceptions, outermost first."""

    type: str
    message: str


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why an attempt or an execution failed."""

    type: str
    message: str
    traceback: str = ""
    classes: tuple[str, ...] = ()
    """Short and full names of the error's class and its bases, for `retry_on` and `fail_on`."""
    retry_after_ms: int | None = None
    fatal: bool = False
    node: str | None = None
    attempt: int | None = None
    causes: tuple[Cause, ...] = ()


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Resolved retry settings of one node, in milliseconds."""

    policy: str = "exponential"
    max_retries: int = 3
    delay_ms: int = 1000
    base: float = 2.0
    max_delay_ms: int = 60_000
    jitter: float = 0.1
    max_elapsed_ms: int | None = None
    retry_on: tuple[str, ...] = ()
    fail_on: tuple[str, ...] = ()


class FrozenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that change decisions, frozen into `created` so that a replay on any host decides the same."""

    retry: RetrySettings = RetrySettings()
    max_platform_retries: int = 10
    max_payload_bytes: int = 256 * 1024
    max_crash_retries: int = 3
    """Attempts that may follow those whose process ended under them: a budget of its own."""
    timeout_ms: int | None = None
    """Of an attempt whose document says nothing: what a child inherits of its parent's defaults."""


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """The `workflow` node that a child execution runs for. `on_close`: cancel or abandon."""

    execution: str
    node: str
    attempt: int
    on_close: str = "cancel"


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


_encoder = msgspec.msgpack.Encoder()
_events: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Event)
_messages = msgspec.msgpack.Decoder(TaskMessage)
_KINDS = frozenset(kind.__struct_config__.tag for kind in get_args(Event))


def encode(record: Record | TaskMessage | Incarnation | DeadLetter) -> bytes:
    """The bytes of a record."""
    return _encoder.encode(record)


def decode_event(data: bytes) -> Event:
    """The record in `data`.

    Raises NewerRecordError for a kind, a version or rules that this release does not know, and msgspec.MsgspecError
    for what is no record at all; that belongs in the dead letters.
    """
    try:
        event: Event = _events.decode(data)
    except msgspec.MsgspecError:
        if reason := _newer(data):
            raise NewerRecordError(reason) from None
        raise
    if event.v > VERSION:
        raise NewerRecordError(_version(event.v))
    if isinstance(event, Created):
        check_rules(event.rules)
    return event


def check_rules(rules: int) -> None:
    """Raises NewerRecordError for an execution that is pinned to rules which this release does not have."""
    if rules > RULES:
        raise NewerRecordError(f"it needs rules {rules}, this release has {RULES}")


def decode_task(data: bytes) -> TaskMessage:
    """The task message in `data`. Raises NewerRecordError for a newer version, msgspec.MsgspecError when it is none."""
    try:
        message = _messages.decode(data)
    except msgspec.MsgspecError:
        if (version := _look(data).get("v", 1)) > VERSION:
            raise NewerRecordError(_version(version)) from None
        raise
    if message.v > VERSION:
        raise NewerRecordError(_version(message.v))
    return message


def _newer(data: bytes) -> str:
    """Why bytes that do not decode come from a newer release; "" for garbage."""
    record = _look(data)
    kind, version = record.get("kind"), record.get("v", 1)
    if not isinstance(kind, str):
        return ""
    if version > VERSION:
        return _version(version)
    return "" if kind in _KINDS else f"its kind {kind!r} is unknown to this release"


def _look(data: bytes) -> dict[str, Any]:
    """A record as a map, `v` an integer; {} for what is none."""
    try:
        record = msgspec.msgpack.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
    return record if isinstance(record.get("v", 1), int) else {}


def _version(version: int) -> str:
    return f"its version is {version}, this release reads up to {VERSION}"
