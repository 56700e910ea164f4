"""Tasks of climate-report.yaml and year.json: weather data that ships in the package `vega_datasets`.

`wf run` and `wf dev` pick up `tasks/*.py` beside the document; nothing has to be installed or registered.
"""

from __future__ import annotations

import base64
import csv
import functools
import html
import shutil
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from wf_core import Fatal, RetryAfter, TaskContext, task

Source = Literal["seattle_temps", "sf_temps", "seattle_weather", "airports"]
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Loaded(BaseModel):
    """A data set on disk."""

    path: str
    rows: int


class Day(BaseModel):
    """One cleaned day: mean temperature in °C and rain in mm (None where the source has none)."""

    date: str
    month: int
    celsius: float
    rain: float | None = None


class Month(BaseModel):
    """One month of the three sources side by side, means in °C."""

    month: int
    seattle_normal: float
    seattle_observed: float
    san_francisco: float
    rain_days: float


class Summary(BaseModel):
    """What the report says."""

    days: int
    correlation: float
    warmest: str
    wettest: str
    anomaly: float
    months: list[Month]


@task("climate.load", timeout="60s")
def load(source: Source, out: str) -> Loaded:
    """Copies a data set out of the installed package into `out`/raw."""
    from vega_datasets import local_data

    target = Path(out).absolute() / "raw" / f"{source}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(getattr(local_data, source).filepath, target)
    with target.open(encoding="utf-8") as lines:
        return Loaded(path=str(target), rows=sum(1 for _ in lines) - 1)


@task("climate.clean", executor="process", timeout="60s")
def clean(path: str, unit: Literal["F", "C"]) -> list[Day]:
    """Hourly Fahrenheit or daily Celsius readings to one row a day, gaps and impossible values dropped."""
    import pandas as pd

    frame = pd.read_csv(path, parse_dates=["date"])
    if unit == "F":
        frame["celsius"] = (frame["temp"] - 32) * 5 / 9
        frame["rain"] = float("nan")
    else:
        frame["celsius"] = (frame["temp_max"] + frame["temp_min"]) / 2
        frame["rain"] = frame["precipitation"]
    frame = frame[frame["celsius"].between(-40, 50)]
    daily = frame.groupby(frame["date"].dt.date)[["celsius", "rain"]].mean()
    return [
        Day(
            date=str(date),
            month=date.month,
            celsius=round(row.celsius, 2),
            rain=None if row.rain != row.rain else row.rain,
        )
        for date, row in daily.iterrows()
    ]


@task("climate.join")
def join(normal: list[Day], observed: list[Day], other: list[Day]) -> list[Month]:
    """The three sources joined by month of the year."""

    def by_month(days: list[Day]) -> dict[int, list[Day]]:
        groups: dict[int, list[Day]] = defaultdict(list)
        for day in days:
            groups[day.month].append(day)
        return groups

    def mean(days: list[Day]) -> float:
        return round(statistics.fmean(day.celsius for day in days), 2)

    left, middle, right = by_month(normal), by_month(observed), by_month(other)
    return [
        Month(
            month=month,
            seattle_normal=mean(left[month]),
            seattle_observed=mean(middle[month]),
            san_francisco=mean(right[month]),
            rain_days=round(100 * statistics.fmean((day.rain or 0) > 0 for day in middle[month]), 1),
        )
        for month in sorted(left.keys() & middle.keys() & right.keys())
    ]


@task("climate.compute")
def compute(months: list[Month], days: int) -> Summary:
    """Correlation of the two cities, the warmest and the wettest month, the years' anomaly against the normals."""
    warmest = max(months, key=lambda m: m.seattle_observed)
    wettest = max(months, key=lambda m: m.rain_days)
    return Summary(
        days=days,
        correlation=round(
            statistics.correlation([m.seattle_observed for m in months], [m.san_francisco for m in months]), 3
        ),
        warmest=MONTHS[warmest.month - 1],
        wettest=MONTHS[wettest.month - 1],
        anomaly=round(statistics.fmean(m.seattle_observed - m.seattle_normal for m in months), 2),
        months=months,
    )


@task("climate.chart", executor="process", timeout="60s")
def chart(summary: Summary, out: str) -> str:
    """Draws the months as a PNG and returns its path."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [MONTHS[m.month - 1] for m in summary.months]
    figure, left = plt.subplots(figsize=(9, 4.5), dpi=120)
    right = left.twinx()
    right.bar(names, [m.rain_days for m in summary.months], color="#c6dbef", label="days with rain, %", zorder=1)
    for label, values, style in (
        ("Seattle, normal", [m.seattle_normal for m in summary.months], "--"),
        ("Seattle, 2012 to 2015", [m.seattle_observed for m in summary.months], "-"),
        ("San Francisco, normal", [m.san_francisco for m in summary.months], ":"),
    ):
        left.plot(names, values, style, linewidth=2, label=label, zorder=3)
    left.set_zorder(right.get_zorder() + 1)
    left.patch.set_visible(False)
    left.set_ylabel("mean temperature, °C")
    right.set_ylabel("days with rain, %")
    left.legend(loc="upper left", fontsize=8)
    left.set_title("Seattle and San Francisco, by month")
    target = Path(out).absolute() / "climate.png"
    figure.savefig(target, bbox_inches="tight")
    plt.close(figure)
    return str(target)


@task("climate.report")
def report(summary: Summary, chart: str, out: str) -> str:
    """Writes the HTML report, with the chart inside, and returns its path."""
    picture = base64.b64encode(Path(chart).read_bytes()).decode()
    rows = "".join(
        f"<tr><td>{MONTHS[m.month - 1]}</td><td>{m.seattle_normal:.1f}</td><td>{m.seattle_observed:.1f}</td>"
        f"<td>{m.san_francisco:.1f}</td><td>{m.rain_days:.0f} %</td></tr>"
        for m in summary.months
    )
    text = (
        f"<p>{summary.days:,} days. The months of the two cities correlate with {summary.correlation:.2f}; Seattle was "
        f"{summary.anomaly:+.1f} °C against its normals, warmest in {html.escape(summary.warmest)}, "
        f"wettest in {html.escape(summary.wettest)}.</p>"
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Climate report</title>'
        "<style>body{font:16px system-ui;max-width:60rem;margin:2rem auto}td,th{padding:.2rem .8rem;text-align:right}"
        "img{max-width:100%}</style><h1>Climate report</h1>"
        f'{text}<img alt="Mean temperature and rain by month" src="data:image/png;base64,{picture}">'
        "<table><tr><th>Month</th><th>Seattle, normal °C</th><th>Seattle, observed °C</th>"
        f"<th>San Francisco, normal °C</th><th>Days with rain</th></tr>{rows}</table></html>"
    )
    target = Path(out).absolute() / "report.html"
    target.write_text(page, encoding="utf-8")
    return str(target)


@task("climate.day")
def day(path: str, date: str) -> dict[str, Any]:
    """Lowest, highest and mean temperature (°F) of one day of an hourly data set."""
    values = _hours(path).get(date)
    if not values:
        raise Fatal(f"{path} has no reading of {date}")
    return {"date": date, "low": min(values), "high": max(values), "mean": round(statistics.fmean(values), 2)}


@task("climate.month")
def month(days: list[dict[str, Any]]) -> dict[str, Any]:
    """A month out of its days."""
    return {
        "month": days[0]["date"][:7],
        "low": min(d["low"] for d in days),
        "high": max(d["high"] for d in days),
        "mean": round(statistics.fmean(d["mean"] for d in days), 2),
    }


@task("airports.page")
def page(ctx: TaskContext, path: str, number: int, size: int = 500, outages: int = 0) -> dict[str, int]:
    """Airports per state on one page of the list. The source is out of order in the first `outages` attempts."""
    if ctx.attempt <= outages:
        raise RetryAfter(0.3, f"page {number} is out of order (attempt {ctx.attempt})")
    counts: dict[str, int] = defaultdict(int)
    with Path(path).open(encoding="utf-8", newline="") as lines:
        for position, row in enumerate(csv.DictReader(lines)):
            if number * size <= position < (number + 1) * size:
                counts[row["state"]] += 1
    return dict(sorted(counts.items()))


@task("airports.total")
def total(pages: list[dict[str, int] | None]) -> dict[str, Any]:
    """Sums the pages that could be read and names how many could not."""
    counts: dict[str, int] = defaultdict(int)
    for part in pages:
        for state, number in (part or {}).items():
            counts[state] += number
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]
    return {"airports": sum(counts.values()), "most": dict(most), "missing_pages": sum(part is None for part in pages)}


@functools.cache
def _hours(path: str) -> dict[str, list[float]]:
    """Readings by day; cached, because hundreds of nodes ask the same process for the same file."""
    days: dict[str, list[float]] = defaultdict(list)
    with Path(path).open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            days[row["date"][:10].replace("/", "-")].append(float(row["temp"]))
    return days
