"""Tables of what was measured: medians, smallest, largest, and how many times better this engine is."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.rows import BARE, Row, Samples

BASE = "redis"
OURS = ("redis", "kafka")
_NAMES = {"redis": "Redis log", "kafka": "Apache Kafka"}
Results = Mapping[str, Mapping[str, Sequence[Samples]]]
"""Samples of each round, by system and key."""


@dataclass(frozen=True)
class Cell:
    """One system's figures in one row; `note` says a smaller size, or why there are none."""

    values: tuple[float, ...] = ()
    note: str = ""

    @property
    def median(self) -> float:
        """The middle of all values of all rounds."""
        return statistics.median(self.values)


def cells(row: Row, results: Results) -> dict[str, Cell]:
    """A cell for each system, in the order of the results."""
    return {name: _cell(row, found.get(row.key, ())) for name, found in results.items()}


def _cell(row: Row, samples: Sequence[Samples]) -> Cell:
    """The figures of all rounds; rounds that failed are told beside those that did not."""
    failed = [s.failed for s in samples if s.failed]
    good = [s for s in samples if s.timings]
    if not good:
        return Cell(note=failed[0] if failed else "")
    values = tuple(row.unit.figure(s.size, getattr(t, row.source)) for s in good for t in s.timings)
    notes = [f"size {good[0].size:,}"] if good[0].size != row.size else []
    notes += [good[0].note] if good[0].note else []
    notes += [f"{len(failed)} of {len(samples)} rounds failed: {failed[0]}"] if failed else []
    return Cell(values, "; ".join(notes))


def comparable(rows: Sequence[Row]) -> list[Row]:
    """The rows in which peers stand beside this engine: those from the request, where there are such."""
    asked = {row.key for row in rows if row.source == "request"}
    return [row for row in rows if row.source == "request" or row.key not in asked]


def times_better(row: Row, base: float, other: float) -> float:
    """How many times better `base` is than `other`; below 1 it is worse."""
    return base / other if row.unit.more_is_better else other / base


def number(value: float) -> str:
    """Three digits that count, or all of a whole number above them."""
    if abs(value) >= 100:  # noqa: PLR2004 - three digits
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.2g}"  # noqa: PLR2004 - below a thousandth two digits do


def text(rows: Sequence[Row], results: Results) -> Iterator[str]:
    """Lines for a terminal: one for each row and system."""
    yield f"{'workload':<36} {'unit':<13} {'system':<18} {'median':>9} {'min':>9} {'max':>9}  redis better by"
    for row in rows:
        found = cells(row, results)
        base = found.get(BASE, Cell())
        for name, one in found.items():
            if name not in OURS and row not in comparable(rows):
                continue
            head = f"{row.title:<36} {row.unit.name:<13} {name:<18}"
            if one.values:
                ratio = f"{times_better(row, base.median, one.median):.2f}" if base.values else ""
                spread = [number(v) for v in (one.median, min(one.values), max(one.values))]
                yield f"{head} {spread[0]:>9} {spread[1]:>9} {spread[2]:>9}  {ratio} {one.note}".rstrip()
            elif one.note:
                yield f"{head} {one.note}"


def markdown(rows: Sequence[Row], results: Results, missing: Mapping[str, str]) -> str:
    """The table of targets, the table of peers, and what could not be measured with its reason."""
    parts = [targets(rows, results), peers(rows, results), "\n".join(notes(rows, results, missing))]
    return "\n\n".join(part for part in parts if part) + "\n"


def targets(rows: Sequence[Row], results: Results) -> str:
    """Each row that has figures of this engine: against its targets, and against the best peer."""
    lines = []
    for row in rows:
        found = cells(row, results)
        logs = [found.get(log, Cell()) for log in OURS]
        if not any(one.values for one in logs):
            continue
        pairs = zip(logs, row.targets, strict=True)
        measured = [word for one, aim in pairs for word in (_spread(one), _aim(row, one, aim))]
        lines.append((row.title, row.unit.name, *measured, *_best_peer(row, found)))
    head = ("workload", "unit", "Redis log", "target", "Apache Kafka", "target", "best peer", "Redis / Kafka better by")
    return _table(head, lines)


def peers(rows: Sequence[Row], results: Results) -> str:
    """Each row that has figures of a peer: all systems, each with how many times better the redis log is."""
    lines = []
    for row in comparable(rows):
        found = cells(row, results)
        if not any(one.values for name, one in found.items() if name not in OURS):
            continue
        base = found.get(BASE, Cell())
        lines.append((f"{row.title}, {row.unit.name}", *(_spread(one, row, base) for one in found.values())))
    return _table(("workload", *(_NAMES.get(name, name) for name in results)), lines)


def notes(rows: Sequence[Row], results: Results, missing: Mapping[str, str]) -> Iterator[str]:
    """A line for each smaller size, each reason why figures failed, and each peer that is not there."""
    for name, reason in missing.items():
        yield f"- {name} was not measured: {reason}"
    told: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        for name, one in cells(row, results).items():
            if one.note and (name in OURS or row in comparable(rows)):
                told.setdefault((name, one.note), {})[row.title] = None
    for (name, note), titles in told.items():
        yield f"- {_NAMES.get(name, name)}: {note} ({'; '.join(titles)})"


def _spread(one: Cell, row: Row | None = None, base: Cell | None = None) -> str:
    if not one.values:
        return "–"
    least, most = number(min(one.values)), number(max(one.values))
    shown = number(one.median) + (f" ({least}–{most})" if least != most else "")
    if row is not None and base is not None and base.values and one is not base:
        shown += f" · {times_better(row, base.median, one.median):.3g}×"
    return shown


def _aim(row: Row, one: Cell, aim: float | None) -> str:
    if aim is None:
        return ""
    shown = f"{'≥' if row.unit.more_is_better else '≤'} {number(aim)}"
    if not one.values:
        return shown
    met = one.median >= aim if row.unit.more_is_better else one.median <= aim
    return f"{shown}, {'met' if met else 'missed'}"


def _best_peer(row: Row, found: Mapping[str, Cell]) -> tuple[str, str]:
    known = {name: one.median for name, one in found.items() if one.values and name not in (*OURS, BARE)}
    if not known:
        return "", ""
    name = (max if row.unit.more_is_better else min)(known, key=lambda name: known[name])
    logs = [found.get(log, Cell()) for log in OURS]
    ratios = [f"{times_better(row, one.median, known[name]):.3g}×" if one.values else "–" for one in logs]
    return f"{number(known[name])} ({name})", " / ".join(ratios)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    body = [f"| {' | '.join(line)} |" for line in lines]
    if not body:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body])
