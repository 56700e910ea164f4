"""Parameters of tasks, checked against the function where it is at hand."""

from __future__ import annotations

from typing import Any

from wf_core.builder.terms import BuildError
from wf_core.suggest import did_you_mean
from wf_core.tasks import Task


def task_name(task: Any) -> str:
    """The name of a task that is given by its name or as a `@task` function. Raises BuildError for anything else."""
    if isinstance(task, Task):
        return task.name
    if isinstance(task, str):
        return task
    raise BuildError(f"{task!r} is no task: pass its name, or a function that is decorated with @task")


def params_of(task: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters. Raises BuildError for one that the function does not take, or that it needs and did not get."""
    if not isinstance(task, Task):
        return given
    known = _parameters(task)
    for name in given:
        if name not in known and not task.takes_any:
            raise BuildError(f"the task {task.name!r} takes no {name!r}{did_you_mean(name, known)}")
    if missing := missing_of(task, given):
        raise BuildError(f"the task {task.name!r} needs {', '.join(map(repr, missing))}")
    return given


def missing_of(task: Any, given: dict[str, Any]) -> list[str]:
    """The parameters that the function needs and did not get; none when only the task's name is at hand."""
    if not isinstance(task, Task):
        return []
    return [name for name, required in _parameters(task).items() if required and name not in given]


def _parameters(task: Task) -> dict[str, bool]:
    return {field.alias or name: field.is_required() for name, field in task.model.model_fields.items()}
