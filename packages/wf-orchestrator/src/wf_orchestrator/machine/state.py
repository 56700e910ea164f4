"""The state that the machine folds over, in memory. `snapshot.load` is the exact inverse of `snapshot.to_ops`.

PartitionState(seq=0, ts=0, expired=0)       one per leased partition, from `seq` and `ts` of `{p}:m`, and `{p}:exp`
Execution.create(created, plan, ts)          only `decide` calls it
execution.ready_node(index)                  for a scheduling policy
execution.live_tokens()                      tokens in flight, by node index
execution.status, .counts, .cells[index]     the rest is plain data

Nodes go by index into one flat list of cells: those of the document first, then those of its `finally`, then those of
each body that was opened (a map's item, a loop's pass, …), which its `Scope` names. `path` and `index_of` translate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from wf_core import ids
from wf_core.graph import Graph
from wf_core.plan import Body
from wf_core.policies import ReadyNode
from wf_core.states import ExecutionStatus, NodeStatus, ScopeState
from wf_orchestrator.machine import room
from wf_orchestrator.machine.decoded import Decoded
from wf_orchestrator.machine.joins import EXPRESSION, RULES, Rule, Tally
from wf_orchestrator.machine.scope import FINAL, OUTSIDE, ROOT, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wf_core.plan import NodePlan, Plan
    from wf_core.store.codec import AttemptRecord
    from wf_core.wire import Created, Failure, FrozenSettings, Parent
    from wf_orchestrator.machine.compensation import Compensation
    from wf_orchestrator.machine.concurrency import Hold, Key
    from wf_orchestrator.machine.scope import Progress
    from wf_orchestrator.machine.waits import Signal, Wait

KEPT_COMMANDS = 256
_NOTHING = Body(
    nodes=(),
    graph=Graph((), (), (), (), ()),
    index_of={},
    leaves=(),
    needed=frozenset(),
    output=None,
    pointer="",
)


@dataclass(slots=True)
class PartitionState:
    """What a partition counts: dispatches so far, and the time of its last record in Unix ms."""

    seq: int = 0
    ts: int = 0
    expired: int = 0
    """The newest end, in Unix ms, among the executions that were deleted. See `decide`."""
    keys: dict[str, Key] = field(default_factory=dict)
    """Concurrency keys that live here: those that the records to be folded name."""


class Cell(NamedTuple):
    """Where one node stands: `lost` counts attempts lost to the platform, `time_ms` is of the last change."""

    status: NodeStatus = NodeStatus.PENDING
    attempt: int = 0
    lost: int = 0
    time_ms: int = 0


UNTOUCHED = Cell()


@dataclass(slots=True)
class Execution:
    """One execution. Values of users are JSON bytes; times Unix ms; per-node lists and maps go by node index."""

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
    parent: Parent | None = None
    depth: int = 0
    definitions: dict[str, str] = field(default_factory=dict)
    started_at: int | None = None
    ended_at: int | None = None
    output: bytes | None = None
    error: Failure | None = None
    """The first failure that counts; set while the execution still runs."""
    ending: str = ""
    """The status that it will end with, while compensations and `finally` still run."""
    stage: str = ""
    """Which clean-up runs: the key of the scope of a compensation, or of `finally`."""
    era: int = 0
    """How often `retry` had it start again."""
    hold: Hold | None = None
    """What it knows of its concurrency key, once it has asked for it."""
    commands: list[tuple[str, str]] = field(default_factory=list)
    """Id and request hash of the newest commands that were obeyed."""
    signals: list[Signal] = field(default_factory=list)
    """Those that no wait has taken yet, oldest first."""
    signalled: list[tuple[str, str]] = field(default_factory=list)
    """Id and request hash of the newest signals that were taken or kept."""
    heard: bytes = b""
    """Marks of the newest signals, by which copies are known. See `signals`."""
    continued: bool = False
    """Whether a worker ever went on by itself in it. See `continuing`."""

    cells: list[Cell] = field(default_factory=list)
    counts: dict[NodeStatus, int] = field(default_factory=dict)
    """Nodes by status; those of dormant scopes do not count."""
    owner: list[Scope] = field(default_factory=list, compare=False, repr=False)
    """The scope of each cell."""
    size: int = 0
    """Cells up to the last one that a scope has."""
    free: list[room.Stretch] = field(default_factory=list)
    """Cells below `size` that no scope has."""
    scopes: dict[str, Scope] = field(default_factory=dict)
    """By key, the document's own bodies as well."""
    inside: dict[int, dict[int, Scope]] = field(default_factory=dict)
    """Container that has not ended → its scopes of the current attempt, by number."""
    within: dict[int, dict[str, Scope]] = field(default_factory=dict, compare=False, repr=False)
    """Node → all scopes in it, of whatever attempt and state, by key."""
    lookups: set[int] = field(default_factory=set)
    """Tasks that are looked up in the cache: each holds a slot."""
    progress: dict[int, Progress] = field(default_factory=dict)
    """Of maps that have not ended."""
    floors: dict[int, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)
    """Container → the `floor` of the scopes that it opens now, and their `forgotten`."""
    succeeded: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    """Per node, how many direct upstream nodes ended so."""
    waiting: list[tuple[int, int]] = field(default_factory=list)
    """Heap of `(-priority, index)`: the nodes that are held."""
    caught: dict[int, int] = field(default_factory=dict)
    """Failed node → the node that its `catch` named for the failure."""
    compensations: dict[int, Compensation] = field(default_factory=dict)
    """Of completed nodes that may have to be undone."""
    undoing: list[tuple[int, int]] = field(default_factory=list, compare=False, repr=False)
    """Their places in the order of completion, with the nodes, and some that are of no use any more."""

    waits: dict[int, Wait] = field(default_factory=dict)
    """Of nodes of the kind `wait` that are open."""
    listeners: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Name of a signal → the open waits for it, `(since when, index)`, longest waiting first."""

    attempts: dict[int, list[AttemptRecord]] = field(default_factory=dict)
    """Ended attempts of nodes that have not ended (or whose scope `keeps` them)."""
    inputs: dict[int, bytes] = field(default_factory=dict)
    """Until a node ends, what it was begun with: a task's parameters, a map's items, the output of the last pass."""
    outputs: dict[int, bytes] = field(default_factory=dict)
    errors: dict[int, Failure] = field(default_factory=dict)
    """Of ended nodes that something still may name."""
    values: Decoded = field(default_factory=Decoded, compare=False, repr=False)
    """Outputs by index, and what else expressions name; see `evaluate`."""
    results: dict[str, bytes] | None = field(default=None, compare=False, repr=False)
    """All fields of its results, of an execution that has ended and was loaded for a `retry`."""

    @classmethod
    def create(cls, created: Created, plan: Plan | None, ts: int) -> Execution:
        """The state after `created`."""
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
            parent=created.parent,
            depth=created.depth,
            definitions=dict(created.definitions),
            commands=[(created.id, created.request)],
        )
        execution.add_own_scopes()
        execution.set_cells([UNTOUCHED] * len(execution.owner))
        return execution

    # -- places

    def add_own_scopes(self) -> None:
        """The document's nodes, then those of its `finally`."""
        plan = self.plan
        self.add_scope(Scope(ROOT, 0, plan.root if plan else _NOTHING))
        if plan and plan.final:
            self.add_scope(Scope(FINAL, len(plan.root.nodes), plan.final))

    def add_scope(self, scope: Scope) -> None:
        """Makes the scope the owner of its cells; the list grows as needed."""
        self.scopes[scope.key] = scope
        self.within.setdefault(scope.parent, {})[scope.key] = scope
        if scope.base < self.size:
            room.occupy(self.free, (scope.base, scope.end))
        elif scope.end > self.size:
            if scope.base > self.size:
                room.release(self.free, (self.size, scope.base))
            self.owner += [GAP] * (scope.end - self.size)
            self.size = scope.end
        self.owner[scope.base : scope.end] = [scope] * len(scope.body.nodes)

    def forget_scopes(self, gone: Sequence[Scope]) -> None:
        """Drops scopes; their cells belong to no one, and the last ones go."""
        for scope in gone:
            self.scopes.pop(scope.key, None)
            self.inside.get(scope.parent, {}).pop(scope.number, None)
            siblings = self.within[scope.parent]
            del siblings[scope.key]
            if not siblings:
                del self.within[scope.parent]
            self.owner[scope.base : scope.end] = [GAP] * len(scope.body.nodes)
            room.release(self.free, (scope.base, scope.end))
        if self.free and self.free[-1][1] == self.size:
            size = self.size = self.free.pop()[0]
            for per_node in (self.cells, self.owner, self.succeeded, self.failed, self.skipped):
                del per_node[size:]

    @property
    def root(self) -> Scope:
        """The document's nodes."""
        return self.scopes[ROOT]

    @property
    def halting(self) -> str:
        """How the first failure stops the document's nodes: `halt`, `cancel` or not at all."""
        return self.root.halting

    @property
    def wanted(self) -> bytes:
        """Of the document's nodes: see `Scope.wanted`."""
        return self.root.wanted

    def plan_of(self) -> Plan:
        """The plan. Raises RuntimeError when there is none: such an execution has ended."""
        if self.plan is None:
            raise RuntimeError(f"execution {self.id} was loaded without its document")
        return self.plan

    def node(self, index: int) -> NodePlan:
        """What the document says about a node."""
        return self.owner[index].node(index)

    def path(self, index: int) -> str:
        """The path of a node."""
        return self.owner[index].path(index)

    def index_of(self, path: str) -> int | None:
        """The index of a node; None when there is none, or none any more."""
        key, slash, node_id = path.rpartition("/")
        scope = self.scopes.get(key)
        local = scope.body.index_of.get(node_id) if scope and not scope.body.single else None
        if scope is None or local is None:
            scope, local = self._elsewhere(path, slash)
        return None if scope is None or local is None or scope.state is ScopeState.DORMANT else scope.base + local

    def _elsewhere(self, path: str, slash: str) -> tuple[Scope | None, int | None]:
        """A node of `finally`, or the only one of its scope."""
        single = self.scopes.get(path)
        if single is not None and single.body.single:
            return single, 0
        final = None if slash else self.scopes.get(FINAL)
        return final, final.body.index_of.get(path) if final else None

    # -- counting

    def set_cells(self, cells: list[Cell]) -> None:
        """Takes over the cells and counts them. Upstream ends are counted by `choices.count_end`, once an end."""
        self.cells = cells
        self.counts = dict.fromkeys(NodeStatus, 0)
        for scope in self.scopes.values():
            scope.left = 0
            if scope.state is ScopeState.DORMANT:
                continue
            for cell in cells[scope.base : scope.end]:
                self.counts[cell.status] += 1
                scope.left += not cell.status.is_terminal
        self.succeeded, self.failed, self.skipped = ([0] * len(cells) for _ in range(3))

    def tally_of(self, index: int) -> Tally:
        """How the direct upstream nodes of `index` stand."""
        scope = self.owner[index]
        total = len(scope.body.graph.upstream[index - scope.base])
        return Tally(total, self.succeeded[index], self.failed[index], self.skipped[index])

    # -- questions

    def timeout_ms(self, node: NodePlan) -> int | None:
        """The longest time of an attempt of a task, in milliseconds."""
        return self.settings.timeout_ms if node.timeout_ms is None else node.timeout_ms

    def rule_of(self, index: int) -> Rule:
        """The join rule of a node."""
        join = self.node(index).join
        return RULES[join] if isinstance(join, str) else EXPRESSION

    def is_wanted(self, index: int) -> bool:
        """Whether the node may start something new: always, save while its scope is halting."""
        return self.owner[index].is_wanted(index)

    def is_kept(self, index: int) -> bool:
        """Whether an expression, or the output of its body, may still name what this node gives."""
        scope = self.owner[index]
        return index - scope.base in scope.body.needed

    def is_held(self, index: int) -> bool:
        """Whether a WAITING node may start but has no slot (or is paused); else its current attempt is open."""
        attempts = self.attempts.get(index)
        ended = attempts[-1].attempt if attempts else self.owner[index].floor
        return self.cells[index].status is NodeStatus.WAITING and self.cells[index].attempt <= ended

    @property
    def is_live(self) -> bool:
        """Whether results and timers are folded: it was started and has not ended."""
        return self.status is ExecutionStatus.RUNNING or self.status is ExecutionStatus.PAUSED

    @property
    def is_paused(self) -> bool:
        """Whether nothing new may start."""
        return self.status is ExecutionStatus.PAUSED

    def token(self, index: int) -> str:
        """The token of the node's current attempt."""
        return ids.token(self.id, self.path(index), self.cells[index].attempt)

    def live_tokens(self) -> Iterator[str]:
        """The tokens in flight."""
        return (self.token(index) for index, cell in enumerate(self.cells) if cell.status is NodeStatus.QUEUED)

    def ready_node(self, index: int) -> ReadyNode:
        """The node as a scheduling policy sees it."""
        scope = self.owner[index]
        level = scope.body.graph.levels[index - scope.base]
        return ReadyNode(scope.path(index), index, scope.node(index).priority, level, self._height(index))

    def _height(self, index: int) -> int:
        """Edges on the longest path from a node to a leaf of the document, through the containers that it is in."""
        scope, height = self.owner[index], 0
        while scope.parent != OUTSIDE:
            height += scope.body.graph.heights[index - scope.base]
            index = scope.parent
            scope = self.owner[index]
        return height + scope.body.graph.heights[index - scope.base]

    def has_slot(self) -> bool:
        """Whether one more attempt may be in flight: not while paused, and as `max_parallel` lets it."""
        if self.is_paused:
            return False
        most = self.plan_of().max_parallel
        return most is None or self.counts[NodeStatus.QUEUED] + len(self.lookups) < most

    def is_undecided(self, index: int) -> bool:
        """Whether a RETRYING node still waits for its policy's verdict."""
        return not self.attempts[index][-1].decision

    def attempts_of_era(self, index: int) -> list[AttemptRecord]:
        """The ended attempts that count for the node's budgets."""
        era = self.owner[index].era
        return [record for record in self.attempts.get(index, ()) if record.era == era]

    def first_of_era(self, index: int) -> int:
        """The number of the first attempt that counts for the node's budgets."""
        attempts = self.attempts_of_era(index)
        return attempts[0].attempt if attempts else self.cells[index].attempt

    def forget(self) -> None:
        """Drops what only a live execution needs."""
        for kept in (self.attempts, self.inputs, self.outputs, self.errors, self.values, self.inside, self.progress):
            kept.clear()
        self.waits.clear()
        self.listeners.clear()
        self.caught.clear()
        self.compensations.clear()
        self.undoing.clear()
        self.waiting.clear()
        self.lookups.clear()
        self.succeeded, self.failed, self.skipped = [], [], []
        self.root.halting, self.root.wanted, self.root.error = "", b"", None


GAP = Scope("/gap", 0, _NOTHING, parent=OUTSIDE, state=ScopeState.DORMANT)
"""Owns the cells that no scope has any more."""
