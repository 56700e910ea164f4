"""Documents as a test has them at hand: a file, a text, JSON values, a builder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wf_core.errors import DocumentError, Problem
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.inputs import schema_validator
from wf_core.schema.loading import load_document_file, load_yaml
from wf_core.schema.validation import parse_document

_SUFFIXES = (".yaml", ".yml", ".json")


def read_document(source: Any) -> WorkflowSchema:
    """The document in `source`: its JSON values, a builder, YAML or JSON text, or the path of a file.

    A `name` may be left out. Raises DocumentError with every problem, OSError for a file that cannot be read.
    """
    if isinstance(source, WorkflowSchema):
        return source
    value = _value(source)
    if isinstance(value, dict) and "name" not in value:
        value = {"name": "test", **value}
    return parse_document(value)


def check_answer(schema: Mapping[str, Any], answer: Any) -> None:
    """Raises DocumentError when the JSON Schema of an approval refuses an answer."""
    problems = [
        Problem("/answer", "wrong_answer", e.message) for e in schema_validator(dict(schema)).iter_errors(answer)
    ]
    if problems:
        raise DocumentError(problems)


def _value(source: Any) -> Any:
    if hasattr(source, "to_dict"):
        return source.to_dict()
    if isinstance(source, str) and "\n" not in source and source.endswith(_SUFFIXES):
        source = Path(source)
    if isinstance(source, Path):
        return load_document_file(source)
    if isinstance(source, str | bytes):
        return load_yaml(source.encode() if isinstance(source, str) else source)
    return source
