"""Which nodes a `retry` runs again, chosen from the state of an execution that has ended. Changes nothing.

In each body that is opened again, from the document's own inward:

* nodes that failed (for good, and so that it counts), were cancelled, or could not run because of a failure;
* nodes that begin from scratch: those that `from` names, and those that were compensated, since what they did is
  undone; with everything downstream of them, which may hold what they gave;
* nodes that were skipped and come after one of those: their guards may say something else now.

What COMPLETED otherwise is kept, also when it comes after a failed node: it saw the failure, and has done its work.
A container that has bodies inside goes on with those that failed; the others keep their outputs. A loop goes on with
the pass that failed. A container that begins from scratch, or comes after what does, begins anew, as does one whose
inside is not to be had any more. The nodes of `finally` all run again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wf_core.states import ExecutionStatus, NodeStatus, ScopeState
from wf_core.store.codec import unpack_attempts
from wf_orchestrator.machine import choices
from wf_orchestrator.machine.scope import FINAL, OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.state import Execution

_BAD_SCOPES = (ScopeState.FAILED, ScopeState.CANCELLED)
_LOST = (NodeStatus.CANCELLED, NodeStatus.UPSTREAM_FAILED)
_HAD_BODIES = (NodeStatus.COMPLETED, NodeStatus.FAILED, NodeStatus.CANCELLED)
_CONTAINERS = ("map", "loop", "dynamic")


@dataclass(slots=True)
class Reruns:
    """What runs again. Nodes by index."""

    scopes: list[Scope] = field(default_factory=list)
    """Bodies that are opened again, outer ones first."""
    nodes: list[int] = field(default_factory=list)
    """Nodes in them that begin anew."""
    resumed: list[int] = field(default_factory=list)
    """Containers in them that go on with what is inside."""
    dropped: list[Scope] = field(default_factory=list)
    """Bodies that count no more: passes of loops that come after one that runs again, what undid forgotten nodes."""
    last: dict[int, bytes | None] = field(default_factory=dict)
    """Loop → the output of the pass before the one that runs again, where it is not the stored one."""


def choose(x: Execution, paths: Iterable[str], results: Mapping[str, bytes]) -> Reruns:
    """What runs again. `paths` are those of `from`; unknown ones name nothing. `results`: all fields of the results."""
    return _Choice(x, results).run(paths)


class _Choice:
    """One choice."""

    def __init__(self, x: Execution, results: Mapping[str, bytes]) -> None:
        self.x = x
        self.results = results
        self.reruns = Reruns()
        self.inside: dict[int, dict[int, Scope]] = {}
        """Container → its bodies of the last attempt by number."""
        self.scratch: set[int] = set()
        """Nodes that begin from scratch: `from` names them, or they were compensated."""
        self.through: dict[int, set[int]] = {}
        """Container → numbers of its bodies that hold one of those: what comes after it runs again as well."""

    def run(self, paths: Iterable[str]) -> Reruns:
        """Chooses in the document's body, then inwards; a list of work in place of recursion."""
        x = self.x
        self._look_inside()
        for path in paths:
            self._name(path)
        for index in self.scratch:
            self._climb(index)
        work = deque([x.root])
        while work:
            work.extend(self._choose_in(work.popleft()))
        if (final := x.scopes.get(FINAL)) is not None:
            self.reruns.scopes.append(final)
            self.reruns.nodes.extend(range(final.base, final.end))
        return self.reruns

    def _look_inside(self) -> None:
        x = self.x
        for scope in x.scopes.values():
            if scope.parent == OUTSIDE or scope.state is ScopeState.DORMANT:
                continue
            if scope.body is not x.node(scope.parent).compensate:
                self.inside.setdefault(scope.parent, {})[scope.number] = scope
            elif x.owner[scope.parent].state is ScopeState.DORMANT:  # it undid an earlier attempt of its container
                self.reruns.dropped.append(scope)
            else:
                self.scratch.add(scope.parent)

    def _name(self, path: str) -> None:
        """A node; or all nodes of one item or pass, by its key."""
        index = self.x.index_of(path)
        if index is not None:
            self.scratch.add(index)
        elif (scope := self.x.scopes.get(path)) and scope.parent != OUTSIDE and scope.state is not ScopeState.DORMANT:
            self.scratch.update(range(scope.base, scope.end))

    def _climb(self, index: int) -> None:
        """The containers around a node that runs again are opened again."""
        scope = self.x.owner[index]
        while scope.parent != OUTSIDE:
            self.through.setdefault(scope.parent, set()).add(scope.number)
            scope = self.x.owner[scope.parent]

    def _choose_in(self, scope: Scope) -> list[Scope]:
        """Chooses in one body; the bodies inside it that are opened again."""
        x, again = self.x, self.reruns
        again.scopes.append(scope)
        is_own = scope.parent == OUTSIDE
        failed = x.status is not ExecutionStatus.COMPLETED if is_own else scope.state in _BAD_SCOPES
        anew = self._anew(scope)
        chosen: dict[int, list[Scope] | None] = {}
        for index in range(scope.base, scope.end):
            if index in anew:
                chosen[index] = None
            elif index in self.through or (failed and self._has_failed(index)):
                chosen[index] = self._bodies_of(index)
        self._add_skipped(scope, chosen, everything=failed and self._was_ended(scope, chosen))
        opened: list[Scope] = []
        for index in sorted(chosen):
            bodies = chosen[index]
            if bodies is None:
                again.nodes.append(index)
            else:
                again.resumed.append(index)
                opened += bodies
        return opened

    def _anew(self, scope: Scope) -> set[int]:
        """What begins from scratch in a body, and everything downstream of it and of containers that hold such."""
        here = range(scope.base, scope.end)
        anew = {index for index in here if index in self.scratch}
        work = [*anew, *(index for index in here if index in self.through)]
        while work:
            for follower in self._followers(scope, work.pop()):
                if follower not in anew:
                    anew.add(follower)
                    work.append(follower)
        return anew

    def _has_failed(self, index: int) -> bool:
        """Whether a node failed so that it counts, or did not come to run because something did."""
        status = self.x.cells[index].status
        if status is NodeStatus.FAILED:
            return self.x.node(index).on_error != "continue" and not self._was_caught(index)
        return status in _LOST

    def _was_caught(self, index: int) -> bool:
        x = self.x
        if not x.node(index).catch:
            return False
        attempts = unpack_attempts(self.results.get(f"a:{x.path(index)}"))
        error = attempts[-1].error if attempts else None
        return error is not None and choices.catch_of(x, index, error) is not None

    def _was_ended(self, scope: Scope, chosen: dict[int, list[Scope] | None]) -> bool:
        """Whether an `end` node stopped a body, not as COMPLETED: it and what it skipped are decided again."""
        found = False
        for index in range(scope.base, scope.end):
            node = self.x.node(index)
            spec: Any = node.spec
            if node.kind == "end" and spec.status != "COMPLETED" and self._completed(index):
                chosen[index] = None
                found = True
        return found

    def _completed(self, index: int) -> bool:
        return self.x.cells[index].status is NodeStatus.COMPLETED

    def _add_skipped(self, scope: Scope, chosen: dict[int, list[Scope] | None], *, everything: bool) -> None:
        cells = self.x.cells
        if everything:
            skipped = (i for i in range(scope.base, scope.end) if cells[i].status is NodeStatus.SKIPPED)
            chosen.update(dict.fromkeys(skipped))
        work = list(chosen)
        while work:
            for follower in self._followers(scope, work.pop()):
                if follower not in chosen and cells[follower].status is NodeStatus.SKIPPED:
                    chosen[follower] = None
                    work.append(follower)

    @staticmethod
    def _followers(scope: Scope, index: int) -> Iterator[int]:
        return (scope.base + local for local in scope.body.graph.downstream[index - scope.base])

    def _bodies_of(self, index: int) -> list[Scope] | None:
        """The bodies with which a container goes on; None for what begins anew."""
        x = self.x
        kind, status, bodies = x.node(index).kind, x.cells[index].status, self.inside.get(index)
        if kind not in _CONTAINERS or not bodies or status not in _HAD_BODIES:
            return None
        through = self.through.get(index, set())
        wanted = [
            number
            for number, scope in sorted(bodies.items())
            if number in through or (status is not NodeStatus.COMPLETED and scope.state in _BAD_SCOPES)
        ]
        if not wanted and status is NodeStatus.FAILED:  # it is no body that failed
            return None
        if kind == "loop":
            return self._pass_of(index, bodies, wanted)
        if kind == "map" and f"i:{x.path(index)}" not in self.results:
            return None
        return [bodies[number] for number in wanted]

    def _pass_of(self, index: int, bodies: Mapping[int, Scope], wanted: list[int]) -> list[Scope] | None:
        """The earliest pass that runs again; those after it are made anew. None when what it saw is forgotten."""
        if not wanted:
            return []
        first = wanted[0]
        if first != max(bodies) or bodies[first].state not in _BAD_SCOPES:
            before = bodies.get(first - 1)
            last = self.results.get(f"o:{before.key}") if before else None
            if first and last is None:
                return None
            self.reruns.last[index] = last
        self.reruns.dropped += [scope for number, scope in bodies.items() if number > first]
        return [bodies[first]]
