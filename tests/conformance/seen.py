"""What was seen of a case, in one shape for both runners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NodeSeen:
    """One node at the end. Times are Unix ms."""

    status: str
    attempts: int
    output: Any = None
    error: Mapping[str, str] | None = None
    started: float | None = None
    ended: float | None = None
    tries: Sequence[tuple[float | None, float | None]] = ()
    """Start and end of each attempt."""
    child: Seen | None = None


@dataclass
class Seen:
    """An execution at its end, or the pointers with which the document was refused."""

    status: str = ""
    output: Any = None
    error: Mapping[str, Any] | None = None
    nodes: dict[str, NodeSeen] = field(default_factory=dict)
    refused: list[str] | None = None
    surprises: list[str] = field(default_factory=list)
    """Steps that could not be taken, answers that were not expected."""
    before: list[Seen] = field(default_factory=list)
    """Earlier executions of the same document."""

    def facts(self, without: Sequence[str] = ()) -> dict[str, Any]:
        """What must be the same wherever the case runs: no times, no messages, no paths that begin with `without`."""
        if self.refused is not None:
            return {"refused": sorted(self.refused)}
        error = self.error and {key: self.error.get(key) for key in ("type", "node")}
        found: dict[str, Any] = {"execution": (self.status, self.output, error)}
        for path, node in sorted(self.nodes.items()):
            if not path.startswith(tuple(without)):
                found[path] = (node.status, node.attempts, node.output)
                if node.child is not None:
                    found[f"{path} child"] = node.child.facts()
        return found
