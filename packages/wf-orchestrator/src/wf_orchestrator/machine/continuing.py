"""Continuations: what the worker of a node may go on with by itself, and what becomes of what it began.

A task message carries a tail: the successors, one after the other, that nothing but the node before them keeps from
starting. The worker names the one that it begins in the result of the one before it; here it is taken over as in
flight and claimed, or, when its turn has not come, its number is used up: a token is never run twice.

A worker may begin a node by a result that is refused, since its own attempt was cancelled or counts as lost meanwhile.
Were the same numbers given to another worker, one of the two would begin in vain, and go on with what the fold
dispatches. So no tail goes to a node that was taken from a worker before, nor into a body that is opened again when its
container is tried again, and what `retry` starts again after such a result skips the number that a worker may have used
(`used_up`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wf_core.states import AttemptClass, AttemptStatus, NodeStatus
from wf_core.store.codec import MOST_ATTEMPTS, AttemptRecord
from wf_core.wire import Following, Tail
from wf_orchestrator.machine import evaluate
from wf_orchestrator.machine.scope import FINAL, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wf_core.expressions import Template
    from wf_core.plan import NodePlan
    from wf_core.wire import Result
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

MOST_NODES = 32
"""Of one tail."""
MOST_BYTES = 64 * 1024
"""Of what a tail adds to a message."""
LONGEST_PARAMS = 256 * 1024
"""Of a node with a tail, or in one: its message, and the result that begins it, stay well below what the log takes."""
MOST_FOLLOWERS = 32
"""Direct successors that are looked at, the first ones: a node with ten thousand costs no more than others."""
_EACH = 64
"""Bytes that a node takes in a message besides its texts, or a little less."""
_NAMES = frozenset(("input",))
_NOT_BEGUN = (NodeStatus.CANCELLED, NodeStatus.SKIPPED, NodeStatus.UPSTREAM_FAILED)
UNWANTED = "its worker began it by itself, and its turn had not come"
PERHAPS = "a worker may have begun it by itself before the execution was started again"


def tail(x: Execution, index: int, params: bytes) -> Tail | None:
    """What the worker of a node's attempt, which is about to go out with `params`, may go on with; None for nothing."""
    scope = x.owner[index]
    if not _is_awaited(x, scope, index) or len(params) > LONGEST_PARAMS or not _may_have_tail(x, scope, index):
        return None
    gathered = _Gathering(x, scope, index)
    while gathered.goes_on():
        pass
    return gathered.tail() if gathered.following else None


def _is_awaited(x: Execution, scope: Scope, index: int) -> bool:
    """Whether some successor waits for this node alone. What most nodes of a wide graph are asked, and no more."""
    graph, base, succeeded = scope.body.graph, scope.base, x.succeeded
    for local in graph.downstream[index - base][:MOST_FOLLOWERS]:
        if succeeded[base + local] + 1 == len(graph.upstream[local]):
            return True
    return False


def _may_have_tail(x: Execution, scope: Scope, index: int) -> bool:
    """Whether nothing is said of a node, or of what is around it, that only the orchestrator can keep."""
    node = scope.node(index)
    if node.queue_timeout_ms is not None or node.total_timeout_ms is not None:
        return False
    if scope.key == FINAL or scope.halting or not (scope.body.has_tails and x.root.body.has_tails):
        return False
    while scope.parent >= 0:
        container, scope = scope.parent, x.owner[scope.parent]
        if scope.node(container).own_retry:
            return False
    return True


class _Gathering:
    """A tail that grows node by node."""

    def __init__(self, x: Execution, scope: Scope, index: int) -> None:
        self.following: list[Following] = []
        self._x = x
        self._scope = scope
        self._limit = min(x.settings.max_payload_bytes * evaluate.PARAMS_FACTOR, LONGEST_PARAMS)
        self._last = index
        self._known = {scope.node(index).id}
        """Names of the nodes that expressions in the tail may see: those that it passed, and those that it tells of."""
        self._reached: dict[int, int] = {}
        """Follower of those passed → how many of them it waits for."""
        self._nodes: dict[str, bytes] = {}
        self._input: bytes | None = None
        self._size = 0

    def tail(self) -> Tail:
        """The tail as it goes into the message."""
        return Tail(following=tuple(self.following), limit=self._limit, nodes=self._nodes, input=self._input)

    def goes_on(self) -> bool:
        """Adds the node after the last one; False when there is none, or no room for it."""
        if len(self.following) == MOST_NODES:
            return False
        index = self._next()
        if index is None:
            return False
        one = _following(self._x, self._scope, index)
        self._size += _EACH + len(one.params) + len(one.node) + len(one.id) + len(one.task)
        fits = len(one.params) <= self._limit and (not one.template or self._tells(self._scope.node(index).params))
        if not fits or self._size > MOST_BYTES:
            return False
        self.following.append(one)
        self._last = index
        self._known.add(one.id)
        return True

    def _tells(self, template: Template) -> bool:
        """Adds what expressions name that is not in the tail yet; False, and nothing, when it does not fit."""
        x = self._x
        missing = template.references - self._known
        given = x.input if "input" in template.names and self._input is None else None
        if not missing and given is None:
            return True
        named = {name: evaluate.find(x, self._scope, name) for name in sorted(missing)}
        self._size += len(given or b"")
        self._size += sum(_EACH + len(name) + len(x.outputs.get(index, b"")) for name, index in named.items())
        if self._size > MOST_BYTES:
            return False
        self._nodes |= {name: evaluate.seen(x, index) for name, index in named.items()}
        self._known |= missing
        self._input = self._input if given is None else given
        return True

    def _next(self) -> int | None:
        """The first successor of the last node that only waits for it and those before it."""
        x, scope, last = self._x, self._scope, self._last
        if _was_taken_away(x, last):
            return None
        base, graph, reached, succeeded = scope.base, scope.body.graph, self._reached, x.succeeded
        found = None
        for local in graph.downstream[last - base][:MOST_FOLLOWERS]:
            number = reached[local] = reached.get(local, 0) + 1
            is_last = succeeded[base + local] + number == len(graph.upstream[local])
            if is_last and found is None and _may_follow(x, scope, last, base + local):
                found = None if _is_doubtful(x, scope, last, local) else base + local
        return found


def _following(x: Execution, scope: Scope, index: int) -> Following:
    """A node as a tail tells of its next attempt. Of a first one in the document's own body all executions have one."""
    attempt = x.cells[index].attempt + 1
    is_common = attempt == 1 and scope.key == ROOT and x.settings.timeout_ms is None
    if is_common and (known := scope.body.followings.get(index)) is not None:
        return known
    node = scope.node(index)
    template = node.params
    one = Following(
        node=scope.path(index),
        attempt=attempt,
        id=node.id,
        task=node.task,
        params=template.constant_json if template.is_constant else template.source_json,
        template=not template.is_constant,
        timeout_ms=x.timeout_ms(node),
        heartbeat_ms=node.heartbeat_ms,
    )
    if is_common:
        scope.body.followings[index] = one
    return one


def _may_follow(x: Execution, scope: Scope, index: int, follower: int) -> bool:
    """Whether a node is one that may follow in a tail, as far as it and its predecessor go."""
    body, base, cell = scope.body, scope.base, x.cells[follower]
    before, node = body.nodes[index - base], body.nodes[follower - base]
    return (
        node.queue == before.queue
        and node.priority == before.priority
        and cell.status is NodeStatus.PENDING
        and cell.attempt < MOST_ATTEMPTS
        and (follower - base in body.followings or _is_plain(node))
    )


def _is_plain(node: NodePlan) -> bool:
    """Whether a node is a task that starts as soon as all before it succeeded, without asking or telling anyone."""
    return (
        node.kind == "task"
        and node.join == "all_success"
        and node.when is None
        and node.cache is None
        and node.queue_timeout_ms is None
        and node.total_timeout_ms is None
        and not node.catchers
        and not node.switches
        and node.params.names <= _NAMES
    )


def _was_taken_away(x: Execution, index: int) -> bool:
    """Whether an attempt of the node was cancelled or lost: its worker may have begun what came after that one.

    Not when its process crashed: that is what its worker itself said of it, instead of a result.
    """
    return any(
        record.status is AttemptStatus.CANCELLED
        or (record.status is AttemptStatus.LOST and record.class_ is not AttemptClass.CRASH)
        for record in x.attempts.get(index, ())
    )


def _is_doubtful(x: Execution, scope: Scope, last: int, local: int) -> bool:
    """Whether some worker, before a `retry`, may have begun a node after another one than `last` that it waits for."""
    if not x.era:
        return False
    before = (scope.base + one for one in scope.body.graph.upstream[local])
    return any(index != last and x.cells[index].attempt > 1 for index in before)


def begin(step: Step, index: int, event: Result) -> None:
    """A node has completed, and its worker goes on with the one that `event` names.

    That one is taken over if its turn has come, whether or not the execution is paused or halting: its worker runs it.
    """
    x, said = step.x, event.begin
    follower = x.index_of(said.node) if said else None
    if said is None or follower is None or not _is_next(x, index, follower, said.attempt):
        burn(step, event)
        return
    _note(step)
    step.take_over(follower, said.params, event.worker)


def _is_next(x: Execution, index: int, follower: int, attempt: int) -> bool:
    """Whether a node waits for nothing but `index`, whose successors do not know yet, to make this attempt."""
    scope = x.owner[index]
    if x.owner[follower] is not scope or not (scope.body.has_tails and x.root.body.has_tails):
        return False
    graph, local = scope.body.graph, follower - scope.base
    return (
        local in graph.downstream[index - scope.base][:MOST_FOLLOWERS]
        and x.succeeded[follower] + 1 == len(graph.upstream[local])
        and x.cells[follower].attempt + 1 == attempt
        and _may_follow(x, scope, index, follower)
    )


def burn(step: Step, event: Result) -> None:
    """A worker began a node that is not taken over: the number of that attempt never comes again."""
    x, said = step.x, event.begin
    if said is None:
        return
    _note(step)
    follower = x.index_of(said.node) if x.is_live else None
    if follower is None:
        return
    cell = x.cells[follower]
    number = min(said.attempt, MOST_ATTEMPTS)
    if cell.status is NodeStatus.PENDING and cell.attempt < number and _is_plain(x.node(follower)):
        step.record(follower, _unwanted(step, number, UNWANTED, event.worker))
        step.put_cell(follower, cell._replace(attempt=number))


def _note(step: Step) -> None:
    """Remembers that a worker went on by itself in this execution."""
    if not step.x.continued:
        step.x.continued = True
        step.touch("continued")


def used_up(step: Step, index: int, attempts: Sequence[AttemptRecord]) -> AttemptRecord | None:
    """The attempt that a worker may have begun of a node that is to start again, and nobody knows of; None for none.

    A record that begins a node can come when that node, or the whole execution, has ended: all that is kept of it then
    is that there was one. `attempts` are those of the node that are known: one that ran leaves no doubt, one that was
    begun in vain says nothing of the next.
    """
    x, cell = step.x, step.x.cells[index]
    if not x.continued or cell.status not in _NOT_BEGUN or cell.attempt >= MOST_ATTEMPTS:
        return None
    era = x.owner[index].era
    if not _is_plain(x.node(index)) or any(one.era == era and one.reason != UNWANTED for one in attempts):
        return None
    return msgspec.structs.replace(_unwanted(step, cell.attempt + 1, PERHAPS), era=era)


def _unwanted(step: Step, attempt: int, reason: str, worker: str = "") -> AttemptRecord:
    return AttemptRecord(
        attempt=attempt,
        status=AttemptStatus.CANCELLED,
        worker=worker,
        queued_at=step.now,
        ended_at=step.now,
        reason=reason,
    )
