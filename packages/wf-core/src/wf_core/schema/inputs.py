"""JSON Schemas: validators that fetch nothing, and the input of an execution."""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

import jsonschema_rs

from wf_core import payload
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.expressions.values import size
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.pointers import child, join, parts
from wf_core.suggest import did_you_mean

_DEEPEST = 100
_MOST_PROBLEMS = 100
_STEPS = 50_000
"""Of filling in defaults: each value that is looked at by a schema, and each that a default puts in, is one."""
_STEPS_EACH = 10
"""More of them for each byte that was given."""
_CONDITIONAL = frozenset({"then", "else", "dependentSchemas", "dependencies"})
_NAMES = frozenset({"properties", "patternProperties"})
"""Keywords after which a name follows in the path of an error, not a keyword."""


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
        self._validator = None if schema is None else schema_validator(schema)
        properties = {} if schema is None else schema.get("properties")
        self._keys = list(properties) if isinstance(properties, dict) else []

    def filled(self, value: Any, pointer: str = "/input") -> Any:
        """The input with the defaults of the schema filled in; None counts as `{}`.

        `value` itself is not changed. Raises DocumentError with pointers below `pointer`.
        """
        try:
            data = payload.encode({} if value is None else value, what="the input")
        except PayloadError as error:
            raise DocumentError([Problem(pointer, "not_json", str(error))]) from error
        value = payload.decode(data)
        if self._schema is None or self._validator is None:
            return value
        try:
            _Filler(self._schema, value, len(data)).fill()
        except _TooMuchError as error:
            raise DocumentError([Problem(pointer, "too_large", str(error))]) from error
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


class _TooMuchError(Exception):
    """The defaults of a schema are too many for one input, or lead back to themselves."""

    def __init__(self) -> None:
        super().__init__(
            "the defaults of its schema take too many steps to fill in or hold too many values; see whether one leads "
            "back to itself through a `$ref`"
        )


class _Filler:
    """Puts `default`s where a property is missing: under `properties`, `items`, `allOf` and local `$ref`s.

    Depth and steps are bounded, as a schema may refer to itself, and more than once.
    """

    def __init__(self, schema: dict[str, Any], value: Any, given: int) -> None:
        """`given` is the length of the value as JSON."""
        self._root = schema
        self._value = value
        self._left = _STEPS + _STEPS_EACH * given
        self._targets: dict[str, Any] = {}
        self._defaults: dict[int, list[tuple[str, dict[str, Any], int]]] = {}
        self._sources: dict[tuple[int, str], dict[str, Any]] = {}
        """The schema whose default was put into an object (by identity) at a key."""

    def fill(self) -> None:
        """Changes the value in place. Raises _TooMuchError."""
        self._fill(self._root, self._value, 0)

    def source(self, path: Sequence[str]) -> dict[str, Any] | None:
        """The schema with the innermost default that what is now at `path` came from; None: it was given."""
        value, found = self._value, None
        for key in path:
            found = self._sources.get((id(value), key), found)
            value = value[int(key) if isinstance(value, list) else key]
        return found

    def _fill(self, schema: Any, value: Any, depth: int) -> None:
        is_container = isinstance(value, dict | list)
        self._spend(1 + len(value) if is_container else 1)
        if not is_container or not isinstance(schema, dict) or depth > _DEEPEST:
            return
        for part in (self._referred(schema.get("$ref")), *_list(schema.get("allOf"))):
            self._fill(part, value, depth + 1)
        if isinstance(value, dict):
            self._object(schema.get("properties"), value, depth)
        elif isinstance(items := schema.get("items"), dict):
            for item in value:
                self._fill(items, item, depth + 1)

    def _object(self, properties: Any, value: dict[str, Any], depth: int) -> None:
        if not isinstance(properties, dict):
            return
        for name, part, steps in self._with_default(properties) if depth < _DEEPEST else ():
            if name not in value:
                self._spend(steps)
                value[name] = copy.deepcopy(part["default"])
                self._sources[id(value), name] = part
        for name, item in value.items():
            if name in properties:
                self._fill(properties[name], item, depth + 1)

    def _with_default(self, properties: dict[str, Any]) -> list[tuple[str, dict[str, Any], int]]:
        """Those properties that have one, each with its size. Going over all of them for each value could take long."""
        if id(properties) not in self._defaults:
            self._defaults[id(properties)] = [
                (name, part, size(part["default"], sys.maxsize))
                for name, part in properties.items()
                if isinstance(part, dict) and "default" in part
            ]
        return self._defaults[id(properties)]

    def _referred(self, reference: Any) -> Any:
        if not isinstance(reference, str) or (reference != "#" and not reference.startswith("#/")):
            return None
        if reference not in self._targets:
            target: Any = self._root
            for key in parts(reference[1:]):
                target = target.get(key) if isinstance(target, dict) else None
            self._targets[reference] = target
        return self._targets[reference]

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _TooMuchError


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def schema_problems(schema: dict[str, Any], pointer: str) -> Iterator[Problem]:
    """What is wrong with the JSON Schema that stands at `pointer` in a document."""
    read = _read(schema, pointer)
    if isinstance(read, Problem):
        yield read


def input_problems(schema: dict[str, Any], pointer: str = "/input") -> Iterator[Problem]:
    """What is wrong with the schema of an input, and with the defaults that an empty input gets from it."""
    read = _read(schema, pointer)
    if isinstance(read, Problem):
        yield read
    else:
        yield from _default_problems(schema, read, pointer)


def _read(schema: dict[str, Any], pointer: str) -> jsonschema_rs.Validator | Problem:
    try:
        return schema_validator(schema)
    except jsonschema_rs.ValidationError as error:
        place = join(error.instance_path, pointer)
        return Problem(place, "bad_schema", f"this is no JSON Schema: {error.message}")


def value_problems(schema: dict[str, Any], value: Any, pointer: str) -> Iterator[Problem]:
    """What a schema finds wrong with a value of the document at `pointer`; nothing for a schema that is none."""
    try:
        errors = list(islice(schema_validator(schema).iter_errors(value), _MOST_PROBLEMS))
    except (jsonschema_rs.ValidationError, ValueError):
        return
    for error in errors:
        yield from schema_error(error, pointer, "wrong_value")


def _default_problems(schema: dict[str, Any], validator: jsonschema_rs.Validator, pointer: str) -> Iterator[Problem]:
    """The defaults because of which an empty input is refused, one problem each.

    What the user must give is missing there, so only errors in values that came from a default count; and none that
    a condition of the schema found, which may turn out otherwise for a whole input.
    """
    value: dict[str, Any] = {}
    filler = _Filler(schema, value, 0)
    try:
        filler.fill()
    except _TooMuchError as error:
        yield Problem(pointer, "too_large", str(error))
        return
    if not value or validator.is_valid(value):
        return
    wrong: dict[int, Problem] = {}
    for found in validator.iter_errors(value):
        for problem in () if _is_conditional(found) else schema_error(found, "", "wrong_default"):
            if source := filler.source(parts(problem.pointer)):
                wrong.setdefault(id(source), problem)
        if len(wrong) >= _MOST_PROBLEMS:
            break
    for place, part in _objects(schema, pointer) if wrong else ():
        if refused := wrong.pop(id(part), None):
            detail = f"this default is refused, at {refused.pointer} of the input: {refused.detail}"
            yield Problem(f"{place}/default", refused.code, detail)


def _is_conditional(error: jsonschema_rs.ValidationError) -> bool:
    path = error.evaluation_path
    return any(part in _CONDITIONAL and before not in _NAMES for before, part in pairwise(["", *path]))


def _objects(value: Any, pointer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a JSON value at `pointer`, with its own pointer."""
    waiting: list[tuple[str, Any]] = [(pointer, value)]
    while waiting:
        here, part = waiting.pop()
        if isinstance(part, dict):
            yield here, part
        inner = part.items() if isinstance(part, dict) else enumerate(_list(part))
        waiting += [(child(here, key), found) for key, found in inner if isinstance(found, dict | list)]
