"""The shapes of answers, for the OpenAPI document. Answers themselves are the store's views, written as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

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


class CauseModel(Shape):
    """An error that led to another one."""

    type: str
    message: str


class FailureModel(Shape):
    """Why a node failed, or why its last attempt did."""

    type: str
    message: str


class FirstFailureModel(FailureModel):
    """Why an execution failed, and where that began."""

    node: str | None = None
    attempt: int | None = None


class AttemptFailureModel(FailureModel):
    """Why an attempt failed, in full."""

    traceback: str | None = None
    causes: list[CauseModel] = Field([], description="the errors that led to it, the nearest first")


class CommandModel(BaseModel):
    """A command was accepted. `applied` and `position` are there only while no orchestrator has applied it."""

    execution_id: str
    status: ExecutionStatus
    applied: Literal[False] = Field(False, description="the next read may not show it yet")
    position: str = Field("", description="partition:offset in the log")


class OrderedModel(BaseModel):
    """What became of one execution of many. `problem` says why nothing; `applied` and `position` as of a command."""

    execution_id: str
    status: ExecutionStatus | None
    problem: str | None
    applied: Literal[False] = False
    position: str = ""


class CreatedModel(CommandModel):
    """An execution was created. `output` and `error` are there when `?wait` saw its end."""

    output: Any = None
    error: FirstFailureModel | None = None


class BatchModel(BaseModel):
    """Executions were created, in the order of their inputs."""

    executions: list[CommandModel]


class NodeSummaryModel(Shape):
    """A node as an execution lists it."""

    kind: str
    status: NodeStatus
    attempts: int
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: FailureModel | None = None
    progress: Any = Field(
        None,
        description="what a running task reported; of a map {total, opened, ended, failed}, of a loop also `pass`",
    )


class SummaryModel(Shape):
    """An execution as lists show it."""

    execution_id: str
    name: str
    version: str | None = None
    status: ExecutionStatus
    labels: dict[str, str]
    counts: dict[str, int] = Field(description="number of nodes by status")
    error: FirstFailureModel | None = Field(None, description="the first failure")
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class ParentModel(Shape):
    """The node that a child execution runs for."""

    execution_id: str
    node: str


class ChildModel(Shape):
    """The execution that a `workflow` node runs."""

    execution_id: str


def _nodes_on_request(schema: dict[str, Any]) -> None:
    schema["required"] = [name for name in schema["required"] if not name.startswith("nodes")]


class ExecutionModel(SummaryModel):
    """One execution. With `?nodes=false` it lacks `nodes` and `nodes_omitted`."""

    model_config = ConfigDict(json_schema_extra=_nodes_on_request)

    input: Any = None
    output: Any = None
    parent: ParentModel | None = None
    ending: ExecutionStatus | None = Field(None, description="what it ends in, while compensations and `finally` run")
    halting: str | None = Field(None, description="halt or cancel, once a failure keeps it from starting anything")
    nodes: dict[str, NodeSummaryModel] = Field({}, description="the first 1,000 of the top level")
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
    task: str | None = Field(None, description="null for other kinds")
    queue: str | None = None
    worker: str | None = None


class AttemptModel(Shape):
    """One try of a node."""

    attempt: int
    status: AttemptStatus
    class_: AttemptClass | None = Field(None, alias="class", description="whose budget it used")
    worker: str | None = None
    host: str | None = None
    package: str | None = Field(None, description="whose code ran")
    worker_package: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: AttemptFailureModel | None = None
    decision: str | None = None
    reason: str | None = None
    log_tail: str | None = Field(None, description="the last lines that it logged, when it did not complete")


class NodeModel(NodeItemModel):
    """One node with its data and attempts."""

    input: Any = None
    output: Any = None
    child: ChildModel | None = None
    compensation: NodeItemModel | None = None
    history: list[AttemptModel]


class ReasonModel(Shape):
    """One cause."""

    code: str = Field(description="what kind of cause it is")
    node: str | None = Field(None, description="whom it is about; null for the execution")
    sentence: str


class WhyModel(Shape):
    """Why an execution or a node is where it is."""

    execution_id: str
    status: ExecutionStatus
    node: str | None = Field(None, description="which node was asked about")
    causes: list[ReasonModel] = Field(description="nearest first")


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


class VersionModel(Shape):
    """One version of a registered definition."""

    version: str | None = Field(None, description="the document's own")
    hash: str = Field(description="names the document by its content; takes the place of `version` anywhere")
    created_at: datetime | None = None


class DefinitionItemModel(VersionModel):
    """A definition as lists show it: its newest version."""

    name: str
    versions: int = Field(description="how many there are")


class DefinitionModel(VersionModel):
    """One version of a definition."""

    name: str
    document: dict[str, Any] = Field(description="in canonical form")
    versions: list[VersionModel] = Field(description="all of them, newest first")


class RegisteredModel(VersionModel):
    """A document is the newest version of a definition."""

    name: str
    warnings: list[str]


class RemovedModel(Shape):
    """A definition, or a version of it, is gone."""

    name: str
    removed: int = Field(description="number of versions")


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


_SHOWN: tuple[type[BaseModel], ...] = (
    BatchModel,
    CommandModel,
    CreatedModel,
    DeadLetterModel,
    DefinitionModel,
    ExecutionModel,
    HealthModel,
    NodeModel,
    PageModel[DeadLetterModel],
    PageModel[DefinitionItemModel],
    PageModel[EventModel],
    PageModel[NodeItemModel],
    PageModel[OrderedModel],
    PageModel[SummaryModel],
    PageModel[TaskModel],
    PageModel[WorkerModel],
    ReadyModel,
    RegisteredModel,
    RemovedModel,
    ResultsModel,
    SettledModel,
    ValidationModel,
    WhyModel,
)


def shapes(reference: str) -> dict[str, Any]:
    """The JSON Schemas of all answers and of their parts, by name; `reference` is how they name each other."""
    _, document = models_json_schema([(model, "serialization") for model in _SHOWN], ref_template=reference)
    found: dict[str, Any] = document["$defs"]
    return found
