"""The envelope around a document: `{workflow, input, labels, trigger}`, or with `inputs` for a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wf_api.problems import of_document
from wf_core.errors import DocumentError, Problem
from wf_core.schema.document import LabelName, LabelValue
from wf_core.schema.pointers import child
from wf_core.suggest import did_you_mean

KEYS = ("workflow", "input", "labels", "trigger")
BATCH_KEYS = ("workflow", "inputs", "labels", "trigger")
MOST_INPUTS = 1000
"""Executions of one batch."""
MOST_LABELS = 64
_label = TypeAdapter(dict[LabelName, LabelValue])


@dataclass(frozen=True, slots=True)
class Envelope:
    """A document, or a definition's name, with what came beside it.

    `prefix` is where the document lies in the body. There is an input for each execution; None is none.
    """

    workflow: Any
    prefix: str = ""
    inputs: tuple[Any, ...] = (None,)
    labels: dict[str, str] = field(default_factory=dict)
    trigger: bool = False
    is_batch: bool = False

    @property
    def given(self) -> Any:
        """What the body says of inputs: the one, or the list of a batch."""
        return list(self.inputs) if self.is_batch else self.inputs[0]

    def placed(self) -> Iterator[tuple[str, Any]]:
        """The inputs, each with the pointer to its place in the body."""
        if not self.is_batch:
            yield "/input", self.inputs[0]
            return
        for index, value in enumerate(self.inputs):
            yield f"/inputs/{index}", value


def open_envelope(value: Any) -> Envelope:
    """The envelope in a body; without `nodes`, a key `workflow` makes it one. Raises the problem 422."""
    if not isinstance(value, dict) or "nodes" in value or "workflow" not in value:
        return Envelope(value)
    return envelope_of(value, KEYS)


def open_batch(value: Any) -> Envelope:
    """The envelope of a batch in a body. Raises the problem 422."""
    if not isinstance(value, dict):
        detail = "The body is an object with `workflow` and `inputs`, a list with the input of each execution."
        raise of_document(DocumentError([Problem("", "wrong_type", detail)]))
    return envelope_of(value, BATCH_KEYS)


def envelope_of(value: Mapping[str, Any], known: tuple[str, ...]) -> Envelope:
    """The envelope that `value` is, of the `known` keys and `workflow`. Raises the problem 422."""
    problems = [*unknown_keys(value, known), *_problems(value)]
    if "inputs" in known:
        problems += _input_problems(value.get("inputs"))
    if problems:
        raise of_document(DocumentError(problems))
    is_batch = "inputs" in known
    return Envelope(
        workflow=value["workflow"],
        prefix="/workflow",
        inputs=tuple(value["inputs"]) if is_batch else (value.get("input"),),
        is_batch=is_batch,
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
    if not isinstance(value.get("workflow"), dict | str):
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


def _input_problems(inputs: Any) -> list[Problem]:
    if not isinstance(inputs, list) or not inputs:
        detail = "`inputs` is a list with the input of each execution; null stands for none."
        return [Problem("/inputs", "wrong_type", detail)]
    if len(inputs) > MOST_INPUTS:
        detail = f"A batch has at most {MOST_INPUTS:,} inputs, not {len(inputs):,}; send several batches."
        return [Problem("/inputs", "too_many", detail)]
    return []


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
