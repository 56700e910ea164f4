"""The live tree as a pure function of what is known, the time and the size of the terminal.

Nodes of one task on one level of the graph are one group, a map, loop or dynamic node is one alone. A group folds into
its line; what runs, waits for a retry or failed in it stands below it, as far as there is room, and so does what undid
its nodes. Whatever the size of the graph, the tree never exceeds `height`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from shlex import quote
from typing import NamedTuple

from wf_core.cli.console import COLOURS, duration
from wf_core.cli.identity import SHORT
from wf_core.cli.view import ENDED, NodeView, RunView, error_line, progress_text

BAR = 16
TITLE = 40
_OPEN = ("FAILED", "RETRYING", "RUNNING")
"""Statuses of nodes that stand on a line of their own, most important first."""
_ALIVE = ("RUNNING", "QUEUED", "RETRYING", "WAITING")
_CALM = ("COMPLETED", "SKIPPED")
_UNUSUAL = ("FAILED", "RETRYING", "CANCELLED", "SKIPPED", "UPSTREAM_FAILED")


class Line(NamedTuple):
    """A line of the tree and the status that gives it its colour."""

    text: str
    status: str = ""

    @property
    def colour(self) -> str | None:
        """Name of the line's colour, None for the terminal's own."""
        return COLOURS.get(self.status)


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters of the tree."""

    status: dict[str, str]
    mixed: str
    branch: str
    last: str
    trunk: str
    bar: str
    empty: str
    times: str
    more: str


_UNICODE = Marks(
    {
        "COMPLETED": "✔",
        "FAILED": "✖",
        "UPSTREAM_FAILED": "⊘",
        "SKIPPED": "⊘",
        "CANCELLED": "⊘",
        "PENDING": "○",
        "RETRYING": "↻",
    },
    "◐", "├─", "└─", "│ ", "█", "░", "×", "…",
)  # fmt: skip
_ASCII = Marks(
    {
        "COMPLETED": "+",
        "FAILED": "x",
        "UPSTREAM_FAILED": "/",
        "SKIPPED": "/",
        "CANCELLED": "/",
        "PENDING": "o",
        "RETRYING": "~",
    },
    "*", "|-", "`-", "| ", "#", ".", "x", "...",
)  # fmt: skip


@dataclass(slots=True)
class _Group:
    task: str
    level: int
    nodes: list[NodeView] = field(default_factory=list)

    def count(self, *statuses: str) -> int:
        return sum(node.status in statuses for node in self.nodes)

    @property
    def over(self) -> bool:
        return all(node.over for node in self.nodes)

    @property
    def untouched(self) -> bool:
        return all(node.status == "PENDING" for node in self.nodes)

    @property
    def calm(self) -> bool:
        """Whether nothing in it is of interest any more: all has ended well, what undid its nodes too."""
        return all(node.status in _CALM for node in (*self.nodes, *self.undone))

    @property
    def undone(self) -> list[NodeView]:
        """The compensations that have begun."""
        return [node.undo for node in self.nodes if node.undo is not None]

    @property
    def status(self) -> str:
        """The status that stands for all: alive, else the worst of the ended ones."""
        if not self.over and not self.untouched:
            return "RUNNING"
        present = {node.status for node in self.nodes}
        worst = ("FAILED", "UPSTREAM_FAILED", "CANCELLED", "COMPLETED", "SKIPPED")
        return next((status for status in worst if status in present), "PENDING")


def render(view: RunView, now: datetime, width: int, height: int, *, ascii_only: bool = False) -> list[Line]:
    """At most `height` lines of at most `width` characters."""
    marks = _ASCII if ascii_only else _UNICODE
    groups = _groups(view)
    room = max(height - 1, 0)
    before, shown, after = _fit(groups, room)
    spare = room - len(shown) - bool(before) - bool(after)
    rows = [_before(before, marks)] if before else []
    titles = [_title(group, marks) for group in shown]
    column = min(max(map(len, titles), default=0), TITLE)
    for group, title in zip(shown, titles, strict=True):
        children = _open_nodes(group)[: max(spare, 0)]
        spare -= len(children)
        rows.append((_group_line(view, group, title.ljust(column), marks, now), children))
    rows += [_after(after, marks)] if after else []
    lines = [_header(view, marks, now), *_branches(rows, view, marks, now)]
    return [Line(_cut(line.text, width, marks), line.status) for line in lines[: max(height, 1)]]


def _groups(view: RunView) -> list[_Group]:
    found: dict[tuple[int, str, str], _Group] = {}
    for node in view.nodes:
        key = (node.level, node.task, node.name if node.holds else "")
        found.setdefault(key, _Group(node.task, node.level)).nodes.append(node)
    return sorted(found.values(), key=lambda group: group.level)


def _fit(groups: list[_Group], room: int) -> tuple[list[_Group], list[_Group], list[_Group]]:
    """Folds finished groups at the top, then untouched ones at the bottom, then whatever else has no room."""
    if len(groups) <= room:
        return [], groups, []
    top = next((at for at, group in enumerate(groups) if not group.calm), len(groups))
    top = min(top, len(groups) - room + 1)
    before, rest = (groups[:top], groups[top:]) if top > 1 else ([], groups)
    space = room - bool(before)
    if len(rest) <= space:
        return before, rest, []
    return before, rest[: max(space - 1, 0)], rest[max(space - 1, 0) :]


_Row = tuple[Line, list[NodeView]]


def _before(groups: Sequence[_Group], marks: Marks) -> _Row:
    nodes = sum(len(group.nodes) for group in groups)
    return Line(f"{marks.status['COMPLETED']} {len(groups)} steps done ({nodes} nodes)", "COMPLETED"), []


def _after(groups: Sequence[_Group], marks: Marks) -> _Row:
    total = sum(len(group.nodes) for group in groups)
    done = sum(node.over for group in groups for node in group.nodes)
    text = f"{marks.status['PENDING']} {len(groups)} more steps ({done}/{total} nodes"
    listed = [(word.lower(), sum(group.count(word) for group in groups)) for word in _OPEN]
    unusual = "".join(f", {count} {word}" for word, count in listed if count)
    return Line(f"{text}{unusual})"), []


def _open_nodes(group: _Group) -> list[NodeView]:
    """What stands below a group's line: of a container that runs, some of its inside; of one node, what undid it."""
    alone = group.nodes[0] if len(group.nodes) == 1 else None
    if alone is not None and (alone.over or not alone.holds):
        return group.undone
    nodes = alone.inside if alone else [*group.nodes, *group.undone]
    return [node for status in _OPEN for node in nodes if node.status == status]


def _branches(rows: Sequence[_Row], view: RunView, marks: Marks, now: datetime) -> list[Line]:
    lines: list[Line] = []
    for at, (line, children) in enumerate(rows):
        final = at == len(rows) - 1
        lines.append(Line((marks.last if final else marks.branch) + line.text, line.status))
        for number, child in enumerate(children):
            stem = ("  " if final else marks.trunk) + (marks.last if number == len(children) - 1 else marks.branch)
            lines.append(
                Line(f"{stem}{_mark(child.status, marks)} {child.name}  {_about(child, view, now)}", child.status)
            )
    return lines


def _header(view: RunView, marks: Marks, now: datetime) -> Line:
    counts = view.counts()
    done, total = sum(count for status, count in counts.items() if status in ENDED), sum(counts.values())
    filled = BAR * done // max(total, 1)
    unusual = "".join(f"  {counts[word]} {word.lower()}" for word in _UNUSUAL if counts.get(word))
    text = (
        f"{'*' if marks is _ASCII else '●'} {view.name}  {view.execution_id[:SHORT]}{marks.more}  {view.status}  "
        f"{done}/{total}  {marks.bar * filled}{marks.empty * (BAR - filled)}{unusual}"
    )
    return Line(f"{text}  {_clock(view.started, view.ended or now)}" if view.started else text, view.status)


def _title(group: _Group, marks: Marks) -> str:
    title = group.nodes[0].name if len(group.nodes) == 1 else f"{group.task} {marks.times}{len(group.nodes)}"
    return title if len(title) <= TITLE else title[: TITLE - len(marks.more)] + marks.more


def _group_line(view: RunView, group: _Group, title: str, marks: Marks, now: datetime) -> Line:
    status = group.status
    mark = _mark(status, marks)
    if len(group.nodes) == 1:
        node = group.nodes[0]
        about = "  ".join(part for part in (_about(node, view, now), *_undoing(group)) if part)
        return Line(f"{_mark(node.status, marks)} {title}  {about}".rstrip(), node.status)
    done = sum(node.over for node in group.nodes)
    parts = [f"{done}/{len(group.nodes)}".rjust(9)]
    if group.count(*_ALIVE):
        parts += [f"{group.count(word)} {word.lower()}" for word in _ALIVE if group.count(word)]
    elif group.untouched:
        parts.append(_waits(view, group))
    parts += [f"{group.count(word)} {word.lower()}" for word in _UNUSUAL if word != "RETRYING" and group.count(word)]
    parts += _undoing(group)
    if group.over and (average := _average(group)) is not None:
        parts.append(f"avg {duration(average)}")
    return Line(f"{mark} {title}  {'  '.join(part for part in parts if part)}", status)


def _undoing(group: _Group) -> list[str]:
    """Compensations that run or did not complete: they may have no room below."""
    counts = Counter(undo.status for undo in group.undone if undo.status not in _CALM)
    return [f"{count} compensation{'s' if count > 1 else ''} {status.lower()}" for status, count in counts.items()]


def _waits(view: RunView, group: _Group) -> str:
    """`waits for 195 of 516`: direct upstream nodes that have not ended."""
    upstream = {at for node in group.nodes for at in node.upstream}
    open_ones = sum(not view.nodes[at].over for at in upstream)
    return f"waits for {open_ones} of {len(upstream)}" if open_ones else ""


def _average(group: _Group) -> float | None:
    took = [
        (node.ended - node.started).total_seconds()
        for node in group.nodes
        if node.started is not None and node.ended is not None
    ]
    return sum(took) / len(took) if took else None


def _about(node: NodeView, view: RunView, now: datetime) -> str:
    """What there is to say of one node."""
    is_open = node.holds and not node.over and node.progress
    return progress_text(node.kind, node.progress) if is_open else _state(node, view, now)


def _state(node: NodeView, view: RunView, now: datetime) -> str:
    if node.status == "COMPLETED":
        took = duration((node.ended - node.started).total_seconds()) if node.started and node.ended else ""
        return took if node.attempts <= 1 else f"{took}  after {node.attempts} attempts".strip()
    if node.status == "FAILED":
        reason = f"  {error_line(node.error)}" if node.error else ""
        times = f" after {node.attempts} attempts" if node.attempts > 1 else ""
        return f"FAILED{times}{reason}   (wf node {view.execution_id[:SHORT]} {quote(node.name)})"
    if node.status == "RETRYING":
        reason = f": {error_line(node.error)}" if node.error else ""
        return f"waits to try again after attempt {node.attempts}{reason}"
    if node.status == "RUNNING":
        took = duration((now - node.started).total_seconds()) if node.started else "running"
        said = progress_text(node.kind, node.progress)
        return "  ".join(part for part in (took, node.worker and f"on {node.worker}", said) if part)
    if node.status == "PENDING":
        waiting = sum(not view.nodes[at].over for at in node.upstream)
        return f"waits for {waiting} of {len(node.upstream)}" if waiting else ""
    return node.status.lower()


def _mark(status: str, marks: Marks) -> str:
    return marks.status.get(status, marks.mixed)


def _clock(started: datetime, until: datetime) -> str:
    seconds = max(int((until - started).total_seconds()), 0)
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}"


def _cut(text: str, width: int, marks: Marks) -> str:
    if len(text) <= width:
        return text
    return text[: max(width - len(marks.more), 0)] + marks.more[: max(width, 0)]
