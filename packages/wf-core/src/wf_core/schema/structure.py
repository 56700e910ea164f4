"""The shape of a document: what pydantic found wrong, as problems with pointers and remedies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from wf_core.errors import Problem
from wf_core.expressions.values import kind
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.models import Place, locate
from wf_core.schema.nodes import KINDS, TaskSchema
from wf_core.schema.pointers import join
from wf_core.schema.words import unknown_key_hint, unknown_kind_hint
from wf_core.suggest import did_you_mean

Location = Sequence[str | int]
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
    place = locate(error["loc"])
    make = _SENTENCES.get(error["type"], _other)
    return make(place, error, value)


def _unknown_key(place: Place, _error: Mapping[str, Any], value: Any) -> Problem:
    key = str(place.path[-1])
    hint = unknown_key_hint(key, place.model, _at(value, place.path[:-1], None))
    return Problem(join(place.path), "unknown_key", f"{place.what} has no key {key!r}{hint}")


def _missing(place: Place, error: Mapping[str, Any], value: Any) -> Problem:
    above, key = place.path[:-1], place.path[-1]
    place = locate(error["loc"][:-1])  # what lacks the key, not what the key holds
    node = _at(value, above, {})
    assumed = " (`kind` is task where it is not written)" if place.model is TaskSchema and "kind" not in node else ""
    return Problem(join(above), "missing_key", f"{place.what}{assumed} needs the key {key!r}")


def _unknown_kind(place: Place, _error: Mapping[str, Any], value: Any) -> Problem:
    given = _at(value, (*place.path, "kind"))
    hint = unknown_kind_hint(given) if isinstance(given, str) else ""
    kinds = ", ".join(map(repr, KINDS))
    return Problem(join((*place.path, "kind")), "unknown_value", f"must be one of {kinds}{hint}")


def _unknown_value(place: Place, error: Mapping[str, Any], value: Any) -> Problem:
    expected = error["ctx"]["expected"]
    given = _at(value, place.path)
    allowed = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    hint = did_you_mean(given, allowed) if isinstance(given, str) else ""
    return Problem(join(place.path), "unknown_value", f"must be {expected}{hint}")


def _wrong_type(place: Place, error: Mapping[str, Any], value: Any) -> Problem:
    given = _at(value, place.path, None)
    wanted = _WANTED[error["type"]]
    hint = "; put it in quotes" if wanted == "text" and isinstance(given, int | float) else ""
    return Problem(join(place.path), "wrong_type", f"must be {wanted}, this is {kind(given)}{hint}")


def _out_of_range(place: Place, error: Mapping[str, Any], _value: Any) -> Problem:
    context = error["ctx"]
    limit = f"at least {context['ge']:g}" if "ge" in context else f"at most {context['le']:g}"
    return Problem(join(place.path), "out_of_range", f"must be {limit}")


def _too_short(place: Place, _error: Mapping[str, Any], _value: Any) -> Problem:
    return Problem(join(place.path), "empty", "must not be empty")


def _pattern(place: Place, error: Mapping[str, Any], _value: Any) -> Problem:
    return Problem(join(place.path), "bad_text", f"must match the pattern {error['ctx']['pattern']}")


def _other(place: Place, error: Mapping[str, Any], _value: Any) -> Problem:
    return Problem(join(place.path), error["type"], error["msg"])


_SENTENCES: dict[str, Callable[[Place, Mapping[str, Any], Any], Problem]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_invalid": _unknown_kind,
    "literal_error": _unknown_value,
    **dict.fromkeys(_WANTED, _wrong_type),
    "greater_than_equal": _out_of_range,
    "less_than_equal": _out_of_range,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "string_pattern_mismatch": _pattern,
}


def _at(value: Any, location: Location, default: Any = "") -> Any:
    for part in location:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return default
    return value
