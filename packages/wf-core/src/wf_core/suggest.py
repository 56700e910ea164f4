"""Nearest known spellings, at a cost that stays small for any number of names."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

_MOST = 2000
_SLACK = 3


def nearest(word: str, known: Collection[str], count: int = 1) -> list[str]:
    """Up to `count` of the `known` names that look most like `word`, best first; `[]` when none is close.

    Among more than 2,000 candidates of about its length only the first 2,000 are looked at.
    """
    import difflib  # for mistakes only

    folded = word.casefold()
    same = [name for name in islice(known, 10 * _MOST) if name.casefold() == folded and name != word]
    near = (name for name in known if abs(len(name) - len(word)) <= _SLACK or word in name or name in word)
    close = difflib.get_close_matches(word, list(islice(near, _MOST)), n=count + 1, cutoff=0.6)
    return [name for name in dict.fromkeys([*same, *close]) if name != word][:count]


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    close = nearest(word, known)
    return f"; did you mean {close[0]!r}?" if close else ""
