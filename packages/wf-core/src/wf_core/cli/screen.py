"""Where progress is shown: a tree that redraws itself on a terminal, plain lines anywhere else. Always on stderr."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from wf_core.cli import console
from wf_core.cli.tree import Line, render
from wf_core.cli.view import RunView

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

FEW = 50
"""Nodes up to which plain progress has a line for each."""
_PROGRESS_EVERY = 5.0
_FINAL_HEIGHT = 60


class Screen(AbstractContextManager["Screen"], Protocol):
    """What a follower draws on."""

    def draw(self, view: RunView, now: datetime) -> None:
        """Shows how it stands."""

    def note(self, line: str) -> None:
        """Shows something that happened and stays visible."""

    def finish(self, view: RunView, now: datetime) -> None:
        """Shows how it ended."""


def open_screen(*, ascii_only: bool) -> Screen:
    """The screen that fits stderr."""
    plain_characters = ascii_only or not speaks_unicode(sys.stderr)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return LiveScreen(ascii_only=plain_characters)
    return PlainScreen()


def speaks_unicode(stream: TextIO) -> bool:
    """Whether all characters can be written to it."""
    return (getattr(stream, "encoding", None) or "ascii").lower().startswith("utf")


class LiveScreen:
    """The tree, redrawn in place; gone when it closes."""

    def __init__(self, *, ascii_only: bool) -> None:
        self._ascii = ascii_only
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            console=Console(stderr=True, no_color=not console.colours(sys.stderr), highlight=False),
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
        )
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, value, trace)
            self._live = None

    def draw(self, view: RunView, now: datetime) -> None:
        """Redraws the tree in the size that the terminal has now."""
        if self._live is not None:
            width, height = shutil.get_terminal_size()
            # One line stays free: a tree as high as the terminal would scroll with every redraw.
            self._live.update(_text(render(view, now, width, height - 1, ascii_only=self._ascii)), refresh=True)

    def note(self, line: str) -> None:
        """A line above the tree."""
        if self._live is not None:
            self._live.console.print(line, markup=False, style="yellow")

    def finish(self, view: RunView, now: datetime) -> None:
        """Leaves the last tree on the terminal."""
        width, _ = shutil.get_terminal_size()
        self.__exit__(None, None, None)
        for line in render(view, now, width, _FINAL_HEIGHT, ascii_only=self._ascii):
            console.note(line.text, line.colour)


def _text(lines: list[Line]) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for at, line in enumerate(lines):
        text.append(("\n" if at else "") + line.text, style=line.colour)
    return text


class PlainScreen:
    """A line for each node that ended, or for progress now and then when there are many."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def draw(self, view: RunView, now: datetime) -> None:
        """Says what is new."""
        if len(view.nodes) <= FEW:
            self._nodes(view)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_EVERY
            console.note(render(view, now, 200, 1, ascii_only=True)[0].text)

    def note(self, line: str) -> None:
        """Something that happened."""
        console.note(line)

    def finish(self, view: RunView, now: datetime) -> None:
        """The last line."""
        if len(view.nodes) <= FEW:
            self._nodes(view)
        console.note(render(view, now, 200, 1, ascii_only=True)[0].text)

    def _nodes(self, view: RunView) -> None:
        for node in view.nodes:
            if node.over and node.name not in self._told:
                self._told.add(node.name)
                took = f"  {console.lasted(node.started, node.ended)}" if node.started and node.ended else ""
                console.note(f"{node.status}  {node.name}{took}")
