"""Durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wf_core.durations import LONGEST_MS, parse_duration_ms


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        ("200ms", 200),
        ("1.5s", 1500),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("PT5M", 300_000),
        ("P1DT2H3M4.5S", 93_784_500),
        ("P2W", 1_209_600_000),
        (" 5m ", 300_000),
        ("90", 90_000),
        (90, 90_000),
        (0.25, 250),
        (0, 0),
    ],
)
def test_forms(written, milliseconds):
    """A duration is 200ms, 1.5s, 5m, 1h30m, 2d, ISO 8601, or a number of seconds."""
    assert parse_duration_ms(written) == milliseconds


@pytest.mark.parametrize(
    "written",
    [
        *("", "soon", "5 m", "m", "1h-5m", "-5s", "P", "PT", "P1Y", "nan", "inf", "101y", "36501d", "9" * 400),
        *(-1, float("nan"), float("inf"), True, 10**400),
    ],
)
def test_not_durations(written):
    """What is no duration, is negative, infinite or longer than a hundred years, is refused."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration_ms(written)


@given(st.integers(0, LONGEST_MS))
def test_every_millisecond_is_written_and_read(milliseconds):
    """A number of milliseconds written as text means itself."""
    assert parse_duration_ms(f"{milliseconds}ms") == milliseconds
