"""YAML documents by the 1.2 core schema: `no` and `on` are text, `012` is 12, tags are refused and aliases capped."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from typing import Any

import yaml  # type: ignore[import-untyped]

from wf_core.collector import collector_paused
from wf_core.errors import Problem, UnparsableError
from wf_core.schema.pointers import join

_MOST_ALIASED = 100_000
"""Values that aliases may add in all: nine lines of aliases to aliases otherwise make a billion."""
_DEEPEST = 100
_MOST_PROBLEMS = 100
_MOST_DIGITS = 4000
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_FIRST = frozenset("+-.0123456789nNtTfF~")


def load_yaml(data: bytes) -> Any:
    """The value of one YAML document in UTF-8.

    Raises UnparsableError, each problem with its line: for what is no YAML, for tags, for keys that stand twice or are
    no scalars, for infinities and NaN, for more than 100 levels, and for aliases that multiply.
    """
    with collector_paused():
        return _Builder().build(data)


def yaml_lines(data: bytes, pointers: Collection[str]) -> dict[str, int]:
    """Lines, from 1, on which what `pointers` point to begins, its key included; what is not there is left out."""
    builder = _Builder(frozenset(pointers))
    builder.build(data)
    return builder.lines


class _Frame:
    """A sequence or mapping that is being read."""

    __slots__ = ("anchor", "key", "size", "value")

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: str | None = None
        self.size = 1


class _Builder:
    def __init__(self, wanted: frozenset[str] = frozenset()) -> None:
        self.lines: dict[str, int] = {}
        self._wanted = wanted
        self._problems: list[Problem] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._aliased = 0
        self._documents: list[Any] = []

    def build(self, data: bytes) -> Any:
        try:
            for event in _events(data):
                self._take(event)
        except yaml.YAMLError as error:
            self._problems.append(_syntax_problem(error))
        if not self._problems and len(self._documents) != 1:
            detail = "the body is empty" if not self._documents else "one document is expected, not several with ---"
            self._problems.append(Problem("", "bad_yaml", detail))
        if self._problems:
            raise UnparsableError(self._problems)
        return self._documents[0]

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            frame = self._stack.pop()
            self._place(frame.value, frame.size, frame.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)

    def _open(self, event: Any) -> None:
        if self._awaits_key():
            self._fatal(event, "bad_key", "a key must be a plain text, not a mapping or a list")
        self._check_tag(event)
        self._note_line(event)
        if len(self._stack) == _DEEPEST:
            self._fatal(event, "too_deep", f"lists and mappings are nested more than {_DEEPEST} deep")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._stack.append(_Frame({} if is_mapping else [], event.anchor))

    def _scalar(self, event: Any) -> None:
        self._check_tag(event)
        if self._awaits_key():
            self._key(event)
            return
        self._note_line(event)
        text = event.value
        is_text = bool(event.style) or (text != "" and text[0] not in _FIRST)
        self._place(text if is_text else self._plain(event, text), 1, event.anchor)

    def _plain(self, event: Any, text: str) -> Any:
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > _MOST_DIGITS:
                self._problem(event, "bad_number", f"an integer has {len(text)} digits; the limit is {_MOST_DIGITS}")
                return 0
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and not math.isfinite(float(text))):
            self._problem(event, "bad_number", "infinities and NaN have no place in JSON")
            return 0
        return float(text) if _FLOAT.fullmatch(text) else text

    def _key(self, event: Any) -> None:
        """Keys are what is written: `012` and `no` name themselves."""
        frame = self._stack[-1]
        frame.key = event.value
        self._note_line(event)
        if event.value in frame.value:
            self._problem(
                event, "duplicate_key", f"the key {event.value!r} stands here twice; one of them would be lost"
            )
        if event.anchor:
            self._anchors[event.anchor] = (event.value, 1)

    def _alias(self, event: Any) -> None:
        if self._awaits_key():
            self._fatal(event, "bad_key", "a key must be written out, not be an alias")
        if event.anchor not in self._anchors:
            self._fatal(event, "bad_alias", f"the alias *{event.anchor} names no anchor above that is complete")
        value, size = self._anchors[event.anchor]
        self._note_line(event)
        self._aliased += size
        if self._aliased > _MOST_ALIASED:
            self._fatal(event, "too_many_aliases", f"aliases add more than {_MOST_ALIASED:,} values")
        self._place(value, size, None)

    def _awaits_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None

    def _place(self, value: Any, size: int, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = (value, size)
        if not self._stack:
            self._documents.append(value)
            return
        frame = self._stack[-1]
        frame.size += size
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is not None:
            frame.value[frame.key] = value
            frame.key = None

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None:
            self._problem(event, "bad_tag", f"the tag {event.tag!r} is not allowed; documents hold plain values only")

    def _note_line(self, event: Any) -> None:
        if self._wanted:
            pointer = self._pointer()
            if pointer in self._wanted:
                self.lines.setdefault(pointer, event.start_mark.line + 1)

    def _pointer(self) -> str:
        """Where the next value will stand; where a key is awaited, the mapping that awaits it."""
        parts = [len(f.value) if isinstance(f.value, list) else f.key for f in self._stack]
        return join(part for part in parts if part is not None)

    def _problem(self, event: Any, code: str, detail: str) -> None:
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(Problem(self._pointer(), code, f"line {event.start_mark.line + 1}: {detail}"))

    def _fatal(self, event: Any, code: str, detail: str) -> None:
        self._problem(event, code, detail)
        raise UnparsableError(self._problems)


def _events(data: bytes) -> Iterator[Any]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UnparsableError([Problem("", "bad_yaml", f"line {line}: this is not UTF-8")]) from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yield from yaml.parse(text, Loader=loader)


def _syntax_problem(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return Problem("", "bad_yaml", f"{place}this is no YAML: {what}")
