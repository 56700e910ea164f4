"""Lists that come in pages, up to the number that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from wf_core.cli.console import Column, note, print_list

if TYPE_CHECKING:
    from wf_core.client import Page

T = TypeVar("T")


def print_pages(  # noqa: PLR0913 - what to ask for, how much of it, how to print it
    ask: Callable[..., Page[T]],
    limit: int,
    page: int,
    form: str,
    columns: Sequence[Column[T]],
    name: Callable[[T], str],
    *,
    first: str = "newest",
) -> None:
    """Prints up to `limit` items and says when more follow; `first` is what they are among all.

    `ask` is a client's operation that takes `cursor` and `limit`; it is asked for `page` items at a time.
    """
    found, more = _gather(ask, limit, page)
    print_list(found, form, columns, name)
    if more and form == "table":
        note(f"the {first} {len(found)}; more with --limit")


def _gather(ask: Callable[..., Page[T]], limit: int, page: int) -> tuple[list[T], bool]:
    """The items, and whether more follow."""
    found: list[T] = []
    cursor: str | None = None
    while len(found) < limit:
        part = ask(cursor=cursor, limit=min(limit - len(found), page))
        found += part.items
        cursor = part.next_cursor
        if cursor is None:
            break
    return found, cursor is not None
