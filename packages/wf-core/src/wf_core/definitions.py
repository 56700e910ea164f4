"""Registered definitions: what names them, and which of them a document names. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wf_core.schema.document import LONGEST_ID
from wf_core.schema.pointers import child

MOST_DEPTH = 32
"""Executions that may stand above a child."""


class Reference(NamedTuple):
    """A definition as a `workflow` node names it; without a version the newest is meant."""

    name: str
    version: str | None = None

    @property
    def key(self) -> str:
        """The key in `Created.definitions`: `name`, or `name@version`. Names hold no `@`."""
        return self.name if self.version is None else f"{self.name}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """What `key` wrote."""
        name, at, version = text.partition("@")
        return cls(name, version if at else None)


def wrong_name(name: str) -> str | None:
    """What is wrong with the name of a definition, as a sentence; None when nothing is."""
    if not name or len(name) > LONGEST_ID:
        return f"the name of a definition has 1 to {LONGEST_ID} characters"
    if "/" in name or "@" in name:
        return "the name of a definition holds no / or @: it stands in addresses, and as name@version in nodes"
    return None


def definitions_in(document: Mapping[str, Any]) -> dict[Reference, str]:
    """The definitions that the `workflow` nodes of a document name, at any depth, each with the pointer to a first one.

    `document` are the JSON values of a canonical document.
    """
    found: dict[Reference, str] = {}
    waiting = [("/finally", document.get("finally")), ("/nodes", document.get("nodes"))]
    while waiting:
        pointer, nodes = waiting.pop()
        if not isinstance(nodes, Mapping):  # none, or the template of a dynamic node
            continue
        for node_id, node in nodes.items():
            here = child(pointer, node_id)
            if node.get("kind") == "workflow" and isinstance(node.get("workflow"), str):
                found.setdefault(Reference(node["workflow"], node.get("version")), f"{here}/workflow")
            waiting.append((f"{here}/nodes", node.get("nodes")))
    return found
