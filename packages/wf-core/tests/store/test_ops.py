"""Operations of APPLY are checked before they travel."""

from __future__ import annotations

import pytest

from wf_core.store.ops import MOST_ARGUMENTS, Op, split


def test_long_operations_are_split_between_groups():
    """No operation has more than 500 arguments, and a field stays with its value."""
    pieces = list(split([("HSET", "k", *range(MOST_ARGUMENTS * 2 + 2))]))
    assert [len(piece) - 2 for piece in pieces] == [MOST_ARGUMENTS, MOST_ARGUMENTS, 2]
    assert pieces[2] == ["HSET", "k", "1000", "1001"]


def test_integers_become_text():
    """Lua knows only doubles, so no integer travels as a number."""
    assert list(split([("ZADD", "k", 2**63 - 1, b"\xff")])) == [["ZADD", "k", "9223372036854775807", b"\xff"]]


def test_an_operation_without_arguments_disappears():
    """Removing nothing is no operation, where Redis would call it an error."""
    assert list(split([("HDEL", "k"), ("ZREM", "k")])) == []


@pytest.mark.parametrize(
    "op",
    [
        ("FLUSHALL", "k"),
        ("HSET", "k", "field"),
        ("ZADD", "k", 1),
        ("SETRANGE", "k", 1),
        ("SET", "k", "v", "EX"),
        ("DEL", "k", "another"),
        ("XADD", "k", "1-0"),
        ("XADD", "k", "1-0", "field"),
    ],
)
def test_an_operation_that_could_fail_is_refused(op: Op):
    """A batch must not break half-way in Redis, where nothing is rolled back."""
    with pytest.raises(ValueError, match=r"argument"):
        list(split([op]))
