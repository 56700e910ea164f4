"""From bytes to JSON values, strictly: what would be read differently by someone else is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic_core

from wf_core.collector import collector_paused
from wf_core.errors import Problem, UnparsableError
from wf_core.schema.pointers import child
from wf_core.schema.yaml import load_yaml, yaml_lines

__all__ = ["DEEPEST", "load_document_file", "load_json", "load_yaml", "yaml_lines"]

DEEPEST = 100
_MOST_PROBLEMS = 100
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_HUGE = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{300}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(set(range(256)).difference(b"[]{}"))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")


def load_json(data: bytes, *, max_depth: int = DEEPEST) -> Any:
    """The value of JSON text (RFC 8259, UTF-8).

    Raises UnparsableError for what is no JSON, NaN and Infinity, numbers beyond a double, lone surrogates, duplicate
    keys (each with its pointer) and more than `max_depth` levels. Time and memory are linear.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    with collector_paused():
        try:
            value = pydantic_core.from_json(data, allow_inf_nan=False, cache_strings="keys")
        except ValueError as error:
            raise UnparsableError([_syntax_problem(data, str(error), max_depth)]) from None
        bare = _STRING.sub(b"", data)
        if _is_deeper(bare, max_depth):
            raise UnparsableError([_too_deep(max_depth)])
        if _HUGE.search(bare) and not _is_finite(value):
            raise UnparsableError([Problem("", "bad_number", "a number is too large for a double, 1.8e308 at most")])
        if bare.count(b":") != _count_keys(value):
            raise UnparsableError(_duplicates(data))
    return value


def load_document_file(path: Path) -> Any:
    """The value of a `.yaml`, `.yml` or `.json` file. Raises OSError when it cannot be read, UnparsableError else."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return load_json(path.read_bytes())
    if suffix in (".yaml", ".yml"):
        return load_yaml(path.read_bytes())
    raise UnparsableError([Problem("", "unknown_format", f"{path.name} must end in .yaml, .yml or .json")])


def _syntax_problem(data: bytes, message: str, max_depth: int) -> Problem:
    if message.startswith("recursion limit exceeded"):
        return _too_deep(max_depth)
    if not data.strip():
        return Problem("", "bad_json", "the body is empty")
    if match := re.search(rb"(?<![\w\"])(?:NaN|-?Infinity)(?![\w\"])", _STRING.sub(b"", data)):
        return Problem("", "bad_json", f"{match.group().decode()} is no JSON value ({message})")
    if "hex escape" in message and _SURROGATE.search(data):
        return Problem("", "bad_json", f"a lone surrogate is no text ({message})")
    return Problem("", "bad_json", f"this is no JSON: {message}")


def _too_deep(max_depth: int) -> Problem:
    return Problem("", "too_deep", f"arrays and objects are nested more than {max_depth} deep")


def _is_deeper(bare: bytes, max_depth: int) -> bool:
    """`bare` is valid JSON without its strings: each round takes away the innermost brackets."""
    brackets = bare.translate(_AS_SQUARE, _NOT_BRACKETS)
    for _ in range(max_depth):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _containers(value: Any) -> Iterator[dict[str, Any] | list[Any]]:
    waiting = [value] if isinstance(value, dict | list) else []
    while waiting:
        container = waiting.pop()
        yield container
        items = container.values() if type(container) is dict else container
        waiting += [item for item in items if type(item) is dict or type(item) is list]


def _count_keys(value: Any) -> int:
    return sum(len(container) for container in _containers(value) if type(container) is dict)


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return all(
        math.isfinite(item)
        for container in _containers(value)
        for item in (container.values() if isinstance(container, dict) else container)
        if isinstance(item, float)
    )


class _Pairs(list[tuple[str, Any]]):
    """An object with every key that it was written with."""


def _duplicates(data: bytes) -> list[Problem]:
    problems: list[Problem] = []
    waiting: list[tuple[str, Any]] = [("", json.loads(data, object_pairs_hook=_Pairs))]
    while waiting and len(problems) < _MOST_PROBLEMS:
        pointer, value = waiting.pop()
        if isinstance(value, _Pairs):
            problems += _repeated(value, pointer)
            waiting += [(child(pointer, key), item) for key, item in value]
        elif isinstance(value, list):
            waiting += [(child(pointer, index), item) for index, item in enumerate(value)]
    return problems[:_MOST_PROBLEMS]


def _repeated(pairs: _Pairs, pointer: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            detail = f"the key {key!r} stands here twice; one of them would be lost"
            yield Problem(child(pointer, key), "duplicate_key", detail)
        seen.add(key)
