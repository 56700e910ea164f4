"""The shape of a document: what pydantic found wrong, as problems with pointers and remedies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from wf_core.errors import Problem
from wf_core.expressions.values import kind
from wf_core.schema.document import DefaultsSchema, NodeSchema, RetrySchema, WorkflowSchema
from wf_core.schema.pointers import join
from wf_core.suggest import did_you_mean

Location = Sequence[str | int]
_MEANT = {
    "needs": "depends_on",
    "after": "depends_on",
    "depends": "depends_on",
    "dependencies": "depends_on",
    "with": "params",
    "args": "params",
    "inputs": "params",
    "if": "when",
    "condition": "when",
    "uses": "task",
    "type": "task",
    "retries": "retry",
    "steps": "nodes",
    "tasks": "nodes",
}
"""What other engines call the same thing."""
_WANTED = {
    "string_type": "text",
    "int_type": "an integer",
    "float_type": "a number",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
    "bool_type": "true or false",
}


def read_structure(value: Any) -> tuple[WorkflowSchema | None, list[Problem]]:
    """The document, or what is wrong with the shape of `value`."""
    if not isinstance(value, dict):
        return None, [Problem("", "wrong_type", f"a workflow is an object with name and nodes, this is {kind(value)}")]
    try:
        return WorkflowSchema.model_validate(value), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        return None, [_problem(item, value) for item in found]


def _problem(error: Mapping[str, Any], value: Any) -> Problem:
    location = tuple(part for part in error["loc"] if part != "[key]")
    make = _SENTENCES.get(error["type"], _other)
    return make(location, error, value)


def _unknown_key(location: Location, _error: Mapping[str, Any], _value: Any) -> Problem:
    key = str(location[-1])
    model, what = _model_at(location[:-1])
    known = model.model_fields
    hint = f"; did you mean {_MEANT[key]!r}?" if _MEANT.get(key) in known else did_you_mean(key, known)
    return Problem(join(location), "unknown_key", f"{what} has no key {key!r}{hint}")


def _missing(location: Location, _error: Mapping[str, Any], _value: Any) -> Problem:
    _, what = _model_at(location[:-1])
    return Problem(join(location[:-1]), "missing_key", f"{what} needs the key {location[-1]!r}")


def _unknown_value(location: Location, error: Mapping[str, Any], value: Any) -> Problem:
    expected = error["ctx"]["expected"]
    given = _at(value, location)
    allowed = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    hint = did_you_mean(given, allowed) if isinstance(given, str) else ""
    return Problem(join(location), "unknown_value", f"must be {expected}{hint}")


def _wrong_type(location: Location, error: Mapping[str, Any], value: Any) -> Problem:
    given = _at(value, location, None)
    wanted = _WANTED[error["type"]]
    hint = "; put it in quotes" if wanted == "text" and isinstance(given, int | float) else ""
    return Problem(join(location), "wrong_type", f"must be {wanted}, this is {kind(given)}{hint}")


def _out_of_range(location: Location, error: Mapping[str, Any], _value: Any) -> Problem:
    context = error["ctx"]
    limit = f"at least {context['ge']:g}" if "ge" in context else f"at most {context['le']:g}"
    return Problem(join(location), "out_of_range", f"must be {limit}")


def _too_short(location: Location, _error: Mapping[str, Any], _value: Any) -> Problem:
    return Problem(join(location), "empty", "must not be empty")


def _pattern(location: Location, error: Mapping[str, Any], _value: Any) -> Problem:
    return Problem(join(location), "bad_text", f"must match the pattern {error['ctx']['pattern']}")


def _other(location: Location, error: Mapping[str, Any], _value: Any) -> Problem:
    return Problem(join(location), error["type"], error["msg"])


_SENTENCES: dict[str, Callable[[Location, Mapping[str, Any], Any], Problem]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "literal_error": _unknown_value,
    **dict.fromkeys(_WANTED, _wrong_type),
    "greater_than_equal": _out_of_range,
    "less_than_equal": _out_of_range,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "string_pattern_mismatch": _pattern,
}


def _model_at(location: Location) -> tuple[type[BaseModel], str]:
    if not location:
        return WorkflowSchema, "a workflow"
    if location[-1] == "retry":
        return RetrySchema, "retry"
    if location[0] == "nodes":
        return NodeSchema, "a node"
    return DefaultsSchema, "defaults"


def _at(value: Any, location: Location, default: Any = "") -> Any:
    for part in location:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return default
    return value
