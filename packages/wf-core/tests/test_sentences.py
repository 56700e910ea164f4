"""Numbers and times in messages."""

from __future__ import annotations

import pytest

from wf_core.sentences import counted, lasting


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (0, "0 s"),
        (5, "0.005 s"),
        (250, "0.25 s"),
        (1000, "1 s"),
        (59_999, "59.999 s"),
        (90_000, "1 min 30 s"),
        (7_200_000, "2 h"),
        (129_600_001, "1 d 12 h 0.001 s"),
    ],
)
def test_durations(ms: int, told: str) -> None:
    """To the millisecond."""
    assert lasting(ms) == told


def test_numbers() -> None:
    """One is one."""
    assert [counted(number, "item") for number in (0, 1, 2000)] == ["0 items", "1 item", "2,000 items"]
