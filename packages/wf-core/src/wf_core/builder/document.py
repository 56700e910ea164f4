"""`with workflow("orders-etl") as wf:` builds the same document that one writes by hand."""

from __future__ import annotations

import copy
import json
from typing import Any, Self

import yaml  # type: ignore[import-untyped]

from wf_core.builder.bodies import Body, InsideUse, Site, rendered
from wf_core.builder.making import Makes
from wf_core.builder.terms import BuildError, Term
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.loading import load_yaml
from wf_core.schema.validation import parse_document


class _Quoting(yaml.SafeDumper):  # type: ignore[misc]  # the library has no types
    """Writes every text in quotes."""


def _dump(value: Any, dumper: Any) -> str:
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


_Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


class Workflow(Makes):
    """A workflow that is being built. Made by `workflow`; nodes go into the innermost open `with` block."""

    def __init__(self, head: dict[str, Any]) -> None:
        self._site = Site()
        self._root = Body(self._site, None, "", True)
        self._final = Body(self._site, self._root, "finally")
        self._head = head
        self._output: Any = None

    def __enter__(self) -> Self:
        self._site.open.append(self._root)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._site.open.pop()
        if kind is None:
            self.document()

    def _place(self) -> Body:
        return self._site.open[-1] if self._site.open else self._root

    @property
    def input(self) -> Term:
        """The execution's input."""
        return Term("input", (InsideUse(self._root, "input"),))

    @property
    def execution(self) -> Term:
        """The execution itself: `id`, `started_at`; in `finally_` also `status` and `error`."""
        return Term("execution")

    def finally_(self) -> _Finally:
        """`with wf.finally_():` makes nodes that run when everything else has ended, however it ended."""
        return _Finally(self._site, self._final)

    def returns(self, value: Any) -> None:
        """The execution's output, in place of the output of its only leaf."""
        self._output = rendered(value, self._root)

    def concurrency(self, key: Any, limit: int = 1, on_conflict: str | None = None) -> None:
        """How many executions with the same key, an expression over `wf.input`, may run at once."""
        fields = {"key": rendered(key, self._root), "limit": limit, "on_conflict": on_conflict}
        self._head["concurrency"] = {name: value for name, value in fields.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON values."""
        document = {**self._head, "nodes": self._root.nodes}
        if self._final.nodes:
            document["finally"] = self._final.nodes
        if self._output is not None:
            document["output"] = self._output
        return copy.deepcopy(document)

    def to_json(self) -> str:
        """The document as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    def to_yaml(self) -> str:
        """The document as YAML text."""
        value = self.to_dict()
        text = _dump(value, yaml.SafeDumper)
        # Where YAML 1.2 would read a text as something else, every text comes in quotes.
        return text if load_yaml(text.encode()) == value else _dump(value, _Quoting)

    def document(self) -> WorkflowSchema:
        """The document, validated. Raises DocumentError with every problem."""
        return parse_document(self.to_dict())

    def __repr__(self) -> str:
        return f"<workflow {self._head['name']!r}>"


class _Finally:
    def __init__(self, site: Site, body: Body) -> None:
        self._site = site
        self._body = body

    def __enter__(self) -> None:
        self._site.open.append(self._body)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._site.open.pop()


def workflow(  # noqa: PLR0913 - the fields of a document, all by name
    name: str,
    *,
    description: str | None = None,
    version: str | None = None,
    labels: dict[str, str] | None = None,
    input: Any = None,  # noqa: A002 - the document's own word
    retry: dict[str, Any] | None = None,
    timeout: Any = None,
    node_timeout: Any = None,
    on_failure: str | None = None,
    max_parallel: int | None = None,
    scheduling: str | None = None,
) -> Workflow:
    """Begins a workflow, to be used in a `with` statement; leaving its block checks the document.

    `input` is a JSON Schema, or a pydantic model; `retry` and `node_timeout` are the defaults of every node, `timeout`
    is of the whole execution.
    """
    defaults = {"retry": retry, "timeout": node_timeout}
    fields: dict[str, Any] = {
        "name": name,
        "description": description,
        "version": version,
        "labels": labels,
        "input": _schema(input),
        "defaults": {key: value for key, value in defaults.items() if value is not None} or None,
        "timeout": timeout,
        "on_failure": on_failure,
        "max_parallel": max_parallel,
        "scheduling": scheduling,
    }
    place = Body(Site(), None, "", True)
    head = {key: rendered(value, place) for key, value in fields.items() if value is not None}
    return Workflow(head)


def _schema(given: Any) -> Any:
    if given is None or isinstance(given, dict):
        return given
    if hasattr(given, "model_json_schema"):
        return given.model_json_schema()
    raise BuildError(f"the input of a workflow is a JSON Schema or a pydantic model, not {given!r}")
