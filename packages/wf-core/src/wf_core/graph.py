"""The graph as integers: who comes before whom. Linear in nodes and edges, and nothing recurses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wf_core.errors import DocumentError, Problem
from wf_core.schema.pointers import child

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Graph:
    """A directed graph without cycles; nodes are indexes into `names`, neighbours are ascending and single."""

    names: tuple[str, ...]
    upstream: tuple[tuple[int, ...], ...]
    downstream: tuple[tuple[int, ...], ...]
    levels: tuple[int, ...]
    """Edges on the longest path from a root to each node."""
    heights: tuple[int, ...]
    """Edges on the longest path from each node to a leaf."""


def compile_graph(names: Sequence[str], edges: Mapping[int, Iterable[int]]) -> Graph:
    """A graph of `names` in which node `i` comes after every node of `edges[i]`. Raises DocumentError on a cycle."""
    upstream = _upstream(len(names), edges)
    downstream = _reversed(upstream)
    order = _order(upstream, downstream)
    if len(order) < len(names):
        raise DocumentError([cycle_problem(cycle) for cycle in _cycles(names, upstream, order)])
    return Graph(
        tuple(names),
        upstream,
        downstream,
        _longest(order, upstream),
        _longest(order[::-1], downstream),
    )


def find_cycle(names: Sequence[str], edges: Mapping[int, Iterable[int]]) -> list[str] | None:
    """The ids on a cycle, each before the one that waits for it, the first listed one first; None without a cycle."""
    return next(iter(find_cycles(names, edges)), None)


def find_cycles(names: Sequence[str], edges: Mapping[int, Iterable[int]]) -> list[list[str]]:
    """Cycles that share no node, at least one of each part of the graph that has any."""
    upstream = _upstream(len(names), edges)
    order = _order(upstream, _reversed(upstream))
    return _cycles(names, upstream, order) if len(order) < len(names) else []


def cycle_problem(cycle: Sequence[str], pointer: str = "/nodes") -> Problem:
    """The problem that a cycle is among the nodes that stand at `pointer`."""
    listed = list(cycle) if len(cycle) <= _SHOWN else [*cycle[: _SHOWN // 2], "…", *cycle[-_SHOWN // 2 :]]
    count = f" ({len(cycle):,} nodes)" if len(cycle) > _SHOWN else ""
    detail = f"these nodes wait for each other in a circle{count}: {' → '.join([*listed, cycle[0]])}"
    return Problem(child(pointer, cycle[0]), "cycle", detail)


def _upstream(count: int, edges: Mapping[int, Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    nothing: tuple[int, ...] = ()
    return tuple(tuple(sorted(set(edges[i]))) if i in edges else nothing for i in range(count))


def _reversed(edges: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    back: list[list[int]] = [[] for _ in edges]
    for node, others in enumerate(edges):
        for other in others:
            back[other].append(node)
    return tuple(map(tuple, back))


def _order(upstream: Sequence[Sequence[int]], downstream: Sequence[Sequence[int]]) -> list[int]:
    """Nodes after all of their upstream nodes; those on or behind a cycle are left out."""
    missing = [len(others) for others in upstream]
    order = [node for node, count in enumerate(missing) if count == 0]
    for node in order:  # the list is the queue as well: what is appended is visited
        for after in downstream[node]:
            missing[after] -= 1
            if missing[after] == 0:
                order.append(after)
    return order


def _longest(order: Sequence[int], before: Sequence[Sequence[int]]) -> tuple[int, ...]:
    lengths = [0] * len(order)
    for node in order:
        lengths[node] = max((lengths[other] + 1 for other in before[node]), default=0)
    return tuple(lengths)


def _cycles(names: Sequence[str], upstream: Sequence[Sequence[int]], order: Sequence[int]) -> list[list[str]]:
    """Every node that is left has an upstream node that is left, so a walk upstream must come back to itself."""
    left = set(range(len(names))).difference(order)
    walk_of: dict[int, int] = {}
    cycles = []
    for start in sorted(left):
        walk: list[int] = []
        node = start
        while node not in walk_of:
            walk_of[node] = start
            walk.append(node)
            node = next(other for other in upstream[node] if other in left)
        if walk_of[node] == start and walk:
            cycle = walk[walk.index(node) :][::-1]
            first = cycle.index(min(cycle))
            cycles.append([names[i] for i in cycle[first:] + cycle[:first]])
    return cycles
