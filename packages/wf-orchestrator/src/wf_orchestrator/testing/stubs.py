"""Stand-ins for tasks: a constant, an error, answers by attempt, a function; with a duration in virtual time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from wf_core.durations import parse_duration_ms
from wf_core.errors import WfError
from wf_core.plan import Plan
from wf_core.plugins import drivers, groups
from wf_core.suggest import nearest
from wf_core.tasks import Task, TaskContext
from wf_orchestrator.testing.known import check_stubs, known_in

_MOST_POSITIONAL = 2


class UnknownTaskError(WfError):
    """The author of a test must act: a node runs a task that is neither installed nor given."""


@dataclass(frozen=True, slots=True)
class Stub:
    """What answers in place of a task. Made by `stub` and `answers`."""

    replies: tuple[Any, ...]
    """One per attempt; the last one serves all that follow."""
    takes_ms: int | None = 0
    """Virtual ms; None: it never ends."""
    silent: bool = False
    """Whether it never says that it is alive (`ctx.heartbeat`)."""

    def reply(self, attempt: int) -> tuple[Any, Stub]:
        """What attempt number `attempt` gets, and the stub that says how long it takes."""
        found = self.replies[min(attempt, len(self.replies)) - 1]
        return found.reply(1) if isinstance(found, Stub) else (found, self)


def stub(reply: Any = None, *, takes: str | float | None = 0, silent: bool = False) -> Stub:
    """Answers each attempt with `reply`: a value, an exception to raise, or a function of `(params, ctx)`.

    `takes` is a duration of virtual time (`5s`; None: it never ends), `silent` says that it sends no heartbeats of its
    own, so that a `heartbeat` of the node ends it.
    """
    return Stub((reply,), None if takes is None else parse_duration_ms(takes), silent)


def answers(*replies: Any, takes: str | float | None = 0) -> Stub:
    """Answers the first attempt with the first reply, and so on; the last one serves all that follow.

    Attempts of one node count; those lost to the platform too. A reply may be a `stub` with a duration of its own.
    """
    if not replies:
        raise ValueError("answers() needs at least one reply")
    return Stub(replies, None if takes is None else parse_duration_ms(takes))


def call(function: Callable[..., Any], params: Any, context: TaskContext) -> Any:
    """Calls a stub's function with as much of `(params, ctx)` as it takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a function of C: it says nothing about itself
        return function(params)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return function(params, context)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return function(*(params, context)[: min(len(positional), _MOST_POSITIONAL)])


class Tasks:
    """What runs in place of each task: what the test gave by node path, by task name, else what is installed."""

    def __init__(self, tasks: Mapping[str, Any] | Iterable[Task] | None, nodes: Mapping[str, Any] | None) -> None:
        self._tasks = dict(tasks) if isinstance(tasks, Mapping) else _by_name(tasks or ())
        self._nodes = dict(nodes or {})
        self._named = list(tasks) if isinstance(tasks, Mapping) else []
        """A list of tasks may hold more than a document needs; names may not."""

    def check(self, plans: Iterable[Plan]) -> None:
        """Raises UnknownStubError when something stands in for what no document has."""
        if self._named or self._nodes:
            check_stubs(known_in(plans), _installed(), self._named, self._nodes)

    def find(self, task: str, node: str) -> Task | Stub:
        """Raises UnknownTaskError, naming what there is and the remedy, and PluginError for one that is broken."""
        if node in self._nodes:
            return _answering(self._nodes[node])
        if task in self._tasks:
            return _answering(self._tasks[task])
        if task not in _installed():
            raise UnknownTaskError(self._unknown(task, node))
        return _load(task)

    def _unknown(self, task: str, node: str) -> str:
        known = sorted({*self._tasks, *_installed()})
        close = nearest(task, known)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return (
            f"node {node!r} runs the task {task!r}, which is neither installed nor given; {hint}"
            f"known are: {', '.join(known) or 'none'}. Give it: tasks={{{task!r}: <a @task function or a reply>}}"
        )


@cache
def _installed() -> Mapping[str, drivers.Plugin]:
    """Looking through all installed packages takes longer than a run."""
    return drivers.survey(groups.TASKS)[0]


@cache
def _load(name: str) -> Task:
    found: Task = drivers.load(groups.TASKS, name)
    return found


def _by_name(tasks: Iterable[Task]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(f"tasks is a mapping of names, or a list of @task functions; it holds {task!r}")
        found[task.name] = task
    return found


def _answering(given: Any) -> Task | Stub:
    return given if isinstance(given, Task | Stub) else Stub((given,))
