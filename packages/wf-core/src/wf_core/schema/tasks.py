"""A document's tasks against what workers published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema_rs

from wf_core.catalogue import Catalogue
from wf_core.errors import Problem
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.fields import templates_in
from wf_core.schema.inputs import schema_error, schema_validator
from wf_core.schema.nodes import AttemptedSchema, MapSchema, NodeSchema, TaskSchema
from wf_core.schema.walk import every_node
from wf_core.suggest import nearest

_ABOUT_KEYS = frozenset({"required", "additionalProperties", "unevaluatedProperties", "type"})
"""Keywords that judge an object by its keys alone, which are never templates."""
_MOST_HINTS = 50


def check_tasks(document: WorkflowSchema, catalogue: Catalogue) -> list[Problem]:
    """Unknown tasks, with the nearest known names, and literal parameters that do not fit their task's JSON Schema.

    What a template gives is not known yet: every error at, below or above one is left to the worker.
    """
    checker = _Checker(catalogue)
    return [
        problem
        for pointer, node in every_node(document)
        for place, task, params in _tasks(pointer, node)
        for problem in checker.check(place, task, params)
    ]


def _tasks(pointer: str, node: NodeSchema) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The tasks that a node runs itself: where each is written, its name, its parameters."""
    if isinstance(node, TaskSchema):
        yield pointer, node.task, node.params
    elif isinstance(node, MapSchema) and node.task is not None:
        yield pointer, node.task, node.params or {}
    if isinstance(node, AttemptedSchema) and node.compensate is not None:
        yield f"{pointer}/compensate", node.compensate.task, node.compensate.params


_REMEDY = (
    "; `GET /tasks` lists those that are known. Install it where a worker runs (and name it in APP_WORKER_ALLOW if it "
    "runs code), or submit with ?allow_unknown=true"
)
_PERMIT = "it runs code of the document's author: name {} in APP_WORKER_ALLOW where a worker runs"


class _Checker:
    def __init__(self, catalogue: Catalogue) -> None:
        self._tasks = catalogue.tasks
        self._refused = frozenset(catalogue.refused)
        self._validators: dict[str, jsonschema_rs.Validator | None] = {}
        self._unknown: dict[str, str] = {}

    def check(self, pointer: str, task: str, params: dict[str, Any]) -> Iterator[Problem]:
        if task not in self._tasks:
            yield Problem(f"{pointer}/task", "unknown_task", self._unknown_task(task))
            return
        validator = self._validator(task)
        if validator is None or validator.is_valid(params):
            return
        templates = list(templates_in(params))
        known = list(self._tasks[task].params.get("properties", {}))
        for error in validator.iter_errors(params):
            if not _depends(error, templates):
                yield from schema_error(error, f"{pointer}/params", "wrong_parameter", known)

    def _unknown_task(self, task: str) -> str:
        if task in self._refused:
            return f"the task {task!r} is installed, but no live worker is allowed to run it; {_PERMIT.format(task)}"
        if task not in self._unknown:
            close = nearest(task, self._tasks, 3) if len(self._unknown) < _MOST_HINTS else []
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            self._unknown[task] = f"no live worker knows the task {task!r}{hint or _REMEDY}"
        return self._unknown[task]

    def _validator(self, task: str) -> jsonschema_rs.Validator | None:
        """None when the task's author published no schema that can be used; its worker checks then."""
        if task not in self._validators:
            try:
                self._validators[task] = schema_validator(self._tasks[task].params)
            except ValueError:
                self._validators[task] = None
        return self._validators[task]


def _depends(error: jsonschema_rs.ValidationError, templates: Sequence[tuple[str | int, ...]]) -> bool:
    place = tuple(error.instance_path)
    about_keys = error.kind.name in _ABOUT_KEYS
    for path in templates:
        is_above = place == path[: len(place)]
        if path == place[: len(path)] or (is_above and not about_keys):
            return True
    return False
