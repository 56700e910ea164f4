"""What the sentences of `why` are made of, and how they say names, times and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wf_core import ids
from wf_core.store.codec import AttemptRecord, pack_timer, unpack_attempts
from wf_core.store.reads.layout import Place
from wf_core.store.reads.views import moment
from wf_core.store.reads.why.survey import Survey
from wf_core.wire import Failure

_FEW = 5

Sentences = Iterator[tuple[str, str]]
"""`(code, sentence)` of each cause."""


@dataclass(frozen=True, slots=True)
class Happened:
    """An entry of the history; `data` are its JSON values."""

    ts: int
    kind: str
    node: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue: attempts that wait in it, and the live workers that take from it."""

    depth: int
    workers: Sequence[tuple[str, int, frozenset[str]]] = ()
    """`(id, free slots, names of the tasks that it can run)`."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A concurrency key that the execution waits for, and who holds it."""

    key: str
    holders: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that the sentences are made of. Times are Unix ms."""

    survey: Survey
    now_ms: int
    fields: Mapping[str, bytes] = field(default_factory=dict)
    """Of the results, about the nodes that are spoken of."""
    timers: Mapping[str, int] = field(default_factory=dict)
    """`kind|token` → when it is due."""
    events: Sequence[Happened] = ()
    """The last part of the history, newest first."""
    queues: Mapping[str, QueueState] = field(default_factory=dict)
    children: Mapping[str, str] = field(default_factory=dict)
    """Status of child executions, by id."""
    hold: Hold | None = None

    def attempts(self, place: Place) -> list[AttemptRecord]:
        """The ended attempts of a node."""
        return unpack_attempts(self.fields.get(f"a:{place.path}"))

    def due(self, kind: str, place: Place) -> int | None:
        """When a timer of the node's current attempt is due; None when there is none."""
        snapshot = self.survey.snapshot
        token = ids.token(snapshot.execution_id, place.path, snapshot.cell(place)[1])
        return self.timers.get(pack_timer(kind, token))

    def event(self, *kinds: str, node: str = "") -> Happened | None:
        """The newest event of one of these kinds."""
        return next((event for event in self.events if event.kind in kinds and event.node == node), None)

    def when(self, due: int) -> str:
        """`in 3.2 s (at 2026-01-01T12:00:03Z)`."""
        return f"{'in ' + span(due - self.now_ms) if due > self.now_ms else 'now'} (at {stamp(due)})"

    def since(self, ms: int) -> str:
        """`since 2026-01-01T12:00:00Z (3.2 s)`."""
        return f"since {stamp(ms)} ({span(self.now_ms - ms)})"


def told(error: Failure | None) -> str:
    """`Type: first line of the message`."""
    if error is None:
        return "an unknown error"
    line = error.message.strip().split("\n", 1)[0][:500].rstrip(".")
    return f"{error.type}: {line}" if line else error.type


def few(names: Sequence[str]) -> str:
    """`a, b, c and 4 more`."""
    shown, more = ", ".join(names[:_FEW]), len(names) - _FEW
    return f"{shown} and {more} more" if more > 0 else shown


def stamp(ms: int) -> str:
    """A time as RFC 3339 in whole seconds."""
    at = moment(ms)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z") if at else "the beginning"


def span(ms: int) -> str:
    """`3.2 s`, `4 min`, `2.5 h`, `3 d`."""
    seconds = max(ms, 0) / 1000
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (86_400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds / 86_400:.1f} d".replace(".0 ", " ")
