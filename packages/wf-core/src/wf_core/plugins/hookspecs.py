"""Hooks that observers implement. They are called in batches, off the hot path, and cannot change an outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pluggy

PROJECT = "wf"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of an execution or a node. `ts` is Unix time in ms; `node` is empty for the execution itself."""

    execution_id: str
    workflow: str
    node: str
    attempt: int
    status: str
    ts: int
    data: dict[str, Any]


class ObserverSpec:
    """The hooks; implement those that you need as plain functions marked with `hookimpl`."""

    @hookspec
    def wf_execution_changed(self, changes: list[Change]) -> None:
        """Executions changed their status."""

    @hookspec
    def wf_node_changed(self, changes: list[Change]) -> None:
        """Nodes changed their status."""

    @hookspec
    def wf_worker_started(self, worker_id: str, tasks: list[str]) -> None:
        """A worker of this process began to take tasks."""
