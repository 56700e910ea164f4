"""The order in which what is ready is sent: by its place, and inside an execution as its policy says. No I/O."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wf_core.policies import ReadyNode
from wf_orchestrator.machine.snapshot import PLACES

LEVELS = 10
"""Priorities. Level 0 is the highest one, 9."""
_SPARE = 64
"""Places of tokens that are gone may lie about, so many and as many as are in use."""

Key = Callable[[ReadyNode], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Order:
    """A scheduling policy that cannot fail."""

    sort: Callable[[Sequence[ReadyNode]], Sequence[ReadyNode]]
    """Gives back what it is given, in the order in which it is to be sent."""
    key: Key | None = None
    """What it sorts by, if each node has its place whatever else waits: then one more costs little among thousands."""


class Ranked(NamedTuple):
    """A node as its policy sees it, and the policy."""

    node: ReadyNode
    order: Order


def level_of(place: float) -> int:
    """The level of a place."""
    return int(place // PLACES)


class ReadyQueue:
    """Tokens that wait for one queue, each with a place: a number (`snapshot.outbox_score`), the lowest is next.

    Places decide between executions. Where an execution has a policy, its next place is taken by whichever of its
    tokens the policy wants first among all that wait at that moment, however early or late each became ready: the two
    change places. Tokens of which no node is known come last of their execution.
    """

    def __init__(self) -> None:
        self.levels = [0] * LEVELS
        """How many wait at each level."""
        self._places: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._groups: dict[str, _Sorted | _Keyed] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def level(self) -> int:
        """The first level at which something waits; LEVELS when nothing does."""
        return next((level for level, number in enumerate(self.levels) if number), LEVELS)

    @property
    def priority(self) -> int:
        """The highest priority that waits; -1 when nothing does."""
        return LEVELS - 1 - self.level

    @property
    def last_level(self) -> int:
        """The last level at which something waits; -1 when nothing does."""
        return next((level for level in range(LEVELS - 1, -1, -1) if self.levels[level]), -1)

    def put(self, token: str, place: float, ranked: Ranked | None = None) -> None:
        """A token waits."""
        self.drop(token)
        self._places[token] = place
        self.levels[level_of(place)] += 1
        heapq.heappush(self._heap, (place, token))
        if ranked is not None:
            execution = _execution(token)
            if execution not in self._groups:
                key = ranked.order.key
                self._groups[execution] = _Sorted(ranked.order) if key is None else _Keyed(key)
            self._groups[execution].add(token, ranked.node)
        if len(self._heap) > 2 * len(self._places) + _SPARE:
            self._heap = [(place, token) for token, place in self._places.items()]
            heapq.heapify(self._heap)

    def drop(self, token: str) -> None:
        """A token waits no more."""
        place = self._places.pop(token, None)
        if place is None:
            return
        self.levels[level_of(place)] -= 1
        if self._groups and (group := self._groups.get(execution := _execution(token))) is not None:
            group.nodes.pop(token, None)
            if not group.nodes:
                del self._groups[execution]

    def first(self) -> str | None:
        """The token that has the next place; not always the one that `take` gives. None when nothing waits."""
        while self._heap and self._places.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def take(self) -> tuple[str, float] | None:
        """Takes the token that is next, with the place that it went from; None when nothing waits."""
        token = self.first()
        if token is None:
            return None
        place, _ = heapq.heappop(self._heap)
        group = self._groups.get(_execution(token)) if self._groups else None
        best = group.first() if group else None
        if best is not None and best != token:
            self._places[token], self._places[best] = self._places[best], place
            heapq.heappush(self._heap, (self._places[token], token))
            token = best
        self.drop(token)
        return token, place


class _Keyed:
    """The tokens of an execution whose policy gives each node a key."""

    def __init__(self, key: Key) -> None:
        self.nodes: dict[str, ReadyNode] = {}
        self._key = key
        self._joined = itertools.count()
        self._heap: list[tuple[tuple[float, ...], int, str, ReadyNode]] = []
        """By key, then as they joined. Holds what is gone as well."""

    def add(self, token: str, node: ReadyNode) -> None:
        """One more waits."""
        self.nodes[token] = node
        heapq.heappush(self._heap, (self._key(node), next(self._joined), token, node))
        if len(self._heap) > 2 * len(self.nodes) + _SPARE:
            self._heap = [entry for entry in self._heap if self.nodes.get(entry[2]) is entry[3]]
            heapq.heapify(self._heap)

    def first(self) -> str | None:
        """The token that the policy wants first."""
        while self._heap and self.nodes.get(self._heap[0][2]) is not self._heap[0][3]:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None


class _Sorted:
    """The tokens of an execution whose policy orders all that waits, again whenever one joins."""

    def __init__(self, order: Order) -> None:
        self.nodes: dict[str, ReadyNode] = {}
        self._order = order
        self._sorted: list[str] = []
        """The last one is next. Holds what is gone as well."""
        self._joined: list[str] = []
        """Not sorted yet."""

    def add(self, token: str, node: ReadyNode) -> None:
        """One more waits: the policy is asked when the next one is to be taken, once for all that joined."""
        self.nodes[token] = node
        self._joined.append(token)

    def first(self) -> str | None:
        """The token that the policy wants first."""
        if self._joined:
            known = [*dict.fromkeys(token for token in (*reversed(self._sorted), *self._joined) if token in self.nodes)]
            token_of = {self.nodes[token].node: token for token in known}
            ordered = self._order.sort([self.nodes[token] for token in known])
            self._sorted = [token_of[node.node] for node in reversed(ordered)]
            self._joined = []
        while self._sorted and self._sorted[-1] not in self.nodes:
            self._sorted.pop()
        return self._sorted[-1] if self._sorted else None


def _execution(token: str) -> str:
    return token.partition("/")[0]
