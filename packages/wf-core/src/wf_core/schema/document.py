"""The workflow document: its one definition, from which its published JSON Schema is made."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, StrictInt, StrictStr

from wf_core.schema.fields import (
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    JOIN_RULES,
    LONGEST_ID,
    LabelName,
    LabelValue,
    Line,
    Part,
    PolicyName,
    PositiveDuration,
    check_id,
    duration_ms,
)
from wf_core.schema.nodes import AnyNode, ChildSchema, DefaultsSchema, NodeSchema, RetrySchema, TaskSchema

__all__ = [
    "DEFAULT_PRIORITY",
    "DEFAULT_QUEUE",
    "JOIN_RULES",
    "LONGEST_ID",
    "AnyNode",
    "ConcurrencySchema",
    "DefaultsSchema",
    "LabelName",
    "LabelValue",
    "NodeSchema",
    "RetrySchema",
    "TaskSchema",
    "WorkflowSchema",
    "check_id",
    "duration_ms",
]


class ConcurrencySchema(Part):
    """How many executions with the same key may run at once."""

    key: Any = Field(description="value or template over `input` and `execution`")
    limit: StrictInt = Field(1, ge=1, description="most executions of one key that run at once")
    on_conflict: Literal["queue", "skip", "reject", "cancel_running"] = Field(
        "queue", description="what becomes of one more"
    )


class WorkflowSchema(Part):
    """A workflow: nodes, and the order between them."""

    name: Line = Field(description="name of the workflow")
    description: StrictStr | None = None
    version: Line | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, description="for finding executions again")
    input: dict[str, Any] | None = Field(None, description="JSON Schema of the input; its defaults are filled in")
    defaults: DefaultsSchema | None = None
    nodes: dict[str, AnyNode] = Field(min_length=1, description="id to node")
    finally_: dict[str, AnyNode] | None = Field(
        None, alias="finally", min_length=1, description="nodes that run when everything else has ended: id to node"
    )
    output: Any = Field(None, description="value or template; without one, the output of the only leaf or of each leaf")
    timeout: PositiveDuration | None = Field(None, description="of the whole execution")
    on_failure: Literal["halt", "cancel", "continue"] = Field(
        "halt", description="what a failed node does to the others"
    )
    max_parallel: StrictInt | None = Field(None, ge=1, description="most attempts in flight at once")
    scheduling: PolicyName = Field(
        "fifo", description="an entry point of wf.scheduling_policies: fifo, priority, critical_path"
    )
    concurrency: ConcurrencySchema | None = None
    _is_checked: bool = PrivateAttr(default=False)

    @property
    def is_checked(self) -> bool:
        """Whether its graph and expressions were found right, so that compiling need not look again."""
        return self._is_checked

    def checked(self) -> Self:
        """Marks the document as one whose graph and expressions were found right."""
        self._is_checked = True
        return self


def inline_document(parent: WorkflowSchema, node_id: str, node: ChildSchema) -> WorkflowSchema:
    """The document of a child that is written in its parent: it inherits the parent's defaults, field by field."""
    name = f"{parent.name}/{node_id}"
    return WorkflowSchema(
        name=name if len(name) <= LONGEST_ID else f"…{name[1 - LONGEST_ID :]}",
        nodes=node.nodes or {},
        output=node.output,
        defaults=_inherited(parent.defaults, node.defaults),
    ).checked()


def _inherited(above: DefaultsSchema | None, own: DefaultsSchema | None) -> DefaultsSchema | None:
    if above is None or own is None:
        return own or above
    retry = own.retry or above.retry
    if own.retry and above.retry:
        retry = above.retry.model_copy(update={name: value for name, value in own.retry if value is not None})
    return DefaultsSchema(retry=retry, timeout=above.timeout if own.timeout is None else own.timeout)
