"""Tables and plots of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.growth.curves import PROCESSES, Curve, Part

_SIZE = (4.5, 2.8)
_COLOURS = {"orchestrator": "#1f4e79", "Redis": "#c6302b", "worker": "#4f7942"}
_STYLES = ("-", "--")
_LINEAR = 3
"""Sizes that grow less than so many times from one to the next are drawn on a linear axis."""


def table_of(part: Part, curve: Curve) -> str:
    """A line for each size: processor time of each process, and commands of Redis."""
    unit = "µs" if part.per == "event" else "ms"
    head = (part.axis, *(f"{name}, {unit} a{_n(part.per)} {part.per}" for name in PROCESSES), "Redis commands")
    return markdown([head, *_lines(part, curve)])


def _n(word: str) -> str:
    return "n" if word[0] in "aeiou" else ""


def _lines(part: Part, curve: Curve) -> Iterator[tuple[str, ...]]:
    for name, costs in curve.series.items():
        for size, cost in zip(curve.sizes, costs, strict=True):
            shown = f"{name}, {size:,}" if len(curve.series) > 1 else f"{size:,}"
            yield (shown, *(_number(part, cost.cpu[one]) for one in PROCESSES), f"{cost.commands:,.1f}")


def _number(part: Part, microseconds: float) -> str:
    return f"{microseconds:,.0f}" if part.per == "event" else f"{microseconds / 1000:,.1f}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table; the first line is its head."""
    head, *rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, f"|{'---|' * len(lines[0])}", *rows])


def draw(part: Part, curve: Curve, path: Path) -> None:
    """Writes the plot of a curve, an SVG of some kilobytes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "wf", "font.size": 9}
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    scale = 1 if part.per == "event" else 1000
    for (name, costs), style in zip(curve.series.items(), _STYLES, strict=False):
        for process in PROCESSES:
            values = [cost.cpu[process] / scale for cost in costs]
            label = f"{process}, {name}" if len(curve.series) > 1 else process
            axes.plot(curve.sizes, values, style, marker="o", markersize=3, color=_COLOURS[process], label=label)
    if curve.sizes[-1] > _LINEAR * curve.sizes[-2]:
        axes.set_xscale("symlog" if curve.sizes[0] == 0 else "log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(part.axis)
    axes.set_ylabel(f"{'µs' if part.per == 'event' else 'ms'} of a core a{_n(part.per)} {part.per}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
