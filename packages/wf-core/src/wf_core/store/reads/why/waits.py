"""Why a WAITING node waits: for a slot, or for what its kind waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from wf_core.states import ExecutionStatus, NodeStatus, ScopeState
from wf_core.store.reads.layout import Place
from wf_core.store.reads.why.known import Known, Sentences, few, span, stamp

_MOST = 5
_IN_FLIGHT = frozenset({NodeStatus.QUEUED, NodeStatus.RUNNING})


def of_held(known: Known, place: Place) -> Sentences:
    """A node that may start, and does not yet."""
    survey = known.survey
    limit = survey.plan.max_parallel if survey.plan else None
    if survey.snapshot.execution.status is ExecutionStatus.PAUSED:
        yield "paused", f"{place.path} may start, and is held since the execution is paused."
    elif place.kind == "task" and limit is not None:
        holders = [one.path for one in _holders(known)]
        yield "slots", f"{place.path} waits for one of the {limit} slots (max_parallel), held by {few(holders)}."
    else:
        yield "about_to_start", f"{place.path} may start, and is about to."


def of_open(known: Known, place: Place) -> Sentences:
    """A node whose attempt runs without a worker."""
    yield from _KINDS.get(place.kind, _children)(known, place)
    timeout = known.due("timeout", place)
    if timeout is not None:
        yield "timeout", f"The attempt of {place.path} times out {known.when(timeout)}."


def _holders(known: Known) -> Iterator[Place]:
    """The nodes that are in flight; some are enough."""
    survey, found = known.survey, 0
    for key in ("", *survey.layout.scopes):
        places = survey.layout.places(key) if key else map(survey.layout.top, range(len(survey.layout.root.names)))
        for place in places:
            if found <= _MOST and survey.status(place) in _IN_FLIGHT:
                found += 1
                yield place


def _lookup(_known: Known, place: Place) -> Sentences:
    yield "cache", f"{place.path} waits for what the cache holds under its key."


def _map(known: Known, place: Place) -> Sentences:
    scopes = known.survey.layout.items_of(place.at)
    items = msgspec.json.decode(known.fields.get(f"i:{place.path}", b"[]"), type=list[msgspec.Raw])
    total = -(-len(items) // place.table.batches.get(place.local, 1))
    inside = known.survey.layout.inside(place.at)
    running = [key for key in inside if known.survey.layout.scopes[key].state is ScopeState.OPEN]
    failed = sum(scope.state is ScopeState.FAILED for scope in scopes)
    ended = sum(scope.state is not ScopeState.OPEN for scope in scopes)
    bad = f", {failed} of them failed" if failed else ""
    planned = known.survey.planned(place.path)
    spec: Any = planned.node.spec if planned else None
    limit = getattr(spec, "max_parallel", None)
    full = f"; max_parallel is {limit}" if limit is not None and len(scopes) < total else ""
    now = f"; {few(running)} run" if running else ""
    yield "items", f"{place.path} waits for its items: {ended} of {total} have ended{bad}{now}{full}."


def _loop(known: Known, place: Place) -> Sentences:
    scopes = known.survey.layout.items_of(place.at)
    most = place.table.most_passes.get(place.local)
    due = known.due("pass", place)
    if due is not None:
        after = scopes[-1].number if scopes else -1
        yield "delay", f"{place.path} begins its pass {after + 1} of at most {most} {known.when(due)}."
    elif scopes:
        yield "pass", f"{place.path} waits for its pass {scopes[-1].number} (from 0) of at most {most}."


def _child(known: Known, place: Place) -> Sentences:
    data = known.fields.get(f"ch:{place.path}")
    child = msgspec.json.decode(data, type=str) if data else ""
    status = known.children.get(child)
    if status is None:
        yield "child", f"{place.path} waits for its child execution {child}, which is being started."
    else:
        yield "child", f"{place.path} waits for its child execution {child}, which is {status} (`wf why {child}`)."


def _wait(known: Known, place: Place) -> Sentences:
    planned = known.survey.planned(place.path)
    spec: Any = planned.node.spec if planned else None
    terms = spec.terms if spec else ()
    signals = [
        f"{term.signal!r} that fits `match` ({term.match.text})" if term.match is not None else repr(term.signal)
        for term in terms
        if term.signal is not None
    ]
    due = known.due("wait", place)
    if signals:
        how = "the signal" if len(signals) == 1 else "the signals" if spec.mode == "all" else "one of the signals"
        yield "signal", f"{place.path} waits for {how} {few(signals)} (`wf signal`)."
    if due is not None:
        what = "its time, or its timeout, comes" if spec and spec.timeout_ms is not None else "its time comes"
        yield "timer", f"{place.path} waits: {what} {known.when(due)}."


def _approval(known: Known, place: Place) -> Sentences:
    question = msgspec.json.decode(known.fields.get(f"i:{place.path}", b"{}"))
    assignees = question.get("assignees") or []
    who = f" from {few(assignees)}" if assignees else ""
    since = known.survey.snapshot.cell(place)[3]
    yield "approval", f"{place.path} waits for an answer{who} {known.since(since)} (`wf approve`)."
    due = known.due("approval", place)
    if due is not None:
        yield (
            "timeout",
            f"The answer to {place.path} must come until {stamp(due)} ({span(due - known.now_ms)} from now).",
        )


def _dynamic(known: Known, place: Place) -> Sentences:
    if not known.survey.layout.inside(place.at):
        yield "expand", f"The nodes of {place.path} are being checked."
    else:
        yield from _children(known, place)


def _children(known: Known, place: Place) -> Sentences:
    survey = known.survey
    nodes = [one for one in survey.inside(place, [ScopeState.OPEN]) if not survey.status(one).is_terminal]
    if nodes:
        yield "children", f"{place.path} waits for the nodes inside it: {few([one.path for one in nodes])}."


_KINDS: dict[str, Callable[[Known, Place], Sentences]] = {
    "task": _lookup,
    "map": _map,
    "loop": _loop,
    "workflow": _child,
    "wait": _wait,
    "approval": _approval,
    "dynamic": _dynamic,
}
