"""JSON Schemas: validators that fetch nothing, and the input of an execution."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import jsonschema_rs

from wf_core import payload
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.pointers import join
from wf_core.suggest import did_you_mean

_DEEPEST = 100
_MOST_PROBLEMS = 100


def _refuse(uri: str) -> Any:
    raise ValueError(f"references to other documents are not followed: {uri}")


def schema_validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """A validator that never opens a file or a connection, whose patterns run in linear time, and that echoes no value.

    Raises jsonschema_rs.ValidationError or ValueError when the schema is none.
    """
    return jsonschema_rs.validator_for(
        schema,
        validate_formats=True,
        retriever=_refuse,
        mask="the value",
        pattern_options=jsonschema_rs.RegexOptions(),
    )


class Inputs:
    """What a document takes as input: its schema, read once for however many inputs there are."""

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._schema = schema
        self._filler = None if schema is None else _Filler(schema)
        self._validator = None if schema is None else schema_validator(schema)
        properties = {} if schema is None else schema.get("properties")
        self._keys = list(properties) if isinstance(properties, dict) else []

    def filled(self, value: Any, pointer: str = "/input") -> Any:
        """The input with the defaults of the schema filled in; None counts as `{}`.

        `value` itself is not changed. Raises DocumentError with pointers below `pointer`.
        """
        try:
            value = payload.decode(payload.encode({} if value is None else value, what="the input"))
        except PayloadError as error:
            raise DocumentError([Problem(pointer, "not_json", str(error))]) from error
        if self._filler is None or self._validator is None:
            return value
        value = self._filler.fill(self._schema, value, 0)
        if not self._validator.is_valid(value):
            raise DocumentError(list(self._problems(value, pointer)))
        return value

    def _problems(self, value: Any, pointer: str) -> Iterator[Problem]:
        assert self._validator is not None  # noqa: S101 - its schema found the value wrong
        for error in islice(self._validator.iter_errors(value), _MOST_PROBLEMS):
            yield from schema_error(error, pointer, "wrong_input", self._keys)


def validate_input(document: WorkflowSchema, value: Any) -> Any:
    """One input of a document, as `Inputs.filled`."""
    return Inputs(document.input).filled(value)


def schema_error(
    error: jsonschema_rs.ValidationError, pointer: str, code: str, known: Collection[str] = ()
) -> Iterator[Problem]:
    """The problems that one error of a validator is, for a value at `pointer` whose schema knows the keys `known`."""
    place = join(error.instance_path, pointer)
    kind = error.kind
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        known = () if error.instance_path else known
        for name in kind.unexpected:
            detail = f"there is no {name!r} here{did_you_mean(name, known)}"
            yield Problem(join([name], place), code, detail)
    elif isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        yield Problem(place, code, f"{kind.property!r} is missing")
    else:
        yield Problem(place, code, error.message)


class _Filler:
    """Puts `default`s where a property is missing: under `properties`, `items`, `allOf` and local `$ref`s."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def fill(self, schema: Any, value: Any, depth: int) -> Any:
        """`value`, changed in place. Recursion is bounded, as a schema may refer to itself."""
        if not isinstance(schema, dict) or depth > _DEEPEST:
            return value
        for part in (self._referred(schema.get("$ref")), *_list(schema.get("allOf"))):
            value = self.fill(part, value, depth + 1)
        if isinstance(value, dict):
            self._object(schema, value, depth)
        elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
            value[:] = [self.fill(items, item, depth + 1) for item in value]
        return value

    def _object(self, schema: dict[str, Any], value: dict[str, Any], depth: int) -> None:
        properties = schema.get("properties")
        for name, part in properties.items() if isinstance(properties, dict) else ():
            if name not in value and isinstance(part, dict) and "default" in part and depth < _DEEPEST:
                value[name] = copy.deepcopy(part["default"])
            if name in value:
                value[name] = self.fill(part, value[name], depth + 1)

    def _referred(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        target: Any = self._root
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, dict) else None
        return target


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def schema_problems(schema: dict[str, Any], pointer: str = "/input") -> Iterator[Problem]:
    """What is wrong with the JSON Schema that stands at `pointer` in a document."""
    try:
        schema_validator(schema)
    except jsonschema_rs.ValidationError as error:
        place = join(error.instance_path, pointer)
        yield Problem(place, "bad_schema", f"this is no JSON Schema: {error.message}")


def value_problems(schema: dict[str, Any], value: Any, pointer: str) -> Iterator[Problem]:
    """What a schema finds wrong with a value of the document at `pointer`; nothing for a schema that is none."""
    try:
        errors = list(islice(schema_validator(schema).iter_errors(value), _MOST_PROBLEMS))
    except (jsonschema_rs.ValidationError, ValueError):
        return
    for error in errors:
        yield from schema_error(error, pointer, "wrong_value")


def default_problems(schema: dict[str, Any], pointer: str = "/input") -> Iterator[Problem]:
    """The defaults in the schema at `pointer` that do not fit where they stand: whoever leaves the key out is refused.

    They are judged together, since reading a schema is what takes time.
    """
    parts = list(_with_default(schema, pointer))
    if not parts:
        return
    filler = _Filler(schema)
    values = {str(at): filler.fill(part, copy.deepcopy(part["default"]), 0) for at, (_, part) in enumerate(parts)}
    together: dict[str, Any] = {key: schema[key] for key in ("$schema", "$defs", "definitions") if key in schema}
    together["properties"] = {str(at): part for at, (_, part) in enumerate(parts)}
    for problem in value_problems(together, values, ""):
        place, _ = parts[int(problem.pointer.split("/")[1])]
        yield Problem(f"{place}/default", "wrong_default", f"the default breaks its own schema: {problem.detail}")


def _with_default(schema: dict[str, Any], pointer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each property that has a default, with its pointer, where `_Filler` looks for them."""
    waiting: list[tuple[str, Any]] = [(pointer, schema)]
    while waiting:
        here, part = waiting.pop()
        if not isinstance(part, dict):
            continue
        properties = part.get("properties")
        inner = properties.items() if isinstance(properties, dict) else ()
        below = [(join(["properties", name], here), found) for name, found in inner]
        yield from ((place, found) for place, found in below if isinstance(found, dict) and "default" in found)
        waiting += [*below, (f"{here}/items", part.get("items"))]
        waiting += [(f"{here}/allOf/{at}", found) for at, found in enumerate(_list(part.get("allOf")))]
