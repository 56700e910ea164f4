"""The nodes of one execution as `why` walks through them: what the document says, and whose state explains whose."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from wf_core.ids import COMPENSATION
from wf_core.states import NodeStatus, ScopeState
from wf_core.store.codec import AttemptRecord
from wf_core.store.reads.layout import Layout, Place
from wf_core.store.reads.snapshot import Snapshot

if TYPE_CHECKING:
    from wf_core.plan import Body, NodePlan, Plan

MOST_NODES = 12
"""Nodes that one answer speaks of."""
_MOST_FAILED = 100
"""Failed nodes that are looked at, to find those that were not caught."""
_FEW = 3
MOVING = frozenset({NodeStatus.QUEUED, NodeStatus.RUNNING, NodeStatus.RETRYING, NodeStatus.WAITING})
BAD = frozenset({NodeStatus.FAILED, NodeStatus.UPSTREAM_FAILED, NodeStatus.CANCELLED})


class Planned(NamedTuple):
    """What the document says of a node: its plan, and the body that it stands in."""

    node: NodePlan
    body: Body


class Survey:
    """A snapshot with the plan of its document; no plan when the document is not there."""

    def __init__(self, snapshot: Snapshot, layout: Layout, plan: Plan | None) -> None:
        self.snapshot = snapshot
        self.layout = layout
        self.plan = plan
        self._grown: dict[str, Body] = {}
        """Bodies of dynamic nodes, compiled once however many of their nodes are looked at."""

    def status(self, place: Place) -> NodeStatus:
        """Where a node stands; RUNNING when a worker has it."""
        return self.snapshot.cell(place)[0]

    def planned(self, path: str) -> Planned | None:
        """What the document says of the node at a path."""
        if self.plan is None:
            return None
        for body in (self.plan.root, self.plan.final):
            if body is not None and path in body.index_of:
                return Planned(body.nodes[body.index_of[path]], body)
        scope = self.layout.scopes.get(path)
        if scope is not None and not scope.document:
            body = self._body(path)
            return Planned(body.nodes[0], body) if body else None
        key, _, name = path.rpartition("/")
        body = self._body(key) if key in self.layout.scopes else None
        return Planned(body.nodes[body.index_of[name]], body) if body else None

    def in_finally(self, place: Place) -> bool:
        """Whether the node is one of `finally`."""
        return self.plan is not None and self.plan.final is not None and place.path in self.plan.final.index_of

    def upstream(self, place: Place) -> list[Place]:
        """The nodes directly before it, in its own body."""
        planned = self.planned(place.path)
        if planned is None or planned.body.single:
            return []
        node, body = planned
        names = (body.nodes[at].id for at in body.graph.upstream[node.index])
        return [found for name in names if (found := self.sibling(place, name)) is not None]

    def sibling(self, place: Place, name: str) -> Place | None:
        """The node of this id in the body of `place`."""
        key, slash, _ = place.path.rpartition("/")
        return self.layout.find(f"{key}{slash}{name}")

    def inside(self, place: Place, states: Iterable[ScopeState]) -> Iterator[Place]:
        """The nodes directly inside a container, of its scopes in one of these states."""
        wanted = frozenset(states)
        for key in self.layout.inside(place.at):
            if self.layout.scopes[key].state in wanted:
                yield from self.layout.places(key)

    def live(self) -> list[Place]:
        """The first nodes of the top level that have begun and not ended."""
        cells = self.snapshot.nodes(self.layout.root)
        return [self.layout.top(at) for at in islice((at for at, c in enumerate(cells) if c[0] in MOVING), MOST_NODES)]

    def failed(self) -> list[Place]:
        """The first nodes of the top level that failed and were not to be continued after."""
        cells = self.snapshot.nodes(self.layout.root)
        places = (self.layout.top(at) for at, cell in enumerate(cells) if cell[0] is NodeStatus.FAILED)
        return list(islice((place for place in places if not self._continues(place)), _MOST_FAILED))

    def catches(self, place: Place) -> bool:
        """Whether failures of a node may be caught."""
        planned = self.planned(place.path)
        return planned is not None and bool(planned.node.catch)

    def has_caught(self, path: str, attempts: Sequence[AttemptRecord]) -> bool:
        """Whether the failure that a node ended with was caught."""
        planned, error = self.planned(path), attempts[-1].error if attempts else None
        if planned is None or error is None:
            return False
        return any(catch.takes(error) for catch in planned.node.catch)

    def _continues(self, place: Place) -> bool:
        planned = self.planned(place.path)
        return planned is not None and planned.node.on_error == "continue"

    def undoing(self, statuses: Collection[NodeStatus]) -> list[Place]:
        """The first compensations in one of these statuses."""
        keys = (key for key in self.layout.scopes if key.endswith(COMPENSATION))
        places = (place for key in keys if (place := self.layout.find(key)) is not None)
        return list(islice((place for place in places if self.status(place) in statuses), MOST_NODES))

    def walk(self, start: Iterable[Place]) -> list[Place]:
        """These nodes and those whose state explains theirs, nearest first: at most MOST_NODES."""
        found: dict[str, Place] = {}
        queue = list(start)
        while queue and len(found) < MOST_NODES:
            place = queue.pop(0)
            if place.path not in found:
                found[place.path] = place
                queue += self._behind(place)
        return list(found.values())

    def _behind(self, place: Place) -> list[Place]:
        """The nodes whose state explains that of this one."""
        behind = _BEHIND.get(self.status(place))
        return list(islice(behind(self, place), _FEW)) if behind else []

    def _body(self, key: str) -> Body | None:
        scope = self.layout.scopes[key]
        if scope.document:
            from wf_core.plan import load_plan

            if key not in self._grown:
                self._grown[key] = load_plan(scope.document, "").root
            return self._grown[key]
        container, undo = self.layout.container_of(key)
        planned = self.planned(container)
        if planned is None:
            return None
        spec: Any = planned.node.spec
        return planned.node.compensate if undo else getattr(spec, "body", None)


def _unfinished(survey: Survey, place: Place) -> Iterator[Place]:
    return (one for one in survey.upstream(place) if not survey.status(one).is_terminal)


def _bad(survey: Survey, place: Place) -> Iterator[Place]:
    return (one for one in survey.upstream(place) if survey.status(one) in BAD)


def _skipped(survey: Survey, place: Place) -> Iterator[Place]:
    return (one for one in survey.upstream(place) if survey.status(one) is NodeStatus.SKIPPED)


def _running_inside(survey: Survey, place: Place) -> Iterator[Place]:
    return (one for one in survey.inside(place, [ScopeState.OPEN]) if survey.status(one) in MOVING)


def _failed_inside(survey: Survey, place: Place) -> Iterator[Place]:
    """Where the failure of a container's scope began, at whatever depth."""
    for scope in survey.layout.items_of(place.at):
        if scope.state is ScopeState.FAILED and scope.error is not None and scope.error.node not in (None, place.path):
            found = survey.layout.find(scope.error.node or "")
            if found is not None:
                yield found


_BEHIND = {
    NodeStatus.PENDING: _unfinished,
    NodeStatus.WAITING: _running_inside,
    NodeStatus.FAILED: _failed_inside,
    NodeStatus.UPSTREAM_FAILED: _bad,
    NodeStatus.SKIPPED: _skipped,
}
