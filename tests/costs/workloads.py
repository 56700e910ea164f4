"""What is counted: documents, and how many executions of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from costs.executors import TASK


@dataclass(frozen=True)
class Workload:
    """So many executions of a document that together run so many tasks."""

    name: str
    document: dict[str, Any]
    executions: int
    tasks: int


def chain(length: int) -> dict[str, Any]:
    """Nodes in a row."""
    nodes = {f"n{n}": {"task": TASK, "depends_on": [f"n{n - 1}"] if n else []} for n in range(length)}
    return {"name": "chain", "nodes": nodes}


def fan(width: int) -> dict[str, Any]:
    """One node, so many side by side, one node."""
    sides = {f"n{n}": {"task": TASK, "depends_on": ["first"]} for n in range(width)}
    return {
        "name": "fan",
        "nodes": {"first": {"task": TASK}, **sides, "last": {"task": TASK, "depends_on": list(sides)}},
    }


def diamond() -> dict[str, Any]:
    """One, two, one."""
    edges = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    return {"name": "diamond", "nodes": {name: {"task": TASK, "depends_on": above} for name, above in edges.items()}}


def items(size: int) -> dict[str, Any]:
    """A map with a task for each item."""
    each = {"kind": "map", "items": list(range(size)), "nodes": {"one": {"task": TASK}}}
    return {"name": "map", "nodes": {"each": each}}


WORKLOADS = (
    Workload("chain of 50", chain(50), 1, 50),
    Workload("fan-out of 200", fan(200), 1, 202),
    Workload("50 diamonds", diamond(), 50, 200),
    Workload("map of 100", items(100), 1, 100),
)
