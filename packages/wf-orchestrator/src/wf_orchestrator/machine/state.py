"""The state that the machine folds over, in memory. `snapshot.load` is the exact inverse of `snapshot.to_ops`.

PartitionState(seq=0, ts=0, expired=0)       one per leased partition, from `seq` and `ts` of `{p}:m`, and `{p}:exp`
Execution.create(created, plan, ts)          only `decide` calls it
execution.verdict_request(node, attempt)     what a `decide` timer needs; None when the timer is stale
execution.ready_node(index)                  for a scheduling policy
execution.live_tokens()                      tokens in flight, by node index
execution.status, .counts, .cells[index]     the rest is plain data
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from wf_core import ids
from wf_core.policies import ReadyNode
from wf_core.states import ExecutionStatus, NodeStatus
from wf_orchestrator.machine.joins import EXPRESSION, RULES, Rule, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wf_core.plan import NodePlan, Plan
    from wf_core.store.codec import AttemptRecord
    from wf_core.wire import Created, Failure, FrozenSettings, RetrySettings

KEPT_COMMANDS = 256


@dataclass(slots=True)
class PartitionState:
    """What a partition counts: dispatches so far, and the time of its last record in Unix ms."""

    seq: int = 0
    ts: int = 0
    expired: int = 0
    """The newest end, in Unix ms, among the executions that were deleted. See `decide`."""


class Cell(NamedTuple):
    """Where one node stands: `lost` counts attempts lost to the platform, `time_ms` is of the last change."""

    status: NodeStatus = NodeStatus.PENDING
    attempt: int = 0
    lost: int = 0
    time_ms: int = 0


UNTOUCHED = Cell()


class VerdictRequest(NamedTuple):
    """The facts of a failed attempt for `policies.verdict`. `settings.policy` names the policy."""

    execution_id: str
    node: str
    attempt: int
    failures: int
    error: Failure
    settings: RetrySettings
    elapsed_ms: int


@dataclass(slots=True)
class Execution:
    """One execution. Values of users are JSON bytes; times Unix ms; per-node lists go by node index."""

    id: str
    plan: Plan | None = field(compare=False)
    """None for an execution that has ended and was loaded without it, or whose document is missing from the log."""
    status: ExecutionStatus
    document: str
    name: str
    labels: dict[str, str]
    input: bytes
    settings: FrozenSettings
    rules: int
    created_at: int
    version: str | None = None
    request: str = ""
    started_at: int | None = None
    ended_at: int | None = None
    output: bytes | None = None
    error: Failure | None = None
    """The first failure that counts; set while the execution still runs."""
    halting: str = ""
    """`halt` or `cancel` once a failure has stopped it from starting anything but clean-up."""
    wanted: bytes = b""
    """One bit a node, while halting: the nodes that are still decided and run."""
    commands: list[tuple[str, str]] = field(default_factory=list)
    """Id and request hash of the newest commands that were obeyed."""

    cells: list[Cell] = field(default_factory=list)
    counts: dict[NodeStatus, int] = field(default_factory=dict)
    left: int = 0
    """Nodes that have not ended."""
    succeeded: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    """Per node, how many direct upstream nodes ended so."""
    waiting: list[tuple[int, int]] = field(default_factory=list)
    """Heap of `(-priority, index)`: the WAITING nodes."""

    attempts: dict[int, list[AttemptRecord]] = field(default_factory=dict)
    """Ended attempts of nodes that have not ended."""
    inputs: dict[int, bytes] = field(default_factory=dict)
    """Parameters of nodes that were dispatched and have not ended: every attempt gets the same."""
    outputs: dict[int, bytes] = field(default_factory=dict)
    errors: dict[int, Failure] = field(default_factory=dict)
    """Of ended nodes that something still may name."""
    values: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)
    """Decoded outputs, a cache; the input lies under −1."""
    values_bytes: int = field(default=0, compare=False, repr=False)

    @classmethod
    def create(cls, created: Created, plan: Plan | None, ts: int) -> Execution:
        """The state after `created`."""
        size = len(plan.nodes) if plan else 0
        execution = cls(
            id=created.execution,
            plan=plan,
            status=ExecutionStatus.PENDING,
            document=created.document,
            name=created.name,
            version=created.version,
            labels=dict(created.labels),
            input=created.input,
            settings=created.settings,
            rules=created.rules,
            created_at=ts,
            request=created.request,
            commands=[(created.id, created.request)],
        )
        execution.set_cells([UNTOUCHED] * size)
        return execution

    def set_cells(self, cells: list[Cell]) -> None:
        """Takes over the cells and counts them. Upstream ends are counted by `count_end`, once for each ended node."""
        self.cells = cells
        self.counts = dict.fromkeys(NodeStatus, 0)
        for cell in cells:
            self.counts[cell.status] += 1
        self.left = sum(count for status, count in self.counts.items() if not status.is_terminal)
        self.succeeded, self.failed, self.skipped = ([0] * len(cells) for _ in range(3))

    def tally_of(self, index: int) -> Tally:
        """How the direct upstream nodes of `index` stand."""
        return Tally(
            len(self.plan_of().graph.upstream[index]), self.succeeded[index], self.failed[index], self.skipped[index]
        )

    def count_end(self, index: int) -> None:
        """Tells the direct downstream nodes of an ended node how it ended."""
        status = self.cells[index].status
        if status is NodeStatus.COMPLETED or (status is NodeStatus.FAILED and self.node(index).on_error == "continue"):
            ends = self.succeeded
        elif status is NodeStatus.SKIPPED:
            ends = self.skipped
        else:
            ends = self.failed
        for downstream in self.plan_of().graph.downstream[index]:
            ends[downstream] += 1

    def plan_of(self) -> Plan:
        """The plan. Raises RuntimeError when there is none: such an execution has ended."""
        if self.plan is None:
            raise RuntimeError(f"execution {self.id} was loaded without its document")
        return self.plan

    def node(self, index: int) -> NodePlan:
        """What the document says about a node."""
        return self.plan_of().nodes[index]

    def index_of(self, node: str) -> int | None:
        """The index of a node, None when the document has no such node."""
        return self.plan.index_of.get(node) if self.plan else None

    def rule_of(self, index: int) -> Rule:
        """The join rule of a node."""
        join = self.node(index).join
        return RULES[join] if isinstance(join, str) else EXPRESSION

    def is_wanted(self, index: int) -> bool:
        """Whether the node may start something new: always, save while halting."""
        return not self.halting or bool(self.wanted[index >> 3] >> (index & 7) & 1)

    def is_kept(self, index: int) -> bool:
        """Whether an expression, or the execution's output, may still name what this node gives."""
        return index in self.plan_of().needed_outputs

    def token(self, index: int) -> str:
        """The token of the node's current attempt."""
        return ids.token(self.id, self.node(index).id, self.cells[index].attempt)

    def live_tokens(self) -> Iterator[str]:
        """The tokens in flight."""
        return (self.token(index) for index, cell in enumerate(self.cells) if cell.status is NodeStatus.QUEUED)

    def ready_node(self, index: int) -> ReadyNode:
        """The node as a scheduling policy sees it."""
        node, graph = self.node(index), self.plan_of().graph
        return ReadyNode(node.id, index, node.priority, graph.levels[index], graph.heights[index])

    def has_slot(self) -> bool:
        """Whether `max_parallel` lets one more attempt be in flight."""
        most = self.plan_of().max_parallel
        return most is None or self.counts[NodeStatus.QUEUED] < most

    def is_undecided(self, index: int) -> bool:
        """Whether a RETRYING node still waits for its policy's verdict."""
        return not self.attempts[index][-1].decision

    def verdict_request(self, node: str, attempt: int) -> VerdictRequest | None:
        """What the policy has to judge; None when nobody waits for a verdict on this attempt (the timer is stale)."""
        index = self.index_of(node)
        if self.status is not ExecutionStatus.RUNNING or index is None:
            return None
        cell = self.cells[index]
        if cell.status is not NodeStatus.RETRYING or cell.attempt != attempt or not self.is_undecided(index):
            return None
        attempts = self.attempts[index]
        error = attempts[-1].error
        if error is None:
            return None
        return VerdictRequest(
            execution_id=self.id,
            node=node,
            attempt=attempt,
            failures=attempt - cell.lost,
            error=error,
            settings=self.node(index).retry_settings(self.settings),
            elapsed_ms=max(0, cell.time_ms - (attempts[0].queued_at or cell.time_ms)),
        )

    def forget(self) -> None:
        """Drops what only a live execution needs."""
        self.waiting.clear()
        for kept in (self.attempts, self.inputs, self.outputs, self.errors, self.values):
            kept.clear()
        self.succeeded, self.failed, self.skipped = [], [], []
        self.wanted = b""
