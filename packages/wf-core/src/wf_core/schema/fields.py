"""What the fields of a document may hold: names, durations, conditions, templates, and the sentences about others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictStr, WithJsonSchema
from pydantic.functional_validators import AfterValidator, PlainValidator
from pydantic_core import PydanticCustomError

from wf_core.durations import moment_ms, parse_duration_ms

JoinRule = Literal[
    "all_success",
    "all_done",
    "all_failed",
    "any_success",
    "any_failed",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "always",
]
JOIN_RULES: frozenset[str] = frozenset(get_args(JoinRule))
LONGEST_ID = 200
DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 5
_BAD_IN_ID = re.compile(r"[/\[\]#\x00-\x1f\x7f-\x9f]")
_BAD_IN_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@lru_cache(maxsize=1024, typed=True)
def duration_ms(value: str | float) -> int:
    """Milliseconds of a duration; documents use few different ones. Raises ValueError."""
    try:
        return parse_duration_ms(value)
    except OverflowError as error:
        raise ValueError("a duration is at most 100 years") from error


def milliseconds(duration: str | float | None) -> int | None:
    """Milliseconds of a duration that may be missing. Raises ValueError."""
    return None if duration is None else duration_ms(duration)


def _duration(value: Any) -> str | int | float:
    if not isinstance(value, str | int | float):
        raise PydanticCustomError(
            "bad_duration", "a duration is a text such as 90s, 5m or PT5M, or a number of seconds"
        )
    try:
        duration_ms(value)
    except ValueError as error:
        raise PydanticCustomError("bad_duration", "{reason}", {"reason": str(error)}) from error
    return value


def _positive(value: str | float) -> str | int | float:
    if duration_ms(value) == 0:
        raise PydanticCustomError("bad_duration", "this duration must be longer than nothing, 1 ms or more")
    return value


def _condition(value: Any) -> str | bool:
    if not isinstance(value, str | bool):
        raise PydanticCustomError("wrong_type", "a condition is a CEL expression, true or false")
    return value


def check_id(value: str) -> str | None:
    """What is wrong with a node id, as a sentence; None when nothing is."""
    if not value:
        return "an id must not be empty"
    if len(value) > LONGEST_ID:
        return f"an id has at most {LONGEST_ID} characters, this one has {len(value)}"
    if match := _BAD_IN_ID.search(value):
        return f"an id may hold no / [ ] # or control character, this one holds {match.group()!r}"
    return None


def _line(value: str) -> str:
    if _BAD_IN_TEXT.search(value):
        raise PydanticCustomError("bad_text", "no control characters or line breaks are allowed here")
    return value


_DURATION_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string", "examples": ["200ms", "5m", "1h30m", "PT5M"]}, {"type": "number", "minimum": 0}],
    "description": "200ms, 1.5s, 5m, 1h30m, 2d, ISO 8601 (PT5M), or a number of seconds",
}
Duration = Annotated[Any, PlainValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
PositiveDuration = Annotated[
    Any, PlainValidator(_duration), AfterValidator(_positive), WithJsonSchema(_DURATION_SCHEMA)
]
Condition = Annotated[
    Any, PlainValidator(_condition), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "boolean"}]})
]
Line = Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_ID), AfterValidator(_line)]
PolicyName = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
LabelName = Annotated[StrictStr, Field(pattern=r"^[^=\x00-\x1f\x7f]{1,100}$")]
LabelValue = Annotated[StrictStr, Field(max_length=LONGEST_ID), AfterValidator(_line)]


class Part(BaseModel):
    """A part of a document: unknown keys are errors, and no message repeats what was sent."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


def is_template(value: Any) -> bool:
    """Whether it is text that holds a template."""
    return isinstance(value, str) and "${{" in value


def templates_in(value: Any) -> Iterator[tuple[str | int, ...]]:
    """Where strings with templates stand."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        if is_template(item):
            yield path
        elif isinstance(item, dict):
            waiting += [((*path, key), below) for key, below in item.items()]
        elif isinstance(item, list):
            waiting += [((*path, index), below) for index, below in enumerate(item)]


def _some_duration(value: Any) -> str | int | float:
    return value if is_template(value) else _positive(_duration(value))


def _moment(value: Any) -> str:
    """A time with its offset, or a template that gives one."""
    if is_template(value):
        return str(value)
    try:
        moment_ms(value)
    except ValueError as error:
        raise PydanticCustomError("bad_time", "{reason}", {"reason": str(error)}) from error
    return str(value)


def _items(value: Any) -> Any:
    if isinstance(value, list) or is_template(value):
        return value
    raise PydanticCustomError("wrong_type", "must be a list, or a template that gives one")


def _node_template(value: Any) -> str:
    if is_template(value):
        return str(value)
    raise PydanticCustomError(
        "wrong_type", "must be a template that gives a map of nodes, such as ${{ nodes.plan.output }}"
    )


def tolerance(value: Any) -> tuple[int, float | None]:
    """How many items may fail: a count, and a share of all items (0 to 1) where a percentage was given.

    Raises ValueError for what is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, None
    if isinstance(value, str) and (match := _PERCENTAGE.fullmatch(value.strip())) and float(match[1]) <= _ALL:
        return 0, float(match[1]) / _ALL
    raise ValueError('must be a number of items, 0 or more, or a percentage such as "10%"')


def _tolerance(value: Any) -> Any:
    try:
        tolerance(value)
    except ValueError as error:
        raise PydanticCustomError("bad_tolerance", "{reason}", {"reason": str(error)}) from error
    return value


def _on_timeout(value: Any) -> Any:
    if value in ("fail", "skip") or (isinstance(value, dict) and list(value) == ["value"]):
        return value
    raise PydanticCustomError("unknown_value", "must be 'fail', 'skip' or an object that holds `value`")


def _error(value: Any) -> Any:
    parts = {"message": value} if isinstance(value, str) else value
    is_error = isinstance(parts, dict) and "message" in parts and set(parts) <= {"type", "message"}
    if is_error and all(isinstance(part, str) for part in parts.values()):
        return value
    raise PydanticCustomError(
        "wrong_type", "an error is text, or an object with `message` and perhaps `type`, both text"
    )


_ALL = 100
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%")
_TEMPLATE_SCHEMA: dict[str, Any] = {"type": "string", "pattern": r"\$\{\{", "examples": ["${{ nodes.list.output }}"]}
SomeDuration = Annotated[Any, PlainValidator(_some_duration), WithJsonSchema(_DURATION_SCHEMA)]
"""A duration, or a template that gives one."""
Moment = Annotated[
    Any,
    PlainValidator(_moment),
    WithJsonSchema({"type": "string", "examples": ["2026-07-01T09:00:00Z", "${{ input.opens_at }}"]}),
]
Items = Annotated[Any, PlainValidator(_items), WithJsonSchema({"anyOf": [{"type": "array"}, _TEMPLATE_SCHEMA]})]
NodeTemplate = Annotated[Any, PlainValidator(_node_template), WithJsonSchema(_TEMPLATE_SCHEMA)]
Tolerance = Annotated[
    Any,
    PlainValidator(_tolerance),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": "^[0-9.]+ ?%$", "examples": ["10%"]},
            ]
        }
    ),
]
OnTimeout = Annotated[
    Any,
    PlainValidator(_on_timeout),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["fail", "skip"]},
                {"type": "object", "required": ["value"], "properties": {"value": {}}, "additionalProperties": False},
            ]
        }
    ),
]
ErrorValue = Annotated[
    Any,
    PlainValidator(_error),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "required": ["message"],
                    "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
QueueName = Annotated[StrictStr, Field(pattern=r"^[a-z0-9._-]{1,60}$")]
