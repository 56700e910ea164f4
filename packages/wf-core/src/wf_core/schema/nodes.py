"""The nodes of a document: one class for each kind, which takes only the fields that mean something to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictFloat, StrictInt, StrictStr, Tag

from wf_core.schema.fields import (
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    Condition,
    Duration,
    ErrorValue,
    Items,
    Line,
    Moment,
    NodeTemplate,
    OnTimeout,
    Part,
    PolicyName,
    PositiveDuration,
    QueueName,
    SomeDuration,
    Tolerance,
)


class RetrySchema(Part):
    """What happens when an attempt fails. What is not given comes from the document's defaults, then from `APP_*`."""

    policy: PolicyName | None = Field(None, description="an entry point of wf.retry_policies: exponential, fixed, none")
    max_retries: StrictInt | None = Field(None, ge=0, description="retries, not attempts: 3 means at most 4 attempts")
    delay: Duration | None = Field(None, description="before the first retry")
    base: StrictFloat | None = Field(None, ge=1, le=1000, description="factor between one delay and the next")
    max_delay: Duration | None = Field(None, description="longest delay")
    jitter: StrictFloat | None = Field(None, ge=0, le=1, description="share of the delay that is spread at random")
    max_elapsed: PositiveDuration | None = Field(None, description="no retry begins later than this after the start")
    retry_on: list[Line] | None = Field(None, description="only errors of these classes (or classes below them)")
    fail_on: list[Line] | None = Field(None, description="never errors of these classes (or classes below them)")


class DefaultsSchema(Part):
    """What holds for every node that says nothing else."""

    retry: RetrySchema | None = None
    timeout: PositiveDuration | None = None


class CatchSchema(Part):
    """A node that runs instead of failing the execution, when this one has failed."""

    errors: list[Line] = Field(
        default_factory=list, description="only errors of these classes (or classes below them); none listed: all"
    )
    to: StrictStr = Field(description="id of the node that runs then; its join is `caught`")
    as_: StrictStr | None = Field(None, alias="as", description="name by which that node's expressions read the error")


class CompensateSchema(Part):
    """A task that undoes what the node did, when the execution fails or is cancelled later."""

    task: Line = Field(description="name of the task that runs")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters; they may name the node itself")


class CacheSchema(Part):
    """An earlier output of the same task with the same key is used again."""

    key: Any = Field(description="value or template: what the output depends on")
    ttl: PositiveDuration | None = Field(None, description="how long an output may be used again")


class NodeSchema(Part):
    """What every node takes."""

    depends_on: list[StrictStr] = Field(default_factory=list, description="ids of nodes that come before this one")
    when: Condition = Field(default=True, description="CEL guard, evaluated once; false skips the node")
    join: StrictStr = Field("all_success", description="a join rule, or CEL over nodes.<id>.status")


class FallibleSchema(NodeSchema):
    """What every node takes that may fail by itself."""

    on_error: Literal["fail", "continue"] = Field("fail", description="continue: FAILED, but counts as success")
    catch: list[CatchSchema] = Field(default_factory=list, description="nodes that run instead; the first that fits")


class AttemptedSchema(FallibleSchema):
    """What every node takes that may be tried again."""

    retry: RetrySchema | None = None
    total_timeout: PositiveDuration | None = Field(None, description="of all attempts together")
    compensate: CompensateSchema | None = None


class TaskSchema(AttemptedSchema):
    """A task: code that a worker runs."""

    kind: Literal["task"] = Field("task", description="what the node is")
    task: Line = Field(description="name of the task that runs, e.g. http.request")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters; strings may hold ${{ … }} templates")
    timeout: PositiveDuration | None = Field(None, description="of one attempt, from its start on the worker")
    queue_timeout: PositiveDuration | None = Field(None, description="longest wait for a worker")
    heartbeat: PositiveDuration | None = Field(None, description="longest silence of a running attempt")
    queue: QueueName = Field(DEFAULT_QUEUE, description="which workers may take it")
    priority: StrictInt = Field(DEFAULT_PRIORITY, ge=0, le=9, description="0-9, higher first")
    cache: CacheSchema | None = None


class CaseSchema(Part):
    """One way that a switch may take."""

    when: Condition = Field(description="CEL condition; the first case that holds is taken")
    to: list[StrictStr] = Field(description="ids of the nodes that run then")


class SwitchSchema(FallibleSchema):
    """A switch: the nodes of the first case that holds run, those of the others are skipped."""

    kind: Literal["switch"] = Field(description="what the node is")
    cases: list[CaseSchema] = Field(min_length=1, description="tried in order")
    default: list[StrictStr] = Field(description="ids of the nodes that run when no case holds; may be empty")


class MapSchema(AttemptedSchema):
    """A map: nodes, or one task, for each item of a list."""

    kind: Literal["map"] = Field(description="what the node is")
    items: Items = Field(description="a list, or a template that gives one")
    as_: StrictStr = Field("item", alias="as", description="name of the item in the expressions inside")
    nodes: dict[str, AnyNode] | None = Field(None, min_length=1, description="what runs for each item: id to node")
    output: Any = Field(None, description="of one item's nodes; without it that of the only leaf or of each leaf")
    task: Line | None = Field(None, description="the short form: a task that runs for each item")
    params: dict[str, Any] | None = Field(None, description="of that task; they may name the item")
    timeout: PositiveDuration | None = Field(None, description="of one attempt; with `task`, of an item's attempt")
    queue_timeout: PositiveDuration | None = Field(None, description="with `task`: longest wait for a worker")
    heartbeat: PositiveDuration | None = Field(None, description="with `task`: longest silence of a running attempt")
    queue: QueueName = Field(DEFAULT_QUEUE, description="with `task`: which workers may take it")
    priority: StrictInt = Field(DEFAULT_PRIORITY, ge=0, le=9, description="with `task`: 0-9, higher first")
    max_parallel: StrictInt | None = Field(None, ge=1, description="most items that run at once")
    batch: StrictInt | None = Field(None, ge=1, description="items in one: the item is a list of that many then")
    tolerate: Tolerance = Field(0, description="items that may fail: a number, or a percentage such as 10%")
    order: Literal["parallel", "sequential"] = Field("parallel", description="sequential: one after the other")


class LoopSchema(AttemptedSchema):
    """A loop: nodes that run again and again, while or until a condition holds."""

    kind: Literal["loop"] = Field(description="what the node is")
    while_: Condition | None = Field(None, alias="while", description="CEL, tested before each pass")
    until: Condition | None = Field(None, description="CEL, tested after each pass, whose nodes it sees")
    nodes: dict[str, AnyNode] = Field(min_length=1, description="what runs in each pass: id to node")
    output: Any = Field(None, description="of one pass; without it that of the only leaf or of each leaf")
    max_iterations: StrictInt = Field(ge=1, description="most passes; when one more is needed, the loop fails")
    delay: Duration | None = Field(None, description="between one pass and the next")
    keep_last: StrictInt | None = Field(None, ge=1, description="keep only so many passes, not all")
    timeout: PositiveDuration | None = Field(None, description="of one attempt: all passes together")


class ChildSchema(AttemptedSchema):
    """A workflow inside this one: a registered definition, or nodes written here. It is an execution of its own."""

    kind: Literal["workflow"] = Field(description="what the node is")
    workflow: Line | None = Field(None, description="name of a registered definition")
    version: Line | None = Field(None, description="of the definition; without it the newest")
    nodes: dict[str, AnyNode] | None = Field(None, min_length=1, description="the child, written here: id to node")
    output: Any = Field(None, description="of the child that is written here")
    defaults: DefaultsSchema | None = Field(None, description="of the child that is written here, over the parent's")
    input: Any = Field(None, description="value or template: all that the child sees")
    on_parent_close: Literal["cancel", "abandon"] = Field(
        "cancel", description="what becomes of it when this execution ends first"
    )
    timeout: PositiveDuration | None = Field(None, description="of one attempt: the child is cancelled then")


class TermSchema(Part):
    """One thing to wait for: exactly one of `duration`, `until` and `signal`."""

    duration: SomeDuration | None = Field(None, description="how long, from the start of the wait")
    until: Moment | None = Field(None, description="a time, RFC 3339")
    signal: Line | None = Field(None, description="name of a signal")
    match: StrictStr | None = Field(None, description="CEL over `payload`: only signals for which it holds")


class WaitSchema(AttemptedSchema):
    """A wait for a time or a signal: exactly one of `duration`, `until`, `signal`, `any` and `all`."""

    kind: Literal["wait"] = Field(description="what the node is")
    duration: SomeDuration | None = Field(None, description="how long")
    until: Moment | None = Field(None, description="a time, RFC 3339")
    signal: Line | None = Field(None, description="name of a signal")
    match: StrictStr | None = Field(None, description="CEL over `payload`: only signals for which it holds")
    any: list[TermSchema] | None = Field(None, min_length=1, description="the first of these ends the wait")
    all: list[TermSchema] | None = Field(None, min_length=1, description="all of these end the wait")
    timeout: PositiveDuration | None = Field(None, description="longest wait")
    on_timeout: OnTimeout = Field("fail", description="fail, skip, or an object {value: …}: the output then")


class ApprovalSchema(AttemptedSchema):
    """A question to people, whose answer is the output."""

    kind: Literal["approval"] = Field(description="what the node is")
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="JSON Schema of the answer")
    assignees: Any = Field(default_factory=list, description="who is asked: a list of names, or a template")
    timeout: PositiveDuration | None = Field(None, description="longest wait for the answer")
    on_timeout: OnTimeout = Field("fail", description="fail, skip, or an object {value: …}: the output then")


class EndSchema(NodeSchema):
    """The end of the execution (inside a map or loop: of the item or pass), at once."""

    kind: Literal["end"] = Field(description="what the node is")
    status: Literal["COMPLETED", "FAILED", "CANCELLED"] = Field("COMPLETED", description="how it ends")
    output: Any = Field(None, description="value or template, with COMPLETED")
    error: ErrorValue | None = Field(None, description="text or {type, message}, with FAILED or CANCELLED")


class DynamicSchema(AttemptedSchema):
    """Nodes that are not known before the execution runs."""

    kind: Literal["dynamic"] = Field(description="what the node is")
    nodes: NodeTemplate = Field(description="a template that gives a map: id to node")
    allow: list[Line] = Field(
        default_factory=lambda: ["*"], description="patterns of the tasks that may be used, such as shop.*"
    )
    max_nodes: StrictInt = Field(1000, ge=1, description="most nodes that it may give")
    timeout: PositiveDuration | None = Field(None, description="of one attempt: all of its nodes together")


KINDS: dict[str, type[NodeSchema]] = {
    "task": TaskSchema,
    "switch": SwitchSchema,
    "map": MapSchema,
    "loop": LoopSchema,
    "workflow": ChildSchema,
    "wait": WaitSchema,
    "approval": ApprovalSchema,
    "end": EndSchema,
    "dynamic": DynamicSchema,
}
"""What `kind` may be."""
BODIES = frozenset({"map", "loop", "workflow"})
"""Kinds that may hold `nodes` of their own, written in the document."""


def kind_of(node: Any) -> str:
    """The kind that a node says it is, `task` when it says none; not text: what no kind is called."""
    kind = node.get("kind", "task") if isinstance(node, dict) else getattr(node, "kind", "task")
    return kind if isinstance(kind, str) else ""


AnyNode = Annotated[
    Annotated[TaskSchema, Tag("task")]
    | Annotated[SwitchSchema, Tag("switch")]
    | Annotated[MapSchema, Tag("map")]
    | Annotated[LoopSchema, Tag("loop")]
    | Annotated[ChildSchema, Tag("workflow")]
    | Annotated[WaitSchema, Tag("wait")]
    | Annotated[ApprovalSchema, Tag("approval")]
    | Annotated[EndSchema, Tag("end")]
    | Annotated[DynamicSchema, Tag("dynamic")],
    Discriminator(kind_of),
]
for _container in (MapSchema, LoopSchema, ChildSchema):
    _container.model_rebuild()
