"""One form for every body of a document: a map from id to node, though a list of nodes may be written."""

from __future__ import annotations

from typing import Any

from wf_core.errors import DocumentError, Problem
from wf_core.schema.nodes import BODIES, kind_of
from wf_core.schema.pointers import child

DEEPEST = 32
"""Bodies inside each other, the document's own not counted."""


class Places:
    """Where in the lists that were sent each node stands."""

    def __init__(self) -> None:
        self.lists: dict[str, dict[str, int]] = {}
        """For each body that was a list: its pointer, as if all were maps, to the place of each id."""

    def placed(self, problem: Problem) -> Problem:
        """The problem with its pointer into what was sent."""
        if not self.lists:
            return problem
        sent: list[str] = []
        mapped = ""
        for part in problem.pointer.split("/")[1:]:
            index = self.lists.get(mapped, {}).get(part.replace("~1", "/").replace("~0", "~"))
            sent.append(part if index is None else str(index))
            mapped += f"/{part}"
        return Problem("".join(f"/{part}" for part in sent), problem.code, problem.detail)


def with_node_maps(value: Any) -> tuple[Any, list[Problem], Places]:
    """The value with every body as a map; what was wrong with lists; and where the nodes of lists stand.

    Raises DocumentError when bodies are nested deeper than DEEPEST.
    """
    reader = _Reader()
    if isinstance(value, dict):
        for key in ("nodes", "finally"):
            if key in value and (body := reader.body(value[key], f"/{key}", 0)) is not value[key]:
                value = {**value, key: body}
    return value, reader.problems, reader.places


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.places = Places()

    def body(self, nodes: Any, pointer: str, depth: int) -> Any:
        """The nodes that stand at `pointer` as a map. Recursion is bounded by DEEPEST."""
        if depth > DEEPEST:
            detail = (
                f"nodes are nested more than {DEEPEST} deep; give the inner ones a workflow definition of their own"
            )
            raise DocumentError([self.places.placed(Problem(pointer, "too_deep", detail))])
        if isinstance(nodes, list):
            nodes = self._from_list(nodes, pointer)
        if not isinstance(nodes, dict):
            return nodes
        changed = {}
        for node_id, node in nodes.items():
            if isinstance(node, dict) and "nodes" in node and kind_of(node) in BODIES:
                inner = self.body(node["nodes"], f"{child(pointer, node_id)}/nodes", depth + 1)
                if inner is not node["nodes"]:
                    changed[node_id] = {**node, "nodes": inner}
        return {**nodes, **changed} if changed else nodes

    def _from_list(self, listed: list[Any], pointer: str) -> dict[str, Any]:
        nodes: dict[str, Any] = {}
        places: dict[str, int] = {}
        for index, node in enumerate(listed):
            node_id = node.get("id") if isinstance(node, dict) else None
            here = child(pointer, index)
            if not isinstance(node_id, str):
                detail = "a node in a list is an object with an `id`, which is text"
                self.problems.append(Problem(here, "missing_key", detail))
            elif node_id in nodes:
                detail = f"the id {node_id!r} is that of the node at {places[node_id]} already"
                self.problems.append(Problem(f"{here}/id", "duplicate_id", detail))
            else:
                nodes[node_id] = {key: item for key, item in node.items() if key != "id"}
                places[node_id] = index
        self.places.lists[pointer] = places
        return nodes
