"""The shapes of answers, for the OpenAPI document. Answers themselves are the store's views, written as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from wf_core.states import AttemptClass, AttemptStatus, ExecutionStatus, NodeStatus

T = TypeVar("T")


class Shape(BaseModel):
    """Members are never absent: what has no value is null."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class ErrorPlace(Shape):
    """One thing that is wrong; `pointer` is a JSON pointer (RFC 6901) into what was sent."""

    pointer: str
    code: str
    detail: str


class ProblemModel(BaseModel):
    """An RFC 9457 problem."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="/problems/<slug>, stable")
    title: str
    status: int
    detail: str
    errors: list[ErrorPlace]


class FailureModel(Shape):
    """Why an execution or an attempt failed."""

    type: str
    message: str
    node: str | None = None
    attempt: int | None = None
    traceback: str | None = None


class CommandModel(BaseModel):
    """A command was accepted. `applied` and `position` are there only while no orchestrator has applied it."""

    execution_id: str
    status: ExecutionStatus
    applied: Literal[False] = Field(False, description="the next read may not show it yet")
    position: str = Field("", description="partition:offset in the log")


class CreatedModel(CommandModel):
    """An execution was created. `output` and `error` are there when `?wait` saw its end."""

    output: Any = None
    error: FailureModel | None = None


class NodeSummaryModel(Shape):
    """A node as an execution lists it."""

    status: NodeStatus
    attempts: int
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: FailureModel | None = None


class SummaryModel(Shape):
    """An execution as lists show it."""

    execution_id: str
    name: str
    version: str | None = None
    status: ExecutionStatus
    labels: dict[str, str]
    counts: dict[str, int] = Field(description="number of nodes by status")
    error: FailureModel | None = Field(None, description="the first failure")
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


def _nodes_on_request(schema: dict[str, Any]) -> None:
    schema["required"] = [name for name in schema["required"] if not name.startswith("nodes")]


class ExecutionModel(SummaryModel):
    """One execution. With `?nodes=false` it lacks `nodes` and `nodes_omitted`."""

    model_config = ConfigDict(json_schema_extra=_nodes_on_request)

    input: Any = None
    output: Any = None
    parent: dict[str, Any] | None = None
    nodes: dict[str, NodeSummaryModel] = Field({}, description="the first 1,000")
    nodes_omitted: int = Field(0, description="how many follow; GET …/nodes has them all")


class ResultsModel(Shape):
    """Outputs of what has completed so far, by node."""

    execution_id: str
    status: ExecutionStatus
    output: Any = None
    results: dict[str, Any]


class NodeItemModel(NodeSummaryModel):
    """A node as the list of nodes shows it."""

    node: str
    kind: Literal["task"]
    task: str
    queue: str
    worker: str | None = None


class AttemptModel(Shape):
    """One try of a node."""

    attempt: int
    status: AttemptStatus
    class_: AttemptClass | None = Field(None, alias="class", description="whose budget it used")
    worker: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: FailureModel | None = None
    decision: str | None = None
    reason: str | None = None


class NodeModel(NodeItemModel):
    """One node with its data and attempts."""

    input: Any = None
    output: Any = None
    child: dict[str, Any] | None = None
    history: list[AttemptModel]


class EventModel(Shape):
    """Something that happened. `seq` orders events and is the same after a replay."""

    seq: str
    ts: datetime
    kind: str
    node: str | None = None
    attempt: int | None = None
    status: str | None = None
    data: Any = None


class PageModel(Shape, Generic[T]):
    """Part of a list; `next_cursor` asks for what follows, null at the end."""

    items: list[T]
    next_cursor: str | None = None


class ValidationModel(Shape):
    """A document is right."""

    valid: Literal[True]
    hash: str
    nodes: int
    warnings: list[str]


class TaskModel(Shape):
    """A task that live workers can run."""

    name: str
    package: str
    version: str
    executor: str
    timeout_ms: int | None = None
    needs_permission: bool
    doc: str
    params: dict[str, Any] = Field(description="JSON Schema")
    output: dict[str, Any] = Field(description="JSON Schema")
    queues: list[str]
    workers: list[str]


class WorkerModel(Shape):
    """A worker that beats."""

    model_config = ConfigDict(extra="allow")

    id: str
    host: str
    pid: int
    queues: list[str]
    slots: int
    free: int
    version: str
    started_at: datetime | None = None
    alive: bool


class DeadLetterModel(Shape):
    """A record that nobody could use. `record` is what it holds, if that can be told; else `data` has its bytes."""

    id: int = Field(description="its offset in the topic of dead letters")
    status: Literal["waiting", "sent", "discarded"]
    settled_at: datetime | None = Field(None, description="when it was sent or discarded")
    position: str | None = Field(None, description="partition:offset of where it was sent to")
    topic: str = Field(description="where the record came from")
    partition: int
    offset: int | None = Field(None, description="null for a command that never reached the log")
    reason: str
    ts: datetime | None = None
    source: str = Field(description="who laid it here")
    bytes: int
    record: dict[str, Any] | None = None
    data: str | None = Field(None, description="base64")


class SettledModel(Shape):
    """A dead letter was dealt with."""

    id: int
    status: Literal["sent", "discarded"]
    settled_at: datetime
    position: str | None = None


class HealthModel(Shape):
    """The process runs."""

    status: Literal["ok"]


class ReadyModel(Shape):
    """Redis and the log answer."""

    status: Literal["ready"]
    checks: dict[str, str]
