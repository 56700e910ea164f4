"""Runs a case through `wf_orchestrator.testing`: the real machine, a virtual clock, no server."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

from conformance.cases import TASKS, Case, Step
from conformance.seen import NodeSeen, Seen
from wf_core.errors import DocumentError
from wf_core.plugins import drivers, groups
from wf_core.states import NodeStatus
from wf_core.tasks import Task
from wf_orchestrator.policy_book import PolicyBook
from wf_orchestrator.testing import CommandRefusedError, Harness, Run
from wf_orchestrator.testing.harness import START

_ENDS = frozenset(status.value for status in NodeStatus if status.is_terminal)
_AGAIN = {"cancel": "CANCELLED", "pause": "PAUSED"}
"""What may be asked twice, and the status in which the same answer comes again; the API sees to that."""


@cache
def _policies() -> PolicyBook:
    """Read once: installed packages do not change meanwhile."""
    return PolicyBook.load()


@cache
def _tasks() -> tuple[Task, ...]:
    """The tasks of `tasks/case.py`, and the built-in ones that cases use."""
    spec = importlib.util.spec_from_file_location("conformance_case_tasks", TASKS / "case.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built_in = [drivers.load(groups.TASKS, f"core.{name}") for name in ("echo", "fail", "noop", "sleep")]
    return tuple(value for value in [*vars(module).values(), *built_in] if isinstance(value, Task))


def run_case(case: Case) -> Seen:
    """What the harness makes of a case."""
    try:
        harness = Harness(
            case.given.get("text", case.given.get("workflow")),
            tasks=_tasks(),
            policies=_policies(),
            input=case.given.get("input"),
            definitions=_definitions(case),
            slots=32,
        )
    except DocumentError as error:
        return Seen(refused=[problem.pointer for problem in error.problems])
    surprises: list[str] = []
    for step in case.steps:
        if not _until(harness, step.at):
            surprises.append(f"the moment never came: {step}; the execution is {harness.status}")
            break
        harness.advance(step.after)
        surprises += _take(harness, step)
    seen = seen_of(harness.run_until_idle())
    seen.surprises = [*surprises, *harness.run.crashes]
    return seen


def _definitions(case: Case) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, versions in case.definitions.items():
        found[name] = versions[-1]
        found |= {f"{name}@{v['version']}": v for v in versions if "version" in v}
    return found


def _until(harness: Harness, moment: Any) -> bool:
    """Goes on until the moment has come; whether it came."""
    holds = _predicate(moment)
    while not holds(harness.run):
        if harness.world.agenda.is_idle() or not harness.step():
            return holds(harness.run)
    return True


def _predicate(moment: Any) -> Callable[[Run], bool]:
    if moment == "created":
        return lambda _: True
    if moment == "ended":
        return lambda run: run.status in ("COMPLETED", "FAILED", "CANCELLED")
    if "execution" in moment:
        return lambda run: run.status == moment["execution"]
    if "child" in moment:
        return lambda run: moment["child"] in run.children and run.children[moment["child"]].status == moment["is"]
    return lambda run: moment["node"] in run.nodes and run.nodes[moment["node"]].status == moment["is"]


def _take(harness: Harness, step: Step) -> list[str]:
    """Takes a step; what was not as expected."""
    if step.verb == "check":
        return checked(step, seen_of(harness.run))
    status = harness.status
    try:
        _command(harness, step)
        answer = 200
    except CommandRefusedError:
        answer = 200 if _AGAIN.get(step.verb) == status else 409
    except DocumentError:
        answer = 422
    return [] if answer == step.answers else [f"{step} was answered {answer}, expected {step.answers}"]


def _command(harness: Harness, step: Step) -> None:
    given = step.arguments
    match step.verb:
        case "signal":
            harness.signal(given["name"], given.get("payload"))
        case "approve":
            harness.approve(given["node"], given["answer"])
        case "retry":
            harness.retry(from_=given.get("from", ()), input=given.get("input"))
        case "resume":
            harness.resume()
        case verb:
            getattr(harness, verb)(given.get("reason", ""))


def checked(step: Step, seen: Seen) -> list[str]:
    """What a look at the execution in between shows otherwise than the step says."""
    found = [] if seen.status == step.arguments["status"] else [f"{step}: the execution is {seen.status}"]
    for path, status in step.arguments.get("nodes", {}).items():
        is_ = seen.nodes[path].status if path in seen.nodes else None
        if is_ != status:
            found.append(f"{step}: {path} is {is_}")
    return found


def seen_of(run: Run) -> Seen:
    """A run of the harness in the common shape."""
    times = _times(run)
    nodes = {}
    for path, node in run.nodes.items():
        tries = [(a.started_at, a.ended_at) for a in node.attempts]
        started, ended = times.get(path, (None, None))
        nodes[path] = NodeSeen(
            status=node.status,
            attempts=node.attempt,
            output=node.output,
            error=node.error and {"type": node.error.type, "message": node.error.message},
            started=next((start for start, _ in tries if start), started),
            ended=ended,
            tries=tries,
            child=seen_of(run.children[path]) if path in run.children else None,
        )
    error = run.error and {key: getattr(run.error, key) for key in ("type", "message", "node", "attempt")}
    return Seen(run.status, run.output, error, nodes)


def _times(run: Run) -> dict[str, tuple[float | None, float | None]]:
    """First and last sign of each node in the history, as Unix ms; the last one only when it is an end."""
    found: dict[str, tuple[float | None, float | None]] = {}
    created_ms = START.timestamp() * 1000  # of a child it is a little later; nobody asks for its times
    for entry in run.history:
        if entry.node:
            at = created_ms + entry.at.total_seconds() * 1000
            first = found.get(entry.node, (None, None))[0]
            started = entry.data.get("started_at", at) if first is None else first
            found[entry.node] = (started, at if entry.status in _ENDS else None)
    return found
