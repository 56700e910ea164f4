"""What a test's stand-ins may be for: the tasks and the node paths of its documents, so that a typo is no silence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from wf_core.errors import WfError
from wf_core.ids import COMPENSATION
from wf_core.plan import Body, ChildPlan, DynamicPlan, LoopPlan, MapPlan, NodePlan, Plan, load_plan
from wf_core.suggest import nearest

_NUMBER = re.compile(r"\[\d+\](?=/|~|$)|#\d+(?=/)")


class UnknownStubError(WfError):
    """The author of a test must act: something stands in for a task or node that the document does not have."""


class Known(NamedTuple):
    """The nodes and tasks of some documents, and the dynamic nodes, inside which there may be any."""

    paths: set[str]
    """Each with 0 for every number of an item or pass."""
    tasks: set[str]
    dynamic: set[str]


def known_in(plans: Iterable[Plan]) -> Known:
    """All that is in documents, in their bodies and in the documents of children that stand in them."""
    known = Known(set(), set(), set())
    waiting = [(body, "") for plan in plans for body in _bodies(plan)]
    for body, prefix in waiting:  # the list is the queue as well: what is appended is visited
        for node in body.nodes:
            path = prefix if body.single else f"{prefix}/{node.id}" if prefix else node.id
            known.paths.add(path)
            if node.task:
                known.tasks.add(node.task)
            if isinstance(node.spec, DynamicPlan):
                known.dynamic.add(path)
            waiting += _inside(node, path)
    return known


def check_stubs(known: Known, installed: Collection[str], tasks: Collection[str], nodes: Collection[str]) -> None:
    """Raises UnknownStubError with every name in `tasks` and path in `nodes` that no document has.

    Not to be used is no mistake, and neither is a task that is installed.
    """
    sentences = [
        f"tasks has {task!r}, which no node runs and no package brings{_hint(task, {*known.tasks, *installed})}"
        for task in ([] if known.dynamic else tasks)
        if task not in known.tasks and task not in installed
    ]
    for path in nodes:
        plain = _NUMBER.sub(lambda found: "[0]" if found[0].startswith("[") else "#0", path)
        if plain not in known.paths and not any(plain.startswith(f"{one}/") for one in known.dynamic):
            sentences.append(f"nodes has {path!r}, but there is no such node{_hint(path, known.paths)}")
    if sentences:
        raise UnknownStubError("; ".join(sentences))


def _bodies(plan: Plan) -> list[Body]:
    return [plan.root] if plan.final is None else [plan.root, plan.final]


def _inside(node: NodePlan, path: str) -> Iterator[tuple[Body, str]]:
    """The bodies of a node, each with the path that comes before its nodes."""
    if node.compensate is not None:
        yield node.compensate, path + COMPENSATION
    if isinstance(node.spec, MapPlan):
        yield node.spec.body, f"{path}[0]"
    elif isinstance(node.spec, LoopPlan):
        yield node.spec.body, f"{path}#0"
    elif isinstance(node.spec, ChildPlan) and node.spec.document is not None:
        for body in _bodies(load_plan(node.spec.document, "")):  # its paths are those of an execution of its own
            yield body, ""


def _hint(word: str, known: Collection[str]) -> str:
    close = nearest(word, known)
    return f" (did you mean {close[0]!r}?)" if close else f" (there are: {', '.join(sorted(known)[:20]) or 'none'})"
