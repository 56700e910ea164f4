"""Values that expressions read and give: the scope, plain paths into it, and CEL's results as JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression may name: the execution's input, `{"output", "status", "error"}` per node, the execution.

    `extra` holds the names that only some places give: a map's item, `index`, `iteration`, `last`, `payload`, an error.
    """

    input: Any
    nodes: Mapping[str, Any]
    execution: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> Any:
        """The value of a top-level name. Raises LookupError for an unknown one."""
        if name in ROOTS:
            return getattr(self, name)
        if name in self.extra:
            return self.extra[name]
        raise LookupError(f"there is no name {name!r}; known are {listed([*ROOTS, *self.extra])}")


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


ROOTS = ("input", "nodes", "execution")
FIELDS = ("output", "status", "error")
Path = tuple[str | int, ...]


def follow(path: Path, scope: Scope) -> Any:
    """The value that a path names, untouched. Raises LookupError with the step that leads nowhere."""
    value = scope.value(str(path[0]))
    for depth, step in enumerate(path[1:], 1):
        try:
            value = _step(value, step)
        except LookupError:
            raise LookupError(f"{_describe(path[:depth], value)} has no {_shown(step)}") from None
    return value


def _step(value: Any, step: str | int) -> Any:
    if isinstance(step, str):
        if isinstance(value, Mapping):
            return value[step]
    elif isinstance(value, list | tuple) and 0 <= step < len(value):
        return value[step]
    raise LookupError


def _shown(step: str | int) -> str:
    return f"key {step!r}" if isinstance(step, str) else f"item {step}"


def _describe(path: Path, value: Any) -> str:
    where = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if step.isidentifier() else f"[{step!r}]" for step in path
    )
    return f"{where.removeprefix('.')} ({kind(value)})"


def kind(value: Any) -> str:
    """What a JSON value is, in a word or two: `a list of 3`, `null`, `text`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "an object"


def to_json(value: Any) -> Any:
    """A CEL result as a JSON value: times as RFC 3339, durations in seconds (`5400s`), bytes in base64.

    Keys are sorted, because CEL's maps have no order and a replay must give the same bytes. Raises ValueError when
    there is no JSON for it. The depth is CEL's, which bounds it.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return _object(value)
    return _scalar(value)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the result is {value}, which JSON has not")
    return value


def _object(value: dict[Any, Any]) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"the result has the key {key!r}, but JSON keys are text; write string({key!r})")  # noqa: TRY004
    return {key: to_json(value[key]) for key in sorted(value)}


def _scalar(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        micros = value // timedelta(microseconds=1)
        sign, (seconds, rest) = "-" if micros < 0 else "", divmod(abs(micros), 1_000_000)
        return f"{sign}{seconds}" + (f".{rest:06}".rstrip("0") if rest else "") + "s"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise ValueError(f"the result is of CEL's type {type(value).__name__}, for which there is no JSON")


def size(value: Any, most: int) -> int:
    """How much a value holds: one for each value in it and one for every 16 characters. Stops counting above `most`."""
    total = 0
    waiting: list[Any] = [value]
    while waiting and total <= most:
        item = waiting.pop()
        total += 1
        if isinstance(item, str | bytes):
            total += len(item) >> 4
        elif isinstance(item, dict):
            waiting.extend(item.values())
            total += sum(len(key) >> 4 for key in item if isinstance(key, str))
        elif isinstance(item, Sequence):
            waiting.extend(item)
    return total
