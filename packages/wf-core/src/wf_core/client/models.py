"""What the API answers, typed. Fields that a newer server adds are ignored; times are aware datetimes in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from wf_core.states import ExecutionStatus

T = TypeVar("T")


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """An error that led to another one."""

    type: str
    message: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt or an execution failed."""

    type: str
    message: str
    node: str | None = None
    attempt: int | None = None
    traceback: str | None = None
    causes: list[Cause] = []


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One node as an execution lists it. `progress` is what a task reported, or how far a container is."""

    status: str
    attempts: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: Failure | None = None
    kind: str = "task"
    progress: Any = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """An execution without its data, as lists show it."""

    execution_id: str
    name: str
    status: str
    version: str | None = None
    labels: dict[str, str] = {}
    counts: dict[str, int] = {}
    error: Failure | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in set(ExecutionStatus) and ExecutionStatus(self.status).is_terminal

    @property
    def completed(self) -> bool:
        """Whether it ended well."""
        return self.status == ExecutionStatus.COMPLETED


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """The node that a child execution runs for."""

    execution_id: str
    node: str


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """The execution that a `workflow` node runs."""

    execution_id: str


class Execution(Summary, frozen=True, kw_only=True):
    """One execution. `nodes` (of the top level) is None when not asked for; `nodes_omitted` says how many follow.

    `ending` is the status that it will end in, while its compensations and `finally` run.
    """

    input: Any = None
    output: Any = None
    parent: Parent | None = None
    ending: str | None = None
    halting: str | None = None
    nodes: dict[str, NodeSummary] | None = None
    nodes_omitted: int | None = None


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow was accepted."""

    execution_id: str
    status: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Executions were accepted, in the order of their inputs."""

    executions: list[Submitted]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command was accepted. `applied` False: it is in the log, but no orchestrator has folded it yet."""

    execution_id: str
    status: str
    applied: bool = True


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Outputs of what has completed so far, by node."""

    execution_id: str
    status: str
    output: Any = None
    results: dict[str, Any] = {}


class NodeItem(msgspec.Struct, frozen=True, kw_only=True):
    """One node as the list of nodes shows it."""

    node: str
    status: str
    kind: str = "task"
    task: str | None = None
    attempts: int = 0
    queue: str | None = None
    worker: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: Failure | None = None
    progress: Any = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """One try of a node. `class_` (user, platform, timeout, crash) says whose budget it used."""

    attempt: int
    status: str
    class_: str | None = None
    worker: str | None = None
    host: str | None = None
    package: str | None = None
    worker_package: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: Failure | None = None
    decision: str | None = None
    reason: str | None = None
    log_tail: str | None = None


class Node(NodeItem, frozen=True, kw_only=True):
    """One node with its data and all its attempts."""

    input: Any = None
    output: Any = None
    child: Child | None = None
    compensation: NodeItem | None = None
    history: list[Attempt] = []


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why an execution or a node is where it is: a sentence for each cause."""

    execution_id: str
    status: str
    causes: list[Reason]
    node: str | None = None


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One cause. `node` is the path of the node that it is about, `code` what kind of cause it is."""

    sentence: str
    code: str = ""
    node: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an execution; `seq` orders them."""

    seq: str
    ts: datetime
    kind: str
    node: str | None = None
    attempt: int | None = None
    status: str | None = None
    data: Any = None


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Part of a list; `next_cursor` asks for the following part, None at the end."""

    items: list[T]
    next_cursor: str | None = None


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """A document passed the server's checks."""

    valid: bool = True
    hash: str | None = None
    nodes: int | None = None
    warnings: list[Any] = []


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that beats."""

    id: str
    host: str | None = None
    pid: int | None = None
    queues: list[str] = []
    slots: int | None = None
    free: int | None = None
    version: str | None = None
    started_at: datetime | None = None
    alive: bool | None = None
    broken: dict[str, str] = {}
    """Why tasks are missing on it, by task or file name."""


class TaskItem(msgspec.Struct, frozen=True, kw_only=True):
    """A task that live workers can run."""

    name: str
    package: str | None = None
    version: str | None = None
    params: Any = None
    output: Any = None
    executor: str | None = None
    queues: list[str] = []
    workers: Any = None
    doc: str | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a definition: its document's own `version`, and the hash of the document."""

    hash: str
    version: str | None = None
    created_at: datetime | None = None


class DefinitionItem(Version, frozen=True, kw_only=True):
    """A definition as lists show it: its newest version, and how many there are."""

    name: str
    versions: int = 1


class Definition(Version, frozen=True, kw_only=True):
    """One version of a definition with its document; `versions` has all of them, newest first."""

    name: str
    document: dict[str, Any]
    versions: list[Version] = []


class Registered(Version, frozen=True, kw_only=True):
    """A document is the newest version of a definition."""

    name: str
    warnings: list[str] = []


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """A definition, or a version of it, is gone; `removed` counts versions."""

    name: str
    removed: int


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about a dead letter: `status` is `waiting`, `sent` or `discarded`."""

    id: int
    status: str
    settled_at: datetime | None = None
    position: str | None = None


class DeadLetter(Settled, frozen=True, kw_only=True):
    """A record that nobody could use, and where it came from. `data` (base64) has the bytes that hold no `record`."""

    topic: str
    partition: int
    reason: str
    source: str
    bytes: int
    offset: int | None = None
    ts: datetime | None = None
    record: dict[str, Any] | None = None
    data: str | None = None
