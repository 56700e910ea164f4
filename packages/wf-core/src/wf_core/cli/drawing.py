"""A graph as text: levels for a terminal, Mermaid and DOT for other tools. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wf_core.graph import Graph


def levels(graph: Graph, tasks: Mapping[str, str]) -> Iterator[str]:
    """One block a level; each node with its task and what it waits for."""
    column = min(max(map(len, graph.names), default=0), 40)
    for level in range(max(graph.levels, default=-1) + 1):
        yield f"level {level}"
        for at, name in enumerate(graph.names):
            if graph.levels[at] == level:
                after = ", ".join(graph.names[up] for up in graph.upstream[at])
                yield f"  {name.ljust(column)}  {tasks[name]}{f'  after {after}' if after else ''}"


def mermaid(graph: Graph, tasks: Mapping[str, str]) -> Iterator[str]:
    """A Mermaid flowchart."""
    yield "flowchart TD"
    for at, name in enumerate(graph.names):
        label = f"{name}<br/>{tasks[name]}".replace("#", "#35;").replace('"', "#quot;")
        yield f'  n{at}["{label}"]'
    for at, upstream in enumerate(graph.upstream):
        for up in upstream:
            yield f"  n{up} --> n{at}"


def dot(graph: Graph, tasks: Mapping[str, str]) -> Iterator[str]:
    """A Graphviz digraph."""
    yield "digraph workflow {"
    yield "  node [shape=box];"
    for at, name in enumerate(graph.names):
        # JSON's escapes of quotes and backslashes are DOT's as well.
        yield f"  n{at} [label={json.dumps(name + chr(10) + tasks[name], ensure_ascii=False)}];"
    for at, upstream in enumerate(graph.upstream):
        for up in upstream:
            yield f"  n{up} -> n{at};"
    yield "}"
