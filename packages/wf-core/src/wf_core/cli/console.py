"""Data on stdout as a table, JSON, JSON lines or names; notes on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO, TypeVar

import click

T = TypeVar("T")
Column = tuple[str, Callable[[T], Any]]

COLOURS = {
    "COMPLETED": "green",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "LOST": "magenta",
    "UPSTREAM_FAILED": "red",
    "CANCELLED": "yellow",
    "RETRYING": "yellow",
    "RUNNING": "cyan",
    "QUEUED": "cyan",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def print_list(items: Sequence[T], form: str, columns: Sequence[Column[T]], name: Callable[[T], str]) -> None:
    """Prints `items`: `columns` are for the table, `name` gives what `-o name` prints."""
    if form == "json":
        print_json(items)
    elif form == "jsonl":
        for item in items:
            write(json.dumps(plain(item), ensure_ascii=False))
    elif form == "name":
        for item in items:
            write(name(item))
    else:
        write_table([title for title, _ in columns], [[cell(take(item)) for _, take in columns] for item in items])


def print_one(item: Any, form: str, lines: Callable[[], Sequence[str]], name: str) -> None:
    """Prints one thing: `lines` is its text for people."""
    if form == "json":
        print_json(item)
    elif form == "jsonl":
        write(json.dumps(plain(item), ensure_ascii=False))
    elif form == "name":
        write(name)
    else:
        for line in lines():
            write(line)


def print_json(value: Any) -> None:
    """Prints JSON for people and programs."""
    write(json.dumps(plain(value), ensure_ascii=False, indent=2))


def plain(value: Any) -> Any:
    """JSON values of structs and sequences of them."""
    import msgspec

    return msgspec.to_builtins(value)


def write_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns; statuses coloured on a terminal. Nothing but the titles when there is no row."""
    widths = [max(len(text) for text in column) for column in zip(titles, *rows, strict=True)]
    for number, row in enumerate((titles, *rows)):
        last = len(row) - 1
        padded = [
            text if at == last else text.ljust(width) for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        if number == 0:
            write(click.style("  ".join(padded).rstrip(), bold=True))
        else:
            write("  ".join(_coloured(text) for text in padded).rstrip())


def _coloured(text: str) -> str:
    colour = COLOURS.get(text.strip())
    return click.style(text, fg=colour) if colour else text


def write(line: str) -> None:
    """A line of data."""
    click.echo(line, color=colours(sys.stdout))


def note(line: str, colour: str | None = None) -> None:
    """A line about what goes on."""
    click.echo(click.style(line, fg=colour) if colour else line, err=True, color=colours(sys.stderr))


def colours(stream: TextIO) -> bool:
    """Whether to colour: only a terminal, and only if NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def cell(value: Any) -> str:
    """A value in a table: one line, `-` for nothing."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ",".join(str(v) for v in value) or "-"
    return str(value).replace("\n", " ")


def lasted(started: datetime | None, ended: datetime | None) -> str:
    """How long something took, or takes so far."""
    if started is None:
        return "-"
    return duration(((ended or datetime.now(UTC)) - started).total_seconds())


def duration(seconds: float) -> str:
    """`850ms`, `3.2s`, `2m05s`, `1h02m`, `3d04h`."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"


def short(value: Any, length: int = 200) -> str:
    """JSON of a value on one line, cut where it is long."""
    text = json.dumps(plain(value), ensure_ascii=False)
    return text if len(text) <= length else text[: length - 3] + "..."
