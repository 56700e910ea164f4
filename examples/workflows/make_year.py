"""Writes year.json: 1 load, 365 days, 12 months and 1 year, 379 nodes. Run it as `python make_year.py > year.json`."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any


def document() -> dict[str, Any]:
    """The workflow document: each day reads its hours, each month its days, the year its months."""
    first = dt.date(2010, 1, 1)
    dates = [first + dt.timedelta(days=n) for n in range(365)]
    nodes: dict[str, Any] = {
        "load": {"task": "climate.load", "params": {"source": "seattle_temps", "out": "${{ input.out }}"}}
    }
    for date in dates:
        nodes[f"{date}"] = {
            "task": "climate.day",
            "params": {"path": "${{ nodes.load.output.path }}", "date": f"{date}"},
        }
    for month in range(1, 13):
        days = [f'${{{{ nodes["{date}"].output }}}}' for date in dates if date.month == month]
        nodes[f"2010-{month:02}"] = {"task": "climate.month", "priority": 7, "params": {"days": days}}
    months = [f'${{{{ nodes["2010-{month:02}"].output }}}}' for month in range(1, 13)]
    nodes["2010"] = {"task": "core.echo", "params": {"value": months}}
    return {
        "name": "year",
        "description": "365 days of hourly temperatures, reduced to months and a year",
        "input": {"type": "object", "properties": {"out": {"type": "string", "default": "report"}}},
        "max_parallel": 100,
        "nodes": nodes,
        "output": '${{ nodes["2010"].output }}',
    }


if __name__ == "__main__":
    print(json.dumps(document(), indent=1))  # noqa: T201 - its output is its purpose
