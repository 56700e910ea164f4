"""Loads executions from a model of Redis, as an orchestrator does that has just started."""

from __future__ import annotations

from typing import Any

from wf_core.plan import Plan
from wf_core.store.keys import PartitionKeys
from wf_orchestrator.machine.restore import fill, result_fields, skeleton
from wf_orchestrator.machine.state import Execution
from wf_orchestrator.redis_model import Model


def load_execution(
    model: Model, keys: PartitionKeys, execution_id: str, plan: Plan | None, *, whole: bool = False
) -> Execution:
    """The execution that was stored; `whole`: with all of its results, as `retry` needs it."""
    fields = text_keys(model.keys[keys.execution(execution_id)])
    cells: Any = model.keys.get(keys.nodes(execution_id), b"")
    scopes = text_keys(model.keys.get(keys.scopes(execution_id), {}))
    execution = skeleton(execution_id, plan, fields, cells, scopes)
    results = text_keys(model.keys.get(keys.results(execution_id), {}))
    if whole:
        execution.results = results
    return fill(execution, {name: results[name] for name in result_fields(execution) if name in results})


def text_keys(stored: Any) -> dict[str, bytes]:
    """A stored hash with its fields as text."""
    return {name.decode(): value for name, value in stored.items()}
