"""The kinds of nodes: a task, and all that runs no task of its own. Each is a row of `KINDS`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from wf_orchestrator.machine.kinds import (
    approval,
    dynamic,
    end,
    loop,
    map,  # noqa: A004 - the kind's own name
    switch,
    task,
    wait,
    workflow,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wf_orchestrator.machine.step import Kind

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "task": task.KIND,
        "switch": switch.KIND,
        "map": map.KIND,
        "loop": loop.KIND,
        "end": end.KIND,
        "workflow": workflow.KIND,
        "dynamic": dynamic.KIND,
        "wait": wait.KIND,
        "approval": approval.KIND,
    }
)
