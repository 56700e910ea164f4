"""Durations as documents write them: `200ms`, `1.5s`, `5m`, `1h30m`, `2d`, ISO 8601 (`PT5M`), or seconds. And times."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SHORT = re.compile(rf"(?:{_PART.pattern})+")
_ISO = re.compile(r"P(?=.)(?:(\d+)W)?(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_ISO_UNITS = (604_800_000, 86_400_000, 3_600_000, 60_000, 1000)
LONGEST_MS = 100 * 365 * 86_400_000


def parse_duration_ms(value: str | float) -> int:
    """Milliseconds of a duration. Raises ValueError when `value` is none, is negative or exceeds a hundred years."""
    ms = _seconds(value) if isinstance(value, int | float) else _text(value.strip())
    if not 0 <= ms <= LONGEST_MS:
        raise ValueError(f"{value!r} is no duration between 0 and 100 years")
    return round(ms)


def _seconds(value: float) -> float:
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{value!r} is no duration; write seconds, or a text such as 90s, 5m or PT5M")
    return value * 1000


def _text(text: str) -> float:
    if _SHORT.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if match := _ISO.fullmatch(text.upper()):
        return sum(float(number) * unit for number, unit in zip(match.groups(), _ISO_UNITS, strict=True) if number)
    try:
        return _seconds(float(text))
    except ValueError:
        raise ValueError(f"{text!r} is no duration; write 200ms, 1.5s, 5m, 1h30m, 2d, PT5M or seconds") from None


def moment_ms(value: Any) -> int:
    """Unix ms of an RFC 3339 text. Raises ValueError with a sentence."""
    wanted = "a time is RFC 3339 text with its offset, such as 2026-07-01T09:00:00Z"
    if not isinstance(value, str):
        raise ValueError(wanted)  # noqa: TRY004 - the caller reads the sentence
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(wanted) from None
    if moment.tzinfo is None:
        raise ValueError(f"{wanted}; this one has no offset")
    return round(moment.timestamp() * 1000)
