"""The studies as SVG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.studies import FANS, RATE, WIDTH, Latencies, Throughput, percentile

_SIZE = (9.0, 3.4)
_NAMES = {"redis": "Redis log", "kafka": "Apache Kafka"}
_COLOURS = {"redis": "#c6302b", "kafka": "#231f20"}
_PERCENTS = range(1, 100)


def draw(found: Mapping[str, Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes a file for each study that was made, and returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, by_log in found.items():
        figure = (_latency if name == "latency" else _scaling)(by_log)
        path = folder / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        drawn.append(path)
    return drawn


def _panels(titles: tuple[str, str]) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "wf", "font.size": 9}
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=_SIZE, layout="constrained")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.grid(visible=True, alpha=0.3)
    return figure, axes


def _latency(by_log: Mapping[str, Latencies]) -> Any:
    figure, axes = _panels(("one task, from ready to started", "one workflow, from the request to its end"))
    for log, latencies in by_log.items():
        for axis, values in zip(axes, (latencies.start, latencies.whole), strict=True):
            reached = [percentile(values, percent) for percent in _PERCENTS]
            axis.plot(reached, _PERCENTS, color=_COLOURS[log], label=_NAMES[log])
    for axis in axes:
        axis.set_xlim(left=0)
        axis.set_xlabel(f"ms, at {RATE} workflows a second")
        axis.set_ylabel("% of workflows")
        axis.legend()
    return figure


def _scaling(by_log: Mapping[str, Throughput]) -> Any:
    figure, axes = _panels(("by partitions, one worker", "by workers, eight partitions"))
    for log, throughput in by_log.items():
        for axis, rates in zip(axes, (throughput.partitions, throughput.workers), strict=True):
            axis.plot(list(rates), list(rates.values()), "o-", color=_COLOURS[log], label=_NAMES[log])
            axis.set_xticks(list(rates))
    for axis, name in zip(axes, ("partitions", "workers"), strict=True):
        axis.set_ylim(bottom=0)
        axis.set_xlabel(name)
        axis.set_ylabel(f"tasks/s, {FANS} fan-outs of {WIDTH} at once")
        axis.legend()
    return figure
