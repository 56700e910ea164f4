"""What each figure was when its budget was set, in budgets.json, and by how much it may grow unnoticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).parent / "budgets.json"
HEADROOM = 1.12
SLACK = 3
"""So many more of anything in a whole workload do not count: a late answer may split a batch."""
REMEDY = (
    "If it is worth that, set the budgets anew (PYTHONPATH=tests python -m costs --write) and say why in the commit."
)

Figures = Mapping[str, float]


def load() -> dict[str, dict[str, float]]:
    """Figures by workload, as they were when the budgets were set."""
    found: dict[str, dict[str, float]] = json.loads(FILE.read_text())
    return found


def store(figures: Mapping[str, Figures]) -> None:
    """Sets the budgets of all workloads."""
    rounded = {name: {key: float(f"{value:.4g}") for key, value in of.items()} for name, of in figures.items()}
    FILE.write_text(json.dumps(rounded, indent=2) + "\n")


def exceeded(name: str, tasks: int, found: Figures, budget: Figures) -> list[str]:
    """A sentence for each figure of a workload that has no budget or is above it. Most figures are per task."""
    missing = [f"{name}: {key} has no budget, nor a reason" for key in found.keys() ^ budget.keys()]
    return missing + [
        f"{name}: {key} rose from {budget[key]:.4g} to {value:.4g}, and {most:.4g} at most is allowed"
        for key, value in found.items()
        if key in budget and value > (most := budget[key] * HEADROOM + SLACK / tasks)
    ]
