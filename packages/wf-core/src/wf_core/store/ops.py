"""What one APPLY writes: operations on single keys, checked here so that none can fail half-way in Redis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

Op = tuple[str | bytes | int, ...]
"""`(command, key, argument…)`. `XADD` takes `(key, id, field, value…)` and no options; integers travel as text."""

MOST_ARGUMENTS = 500
"""Longer operations are split: Lua's `unpack` breaks near 8,000."""

_FIXED = {"SET": 1, "SETRANGE": 2, "DEL": 0}
_LISTS = {"HSET": 2, "HDEL": 1, "ZADD": 2, "ZREM": 1, "SADD": 1, "SREM": 1}
"""Commands that take any number of groups of so many arguments."""


def split(ops: Iterable[Sequence[str | bytes | int]]) -> Iterator[list[str | bytes]]:
    """The operations as text and bytes, none longer than MOST_ARGUMENTS. Raises ValueError for one that could fail."""
    for op in ops:
        for piece in _pieces(op):
            yield [str(part) if isinstance(part, int) else part for part in piece]


def flat(ops: Iterable[Sequence[str | bytes | int]]) -> tuple[list[str | bytes], list[str | bytes | int]]:
    """`(distinct keys, the operations as one list)`, each behind the number of its words, as the script takes them.

    Raises ValueError for an operation that could fail.
    """
    keys: dict[str | bytes, None] = {}
    words: list[str | bytes | int] = []
    for op in ops:
        for piece in _pieces(op):
            keys[cast("str | bytes", piece[1])] = None
            words.append(len(piece))
            words += piece
    return list(keys), words


def _pieces(op: Sequence[str | bytes | int]) -> Sequence[Sequence[str | bytes | int]]:
    command, count = op[0], len(op) - 2
    group = _LISTS.get(cast("str", command))
    if group is None:
        _check_fixed(str(command), count)
        return (op,)
    if count % group:
        raise ValueError(f"{command!s} takes its arguments in groups of {group}, not {count} in all")
    if count <= MOST_ARGUMENTS:
        return (op,) if count else ()
    key, arguments = op[1], op[2:]
    return [(command, key, *arguments[i : i + MOST_ARGUMENTS]) for i in range(0, count, MOST_ARGUMENTS)]


def _check_fixed(command: str, count: int) -> None:
    if command == "XADD":
        if count < 3 or count % 2 == 0 or count > MOST_ARGUMENTS:  # noqa: PLR2004 - an id, one field and its value
            raise ValueError(f"XADD takes an id and pairs of field and value, not {count} arguments")
    elif _FIXED.get(command) != count:
        raise ValueError(f"APPLY has no operation {command} with {count} arguments")
