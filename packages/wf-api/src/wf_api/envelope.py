"""The envelope around a document: `{workflow, input, labels, trigger}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wf_api.problems import of_document
from wf_core.errors import DocumentError, Problem
from wf_core.schema.document import LabelName, LabelValue
from wf_core.schema.pointers import child
from wf_core.suggest import did_you_mean

KEYS = ("workflow", "input", "labels", "trigger")
MOST_LABELS = 64
_label = TypeAdapter(dict[LabelName, LabelValue])


@dataclass(frozen=True, slots=True)
class Envelope:
    """A document, or a definition's name, with what came beside it.

    `prefix` is where the document lies in the body; no input is None.
    """

    workflow: Any
    prefix: str = ""
    input: Any = None
    labels: dict[str, str] = field(default_factory=dict)
    trigger: bool = False


def open_envelope(value: Any) -> Envelope:
    """The envelope in a body; without `nodes`, a key `workflow` makes it one. Raises the problem 422."""
    if not isinstance(value, dict) or "nodes" in value or "workflow" not in value:
        return Envelope(value)
    return envelope_of(value, KEYS)


def envelope_of(value: Mapping[str, Any], known: tuple[str, ...]) -> Envelope:
    """The envelope that `value` is, of the `known` keys and `workflow`. Raises the problem 422."""
    problems = [*unknown_keys(value, known), *_problems(value)]
    if problems:
        raise of_document(DocumentError(problems))
    return Envelope(
        workflow=value["workflow"],
        prefix="/workflow",
        input=value.get("input"),
        labels=value.get("labels") or {},
        trigger=value.get("trigger") or False,
    )


def unknown_keys(value: Mapping[str, Any], known: tuple[str, ...]) -> list[Problem]:
    """A problem for each key that is not known, with its nearest known spelling."""
    return [
        Problem(
            child("", key), "unknown_key", f"{key[:100]!r} is not known here{did_you_mean(key, known) or _list(known)}"
        )
        for key in value
        if key not in known
    ]


def _problems(value: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if not isinstance(value["workflow"], dict | str):
        detail = "`workflow` takes a document (an object with `name` and `nodes`), or the name of a definition."
        problems.append(Problem("/workflow", "wrong_type", detail))
    if not isinstance(value.get("trigger"), bool | None):
        problems.append(Problem("/trigger", "wrong_type", "`trigger` is true or false."))
    labels = value.get("labels")
    if not isinstance(labels, dict | None):
        problems.append(Problem("/labels", "wrong_type", "`labels` is an object of texts."))
    elif labels:
        problems += _label_problems(labels)
    return problems


def _label_problems(labels: Mapping[str, Any]) -> list[Problem]:
    if len(labels) > MOST_LABELS:
        return [Problem("/labels", "too_many", f"An execution has at most {MOST_LABELS} labels.")]
    detail = "A label is a text of at most 200 characters under a name of 1 to 100 without `=`, each on one line."
    return [
        Problem(child("/labels", name), "wrong_label", detail)
        for name, text in labels.items()
        if not _is_label(name, text)
    ]


def _is_label(name: str, text: Any) -> bool:
    try:
        _label.validate_python({name: text})
    except ValidationError:
        return False
    return True


def _list(known: tuple[str, ...]) -> str:
    return f"; known: {', '.join(known)}"
