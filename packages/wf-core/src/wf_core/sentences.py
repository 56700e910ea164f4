"""Numbers and times as messages tell them, in one style."""

from __future__ import annotations

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000))


def counted(number: int, noun: str) -> str:
    """`1 item`, `2,000 items`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def lasting(ms: int) -> str:
    """A duration to the millisecond: `0.25 s`, `5 s`, `1 min 30 s`, `2 h`, `1 d 12 h`."""
    parts = []
    for unit, size in _UNITS:
        if ms >= size:
            parts.append(f"{ms // size:,} {unit}")
            ms %= size
    if ms or not parts:
        parts.append(f"{ms / 1000:g} s")
    return " ".join(parts)
