"""Where the cells of scopes lie: cells that no scope has any more are used again, the lowest first.

The free stretches follow from the scopes alone, so that a state that was loaded places the next scope where the one
that was never stored would.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Stretch = tuple[int, int]
"""The first cell, and the one after the last."""


def free_stretches(taken: Iterable[Stretch]) -> list[Stretch]:
    """What lies between these, in order, as long stretches as can be."""
    found, end = [], 0
    for first, after in sorted(taken):
        if first > end:
            found.append((end, first))
        end = max(end, after)
    return found


def place(free: list[Stretch], size: int, otherwise: int) -> int:
    """The first cell of the lowest stretch that has room for so many; `otherwise` when none has."""
    return next((first for first, after in free if after - first >= size), otherwise)


def occupy(free: list[Stretch], taken: Stretch) -> None:
    """Takes cells that are free."""
    if taken[0] == taken[1]:
        return
    at = bisect_left(free, (taken[0] + 1, 0)) - 1
    first, after = free[at]
    free[at : at + 1] = [one for one in ((first, taken[0]), (taken[1], after)) if one[0] < one[1]]


def release(free: list[Stretch], given: Stretch) -> None:
    """Gives cells back; neighbours become one stretch."""
    if given[0] == given[1]:
        return
    insort(free, given)
    at = bisect_left(free, given)
    if at + 1 < len(free) and free[at][1] == free[at + 1][0]:
        free[at : at + 2] = [(free[at][0], free[at + 1][1])]
    if at and free[at - 1][1] == free[at][0]:
        free[at - 1 : at + 1] = [(free[at - 1][0], free[at][1])]
