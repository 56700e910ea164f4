"""The compiled graph."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wf_core.errors import DocumentError
from wf_core.graph import compile_graph, find_cycle, find_cycles

SIZES = st.integers(1, 9)


@st.composite
def edges_of(draw, *, acyclic):
    """(count, {node: upstream nodes})."""
    count = draw(SIZES)
    order = draw(st.permutations(range(count)))
    pairs = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=24))
    edges: dict[int, list[int]] = {}
    for first, second in pairs:
        low, high = (min(first, second), max(first, second)) if acyclic else (first, second)
        if low != high:
            edges.setdefault(order[high], []).append(order[low])
    return count, edges


def paths_from(node, neighbours):
    """Edges on the longest path, by trying all."""
    return max((1 + paths_from(other, neighbours) for other in neighbours[node]), default=0)


@given(edges_of(acyclic=True))
def test_a_graph_is_what_a_naive_reading_gives(case):
    """Neighbours are ascending and single; levels and heights are longest paths."""
    count, edges = case
    graph = compile_graph([f"n{i}" for i in range(count)], edges)
    upstream = [sorted(set(edges.get(i, ()))) for i in range(count)]
    downstream = [[j for j in range(count) if i in upstream[j]] for i in range(count)]
    assert [list(some) for some in graph.upstream] == upstream
    assert [list(some) for some in graph.downstream] == downstream
    assert list(graph.levels) == [paths_from(i, upstream) for i in range(count)]
    assert list(graph.heights) == [paths_from(i, downstream) for i in range(count)]


def reachable(start, upstream):
    """Everything that lies before `start`."""
    seen: set[int] = set()
    waiting = list(upstream.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += upstream.get(node, ())
    return seen


@given(edges_of(acyclic=False))
def test_cycles_are_found_exactly_when_there_are_any(case):
    """A cycle is reported if and only if some node lies before itself; its ids follow each other in order."""
    count, edges = case
    names = [f"n{i}" for i in range(count)]
    has_cycle = any(i in reachable(i, edges) for i in range(count))
    cycles = find_cycles(names, edges)
    assert bool(cycles) == has_cycle
    for cycle in cycles:
        numbers = [names.index(name) for name in cycle]
        assert numbers[0] == min(numbers)
        assert all(before in edges[after] for before, after in itertools.pairwise([*numbers, numbers[0]]))
    on_cycles = [name for cycle in cycles for name in cycle]
    assert len(on_cycles) == len(set(on_cycles))


def test_a_cycle_is_named_in_order():
    """The ids on a cycle stand in the order in which they would run, beginning with the one listed first."""
    assert find_cycle(["x", "a", "b", "c"], {1: [3, 0], 2: [1], 3: [2]}) == ["a", "b", "c"]
    assert find_cycle(["a", "b"], {1: [0]}) is None


def test_a_graph_with_a_cycle_does_not_compile():
    """A cycle is a problem of the document, at its first node."""
    with pytest.raises(DocumentError) as caught:
        compile_graph(["a", "b"], {0: [1], 1: [0]})
    (problem,) = caught.value.problems
    assert (problem.pointer, problem.code) == ("/nodes/a", "cycle")
    assert "a → b → a" in problem.detail


def test_a_long_cycle_is_shortened():
    """The message of a cycle of 50,000 nodes is still one that can be read."""
    count = 50_000
    with pytest.raises(DocumentError) as caught:
        compile_graph([f"n{i}" for i in range(count)], {i: [(i - 1) % count] for i in range(count)})
    (problem,) = caught.value.problems
    assert "50,000 nodes" in problem.detail
    assert len(problem.detail) < 400


def test_depth_is_no_limit():
    """A chain of 100,000 nodes compiles."""
    count = 100_000
    graph = compile_graph([str(i) for i in range(count)], {i: [i - 1] for i in range(1, count)})
    assert graph.levels[-1] == count - 1
    assert graph.heights[0] == count - 1


def test_width_is_no_limit():
    """A node may have 100,000 upstream and 100,000 downstream nodes."""
    count = 100_000
    edges = {i: [0] for i in range(1, count + 1)} | {count + 1: range(1, count + 1)}
    graph = compile_graph([str(i) for i in range(count + 2)], edges)
    assert len(graph.downstream[0]) == len(graph.upstream[count + 1]) == count
