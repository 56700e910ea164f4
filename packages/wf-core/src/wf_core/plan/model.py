"""The compiled document as data: what the machine folds over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from wf_core.expressions import Expression, Template
from wf_core.graph import Graph
from wf_core.schema.document import RetrySchema, WorkflowSchema, duration_ms
from wf_core.wire import Failure, Following, FrozenSettings, RetrySettings

_DURATIONS = {"delay": "delay_ms", "max_delay": "max_delay_ms", "max_elapsed": "max_elapsed_ms"}


@dataclass(frozen=True, slots=True)
class CatchPlan:
    """One entry of a node's `catch`."""

    errors: tuple[str, ...]
    """Short or full names of classes; none: every error."""
    to: int
    """Local index of the node that runs then."""
    as_: str | None
    """Name by which that node's expressions read the error."""

    def takes(self, error: Failure) -> bool:
        """Whether it names the class of an error, or a class above it; without names it takes any."""
        return not self.errors or not {error.type, *error.classes}.isdisjoint(self.errors)


@dataclass(frozen=True, slots=True)
class CachePlan:
    """An earlier output of the same task and key is used again."""

    key: Template
    ttl_ms: int | None
    """None: as long as the cache keeps it."""


@dataclass(frozen=True, slots=True)
class SwitchCase:
    """One way that a switch may take: local indexes of the nodes that run then."""

    when: Expression
    to: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """The first case that holds is taken."""

    cases: tuple[SwitchCase, ...]
    default: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MapPlan:
    """A body for each item of a list."""

    items: Template
    as_: str
    body: Body
    max_parallel: int | None
    """Items that run at once; 1 when they run in sequence, None: as many as there are."""
    batch: int | None
    tolerate: int
    """Items that may fail, when no share is given."""
    tolerate_share: float | None
    """Share of the items that may fail, 0 to 1."""


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """A body that runs again while one condition holds, or until the other does; exactly one of them is set."""

    while_: Expression | None
    until: Expression | None
    body: Body
    max_iterations: int
    delay_ms: int
    keep_last: int | None


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """A child execution: of a registered definition, or of a document that stands in this one."""

    workflow: str | None
    version: str | None
    document: bytes | None
    """Canonical JSON of the child that stands in this document."""
    input: Template
    on_parent_close: Literal["cancel", "abandon"]


@dataclass(frozen=True, slots=True)
class WaitTerm:
    """One thing to wait for: a time or a signal."""

    name: str
    """The signal's, else `duration` or `until`; unique within a node."""
    duration_ms: Template | int | None
    until: Template | None
    signal: str | None
    match: Expression | None


OnTimeout = Literal["fail", "skip"] | Template
"""A template gives the output."""


@dataclass(frozen=True, slots=True)
class WaitPlan:
    """What ends a wait."""

    mode: Literal["one", "any", "all"]
    terms: tuple[WaitTerm, ...]
    timeout_ms: int | None
    on_timeout: OnTimeout


@dataclass(frozen=True, slots=True)
class ApprovalPlan:
    """A question to people."""

    schema: Mapping[str, Any] | None
    assignees: Template
    timeout_ms: int | None
    on_timeout: OnTimeout


@dataclass(frozen=True, slots=True)
class EndPlan:
    """How the execution ends here, or the body that the node stands in."""

    status: Literal["COMPLETED", "FAILED", "CANCELLED"]
    output: Template | None
    error: Template | None
    """Text, or `{type, message}`."""


@dataclass(frozen=True, slots=True)
class DynamicPlan:
    """Nodes that a template gives."""

    nodes: Template
    allow: tuple[str, ...]
    """Patterns of the tasks that they may use."""
    max_nodes: int


KindPlan = SwitchPlan | MapPlan | LoopPlan | ChildPlan | WaitPlan | ApprovalPlan | EndPlan | DynamicPlan


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node, ready to be decided over. Indexes are local: places in its body's `nodes`."""

    index: int
    id: str
    task: str
    """Empty for every kind but `task`."""
    params: Template
    when: Expression | None
    """None: always."""
    join: str | Expression
    """The name of a rule (`always` is `all_done` here, `caught` that of a catch's target), or CEL over statuses."""
    retry: RetrySchema | None
    """The node's over the document's defaults, field by field; None when neither says anything."""
    timeout_ms: int | None
    queue: str
    priority: int
    on_error: str
    kind: str = "task"
    spec: KindPlan | None = None
    own_retry: bool = False
    """Whether the node itself says `retry`: what is no task is tried again only then."""
    queue_timeout_ms: int | None = None
    total_timeout_ms: int | None = None
    heartbeat_ms: int | None = None
    catch: tuple[CatchPlan, ...] = ()
    catchers: tuple[int, ...] = ()
    """Nodes whose catch names this one."""
    switches: tuple[int, ...] = ()
    """Switches that name this one."""
    compensate: Body | None = None
    """A single body, whose node is called `<id>~compensate`."""
    cache: CachePlan | None = None

    def retry_settings(self, frozen: FrozenSettings) -> RetrySettings:
        """The node's retry settings; what the document does not say comes from `frozen`."""
        return resolved_retry(self.retry, frozen.retry)


def resolved_retry(given: RetrySchema | None, otherwise: RetrySettings) -> RetrySettings:
    """What a document says about retries, field by field; what it does not say is `otherwise`."""
    said: dict[str, Any] = {}
    for name, value in given or ():
        if value is None:
            continue
        if name in _DURATIONS:
            said[_DURATIONS[name]] = duration_ms(value)
        else:
            said[name] = tuple(value) if isinstance(value, list) else value
    return msgspec.structs.replace(otherwise, **said) if said else otherwise


@dataclass(frozen=True, slots=True)
class Body:
    """A graph of nodes: the document's, `finally`'s, the inside of a map, a loop or a dynamic node.

    Nodes stand in the document's order; an index names one.
    """

    nodes: tuple[NodePlan, ...]
    graph: Graph
    index_of: Mapping[str, int]
    leaves: tuple[int, ...]
    """Nodes that nothing depends on."""
    needed: frozenset[int]
    """Nodes whose output or error something may read, in this body or inside one of its nodes."""
    output: Template | None
    """None: the output of the only leaf, or an object of the leaves' by id."""
    pointer: str
    """Where it stands: empty for the document's nodes, `/finally`, `/nodes/price`."""
    single: bool = False
    """One node, whose path is the scope's key: a map's short form, or a compensation."""
    has_tails: bool = False
    """Whether workers may go on from node to node by themselves, as far as the document is concerned."""
    followings: dict[int, Following] = field(default_factory=dict, compare=False, repr=False)
    """Nodes as a tail tells of their first attempts in an execution: made once, when they are first needed."""


@dataclass(frozen=True, slots=True)
class ConcurrencyPlan:
    """How many executions with the same key may run at once."""

    key: Template
    limit: int
    on_conflict: Literal["queue", "skip", "reject", "cancel_running"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A document as the machine reads it."""

    hash: str
    name: str
    version: str | None
    root: Body
    final: Body | None
    """The nodes of `finally`."""
    on_failure: str
    max_parallel: int | None
    scheduling: str
    timeout_ms: int | None
    concurrency: ConcurrencyPlan | None
    document: WorkflowSchema

    @property
    def nodes(self) -> tuple[NodePlan, ...]:
        """Those of the document's `nodes`."""
        return self.root.nodes

    @property
    def graph(self) -> Graph:
        """Of the document's `nodes`."""
        return self.root.graph

    @property
    def index_of(self) -> Mapping[str, int]:
        """Index of each of the document's `nodes`."""
        return self.root.index_of

    @property
    def leaves(self) -> tuple[int, ...]:
        """Those of the document's `nodes` that nothing depends on."""
        return self.root.leaves

    @property
    def output(self) -> Template | None:
        """Of the execution."""
        return self.root.output
