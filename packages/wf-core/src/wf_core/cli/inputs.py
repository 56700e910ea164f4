"""Values from the command line and from files: `--input`, `--label`, `--payload`, `--answer`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wf_core.cli.failures import UsageError
from wf_core.errors import DocumentError

_BEGINNINGS = ("{", "[", '"')


def read_inputs(arguments: Sequence[str]) -> dict[str, Any] | None:
    """The input object that the arguments make together, later ones winning; None when there are none."""
    if not arguments:
        return None
    merged: dict[str, Any] = {}
    for argument in arguments:
        if argument.startswith("@"):
            merged.update(_object_of(argument[1:]))
        else:
            key, value = _pair(argument, "--input")
            merged[key] = _value(value, f"--input {key}=")
    return merged


def read_value(argument: str, option: str) -> Any:
    """The value of an option that takes JSON, text or `@FILE`."""
    return _file(argument[1:], option) if argument.startswith("@") else _value(argument, option)


def read_labels(arguments: Sequence[str]) -> dict[str, str]:
    """The labels that the arguments make together."""
    return dict(_pair(argument, "--label") for argument in arguments)


def _pair(argument: str, option: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals or not key:
        raise UsageError(f"{option} {argument}: write KEY=VALUE" + (" or @FILE" if option == "--input" else ""))
    return key, value


def _value(text: str, where: str) -> Any:
    """A JSON value, or the text itself where it is none (`day=2026-01-01`, `name=NaN`).

    Raises UsageError for text that begins as JSON with an object, a list or a string in it does: it is broken JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        if not text.lstrip().startswith(_BEGINNINGS):
            return text
        raise UsageError(
            f"{where}: this begins as JSON and is none: {_broken(error)}. Keys and texts stand in double quotes; what "
            "is meant as text is written as a JSON string, or comes from a file that @FILE names"
        ) from None


def _broken(error: ValueError) -> str:
    """What is wrong with JSON, and where."""
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    line = "" if error.lineno == 1 else f"line {error.lineno}, "
    return f"{error.msg[:1].lower()}{error.msg[1:]} ({line}column {error.colno})"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _object_of(name: str) -> dict[str, Any]:
    value = _file(name, "--input")
    if not isinstance(value, dict):
        raise UsageError(f"--input @{name}: the file must hold an object, not {type(value).__name__}")
    return value


def _file(name: str, option: str) -> Any:
    """What a JSON or YAML file holds; `-` is JSON on stdin."""
    from wf_core.schema.loading import load_document_file, load_json

    try:
        return load_json(sys.stdin.buffer.read()) if name == "-" else load_document_file(Path(name))
    except DocumentError as error:
        raise UsageError(f"{option} @{name}: {error.problems[0].detail}") from None
