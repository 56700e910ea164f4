"""Tables of what was measured: medians, smallest, largest, and how many times better this engine is."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.rows import Row, Samples

BASE = "redis"
OURS = ("redis", "kafka")
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


def cell(row: Row, samples: Sequence[Samples]) -> Cell:
    """The figures of all rounds; a round that failed is told only when none succeeded."""
    good = [s for s in samples if s.timings]
    if not good:
        return Cell(note=next((s.failed for s in samples if s.failed), ""))
    values = tuple(row.figure(s.size, getattr(t, row.source)) for s in good for t in s.timings)
    failed = len(samples) - len(good)
    notes = [f"size {good[0].size:,}"] if good[0].size != row.size else []
    notes += (
        [f"{failed} of {len(samples)} rounds failed: {next(s.failed for s in samples if s.failed)}"] if failed else []
    )
    return Cell(values, "; ".join(notes))


def times_better(row: Row, base: float, other: float) -> float:
    """How many times better `base` is than `other`; below 1 it is worse."""
    return base / other if row.more_is_better else other / base


def number(value: float) -> str:
    """Three digits that count, or all of a whole number above them."""
    if abs(value) >= 100:  # noqa: PLR2004 - three digits
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.2g}"  # noqa: PLR2004 - below a thousandth two digits do


def text(rows: Sequence[Row], results: Results) -> Iterator[str]:
    """Lines for a terminal: one for each row and system."""
    yield f"{'workload':<36} {'unit':<13} {'system':<16} {'median':>9} {'min':>9} {'max':>9}  redis better by"
    for row in rows:
        cells = {name: cell(row, found[row.key]) for name, found in results.items() if row.key in found}
        base = cells.get(BASE, Cell())
        for name, one in cells.items():
            head = f"{row.title:<36} {row.unit:<13} {name:<16}"
            if one.values:
                ratio = f"{times_better(row, base.median, one.median):.2f}" if base.values else ""
                spread = [number(v) for v in (one.median, min(one.values), max(one.values))]
                yield f"{head} {spread[0]:>9} {spread[1]:>9} {spread[2]:>9}  {ratio} {one.note}".rstrip()
            elif one.note:
                yield f"{head} {one.note}"


def markdown(rows: Sequence[Row], results: Results, missing: Mapping[str, str]) -> str:
    """The table of targets, the table of peers, and what could not be measured with its reason."""
    parts = [targets(rows, results), peers(rows, results), *notes(rows, results, missing)]
    return "\n\n".join(part for part in parts if part) + "\n"


def targets(rows: Sequence[Row], results: Results) -> str:
    """Each row that has figures of this engine: against its targets, and against the best peer."""
    head = ("workload", "unit", "Redis log", "target", "Apache Kafka", "target", "best peer", "Redis log better by")
    lines = []
    for row in rows:
        cells = [cell(row, results.get(log, {}).get(row.key, ())) for log in OURS]
        if not any(one.values for one in cells):
            continue
        measured = [
            word for one, aim in zip(cells, row.targets, strict=True) for word in (_spread(one), _aim(row, one, aim))
        ]
        lines.append((row.title, row.unit, *measured, *_best_peer(row, results, cells[0])))
    return _table(head, lines)


def peers(rows: Sequence[Row], results: Results) -> str:
    """Each row that has figures of a peer: all systems, each with how many times better the redis log is."""
    others = [name for name in results if name not in OURS]
    lines = []
    for row in rows:
        cells = {name: cell(row, results[name].get(row.key, ())) for name in results}
        if not any(cells[name].values for name in others):
            continue
        base = cells.get(BASE, Cell())
        lines.append((f"{row.title}, {row.unit}", *(_spread(one, row, base) for one in cells.values())))
    return _table(("workload", *results), lines)


def notes(rows: Sequence[Row], results: Results, missing: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each smaller size, each figure that failed, and each peer that is not there."""
    for name, reason in missing.items():
        yield f"{name} was not measured: {reason}"
    seen = set()
    for row in rows:
        for name, found in results.items():
            note = cell(row, found.get(row.key, ())).note
            if note and (name, row.key) not in seen:
                seen.add((name, row.key))
                yield f"{name}, {row.title}: {note}"


def _spread(one: Cell, row: Row | None = None, base: Cell | None = None) -> str:
    if not one.values:
        return "–"
    shown = f"{number(one.median)} ({number(min(one.values))}–{number(max(one.values))})"
    if row is not None and base is not None and base.values and one is not base:
        shown += f" · {times_better(row, base.median, one.median):.3g}×"
    return shown


def _aim(row: Row, one: Cell, aim: float | None) -> str:
    if aim is None:
        return ""
    met = one.values and (one.median >= aim if row.more_is_better else one.median <= aim)
    return f"{'≥' if row.more_is_better else '≤'} {number(aim)} {'met' if met else 'missed'}"


def _best_peer(row: Row, results: Results, base: Cell) -> tuple[str, str]:
    found = {
        name: cell(row, by_key.get(row.key, ())) for name, by_key in results.items() if name not in (*OURS, "bare")
    }
    known = {name: one.median for name, one in found.items() if one.values}
    if not known:
        return "", ""
    name = (max if row.more_is_better else min)(known, key=lambda name: known[name])
    ratio = f"{times_better(row, base.median, known[name]):.3g}×" if base.values else ""
    return f"{number(known[name])} ({name})", ratio


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    body = [f"| {' | '.join(line)} |" for line in lines]
    if not body:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body])
