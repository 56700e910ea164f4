"""Lists that come in pages, up to the number that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from wf_core.client import Page

T = TypeVar("T")


def gather(fetch: Callable[[str | None, int], Page[T]], limit: int, page: int) -> tuple[list[T], bool]:
    """Up to `limit` items, `page` at a time, and whether more follow. `fetch` takes a cursor and a length."""
    found: list[T] = []
    cursor: str | None = None
    while len(found) < limit:
        part = fetch(cursor, min(limit - len(found), page))
        found += part.items
        cursor = part.next_cursor
        if cursor is None:
            break
    return found, cursor is not None
