"""Cases in a YAML file: what a workflow is given, what stands in for its tasks, and what is expected of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from wf_core.durations import parse_duration_ms
from wf_core.errors import DocumentError, Problem
from wf_core.schema.loading import load_document_file
from wf_core.schema.pointers import join
from wf_core.suggest import did_you_mean
from wf_orchestrator.testing.harness import run
from wf_orchestrator.testing.run import Run
from wf_orchestrator.testing.stubs import Stub, answers, stub


def _duration(value: str | float | None) -> str | float | None:
    if value is not None:
        parse_duration_ms(value)
    return value


_Duration = Annotated[str | float, AfterValidator(_duration)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ErrorSchema(_Part):
    """An error: of a reply, or one that is expected."""

    type: str | None = None
    message: str = ""


class ReplySchema(_Part):
    """What answers one attempt: a value or an error, after `takes` of virtual time."""

    returns: Any = None
    raises: ErrorSchema | None = None
    takes: _Duration = 0

    def stub(self) -> Stub:
        """The reply for the harness."""
        if self.raises is None:
            return stub(self.returns, takes=self.takes)
        kind = type(self.raises.type or "Exception", (Exception,), {})
        return stub(kind(self.raises.message), takes=self.takes)


_ONE, _SEVERAL = "<reply>", "<replies>"
_IN_CASE = 2
"""Parts of the path of a case, `/cases/0`."""


def _count(replies: Any) -> str:
    return _SEVERAL if isinstance(replies, list) else _ONE


_Reply = Annotated[
    Annotated[ReplySchema, Tag(_ONE)] | Annotated[list[ReplySchema], Tag(_SEVERAL)], Discriminator(_count)
]
Replies = dict[str, _Reply]


class ExpectSchema(_Part):
    """What a run has to show; what is not named may be anything. `error.message` is a part of the message."""

    status: Literal["COMPLETED", "FAILED", "CANCELLED", "RUNNING", "PAUSED"] = "COMPLETED"
    output: Any = None
    error: ErrorSchema | None = None
    nodes: dict[str, str] = Field(default_factory=dict)
    """Path → status."""
    outputs: dict[str, Any] = Field(default_factory=dict)
    """Path → output."""
    elapsed: _Duration | None = None
    """At most so much virtual time."""


class CaseSchema(_Part):
    """One run."""

    name: str
    input: Any = None
    tasks: Replies = Field(default_factory=dict)
    nodes: Replies = Field(default_factory=dict)
    signals: dict[str, Any] = Field(default_factory=dict)
    approvals: dict[str, Any] = Field(default_factory=dict)
    slots: int | None = Field(None, ge=1)
    expect: ExpectSchema = ExpectSchema()


class CasesSchema(_Part):
    """A file of cases. Documents are written in it, or are paths from where it lies."""

    workflow: str | dict[str, Any]
    definitions: dict[str, str | dict[str, Any]] = Field(default_factory=dict)
    tasks: Replies = Field(default_factory=dict)
    """Of all cases."""
    cases: list[CaseSchema] = Field(min_length=1)


def read_cases(file: Path) -> CasesSchema:
    """The cases of a YAML or JSON file. Raises DocumentError with every problem, OSError when it cannot be read."""
    try:
        return CasesSchema.model_validate(load_document_file(file))
    except ValidationError as error:
        raise DocumentError([_problem(e, file) for e in error.errors(include_url=False, include_input=False)]) from None


def _problem(error: Mapping[str, Any], file: Path) -> Problem:
    """What pydantic found, in the words of the file."""
    path = [part for part in error["loc"] if part not in (_ONE, _SEVERAL)]
    kind, key = error["type"], str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        known = sorted(_part(path[:-1]).model_fields)
        sentence = f"there is no key {key!r} here{did_you_mean(key, known)}; keys are: {', '.join(known)}"
    else:
        sentence = {
            "missing": f"the key {key!r} is needed",
            "literal_error": f"must be {error.get('ctx', {}).get('expected')}",
            "model_type": f"must be an object with these keys: {', '.join(sorted(_part(path).model_fields))}",
            "too_short": "one is needed at least",
            "value_error": str(error.get("ctx", {}).get("error")),
        }.get(kind, error["msg"])
    return Problem(join(path), kind, f"{file.name}: {sentence}")


def _part(path: Sequence[str | int]) -> type[BaseModel]:
    """What stands at a place of the file."""
    if len(path) > 1 and path[-2] in ("tasks", "nodes"):
        return ReplySchema
    last = path[-1] if path else ""
    if last in ("error", "raises"):
        return ErrorSchema
    if last == "expect":
        return ExpectSchema
    return ReplySchema if len(path) > _IN_CASE else CaseSchema if path else CasesSchema


def run_case(cases: CasesSchema, case: CaseSchema, folder: Path) -> list[str]:
    """What a case shows otherwise than expected, in sentences. Raises DocumentError for a document or input."""
    found = run(
        _document(cases.workflow, folder),
        tasks=_stubs({**cases.tasks, **case.tasks}),
        nodes=_stubs(case.nodes),
        input=case.input,
        signals=case.signals,
        approvals=case.approvals,
        definitions={name: _document(given, folder) for name, given in cases.definitions.items()},
        slots=case.slots,
    )
    return list(_differences(case.expect, found))


def _document(given: str | dict[str, Any], folder: Path) -> Any:
    return load_document_file(folder / given) if isinstance(given, str) else given


def _stubs(replies: Replies) -> dict[str, Stub]:
    return {
        name: answers(*(one.stub() for one in given)) if isinstance(given, list) else given.stub()
        for name, given in replies.items()
    }


def _differences(expect: ExpectSchema, found: Run) -> Iterator[str]:
    error = found.error
    if found.status != expect.status:
        why = f" ({error.type} at {error.node or 'the execution'}: {error.message})" if error else ""
        yield f"the status is {found.status}{why}, expected {expect.status}"
    if "output" in expect.model_fields_set and found.output != expect.output:
        yield f"the output is {found.output!r}, expected {expect.output!r}"
    if expect.error is not None:
        kind, message = (error.type, error.message) if error else (None, "")
        if expect.error.type not in (None, kind) or expect.error.message not in message:
            yield f"the error is {kind}: {message!r}, expected {expect.error.type}: {expect.error.message!r}"
    yield from _of_nodes("status", expect.nodes, {path: node.status for path, node in found.nodes.items()})
    yield from _of_nodes("output", expect.outputs, {path: node.output for path, node in found.nodes.items()})
    if expect.elapsed is not None and found.elapsed > timedelta(milliseconds=parse_duration_ms(expect.elapsed)):
        yield f"it took {found.elapsed} of virtual time, expected at most {expect.elapsed}"


def _of_nodes(what: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for path, value in expected.items():
        if path not in found:
            yield f"there is no node {path!r}; there are: {', '.join(found)}"
        elif found[path] != value:
            yield f"the {what} of {path!r} is {found[path]!r}, expected {value!r}"
