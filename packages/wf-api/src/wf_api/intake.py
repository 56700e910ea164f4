"""From the bytes of a request to a submission that is right in every way that can be known before it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from wf_api.body import Body, read_body
from wf_api.envelope import Envelope, open_envelope
from wf_api.pinning import Pinned, pin
from wf_api.policies import Policies
from wf_api.problems import ProblemError, of_document
from wf_core import payload
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.schema.loading import yaml_lines
from wf_core.schema.tasks import check_tasks
from wf_core.schema.validation import (
    canonical_bytes,
    check_policies,
    document_hash,
    parse_document,
    validate_input,
)

if TYPE_CHECKING:
    from fastapi import Request

    from wf_api.context import ApiContext
    from wf_core.catalogue import TaskInfo
    from wf_core.schema.document import WorkflowSchema


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a document may use. No tasks, or None for policies: nobody here knows, so any will do."""

    tasks: Mapping[str, TaskInfo]
    policies: Policies | None


@dataclass(frozen=True, slots=True)
class Submission:
    """A document and what came with it, checked. `input` is JSON, None when none was given."""

    document: WorkflowSchema
    canonical: bytes
    hash: str
    input: bytes | None
    labels: dict[str, str]
    trigger: bool
    pinned: Pinned = field(default_factory=Pinned)
    asked: tuple[Any, ...] | None = None
    """What tells a repetition from another request, when that is not what stands above."""


async def read_document_body(request: Request, context: ApiContext) -> Body:
    """The body of a request that must have one, JSON or YAML. Raises the problems of `read_body`."""
    body = await read_body(request, context.settings.max_body_bytes, yaml=True)
    if body is None:
        raise ProblemError("unparsable", "The body is empty. Send a workflow document as JSON or YAML.")
    return body


async def unchecked(context: ApiContext, *, allow_unknown: bool) -> list[str]:
    """Sentences about what nobody could check in a document that is right otherwise."""
    if allow_unknown or await context.catalogue.get():
        return []
    return ["No worker is alive: the names and parameters of tasks were not checked."]


async def open_body(context: ApiContext, body: Body) -> Envelope:
    """The envelope in `body`. Raises the problems 400 and 422."""
    return await context.compute(len(body.data), lambda: open_envelope(body.load()))


async def take(  # noqa: PLR0913 - the body, what it holds, and how it is to be taken
    context: ApiContext, body: Body, envelope: Envelope, *, trigger: bool, allow_unknown: bool, repeated: bool = False
) -> Submission:
    """The submission in `envelope`, whose document came whole in `body`. Raises the problem 422 with all that is wrong.

    `repeated`: the request was answered before, so whatever it named then need not be there any more.
    """
    with problems_in(body, envelope.prefix):
        unknown = allow_unknown or repeated
        taken = await checked(context, envelope, len(body.data), trigger=trigger, allow_unknown=unknown)
        return taken if repeated else replace(taken, pinned=await pin(context, taken.canonical))


@contextlib.contextmanager
def problems_in(body: Body, prefix: str) -> Iterator[None]:
    """Makes what is wrong with the document in `body` the problem 422, with lines where it is YAML.

    `prefix` is where the document lies in the body.
    """
    try:
        yield
    except DocumentError as error:
        raise of_document(_with_lines(error, body, prefix), prefix=prefix) from error


async def checked(
    context: ApiContext, envelope: Envelope, size: int, *, trigger: bool, allow_unknown: bool
) -> Submission:
    """The submission in an envelope of about `size` bytes, before its definitions are looked for.

    Raises DocumentError for what is wrong with the document, and the problem 422 for its input.
    """
    known = None if allow_unknown else Known(await context.catalogue.get(), context.policies)
    limit = context.settings.max_payload_bytes
    return await context.compute(size, lambda: _check(envelope, known, trigger=trigger, limit=limit))


def encode_input(document: WorkflowSchema, value: Any, limit: int) -> bytes:
    """An input as JSON, with the defaults of its schema filled in; None stands for no input, which is `{}`.

    Raises the problem 422, its pointers as seen from the body that holds `input`.
    """
    try:
        return payload.encode(validate_input(document, {} if value is None else value), limit=limit, what="the input")
    except DocumentError as error:
        raise of_document(error, "invalid-input") from error
    except PayloadError as error:
        problem = DocumentError([Problem("/input", "not_allowed", str(error))])
        raise of_document(problem, "invalid-input") from error


def _check(envelope: Envelope, known: Known | None, *, trigger: bool, limit: int) -> Submission:
    document = parse_document(envelope.workflow, lambda read: _unknown_names(read, known))
    starts = trigger or envelope.trigger
    canonical = canonical_bytes(document)
    return Submission(
        document=document,
        canonical=canonical,
        hash=document_hash(canonical),
        input=_input(envelope, document, limit, starts=starts),
        labels={**document.labels, **envelope.labels},
        trigger=starts,
    )


def _with_lines(error: DocumentError, body: Body, prefix: str) -> DocumentError:
    """The problems of a YAML document with the line of each."""
    if not body.is_yaml:
        return error
    lines = yaml_lines(body.data, {prefix + problem.pointer for problem in error.problems})
    return DocumentError(
        [
            replace(problem, detail=f"line {lines[at]}: {problem.detail}") if at in lines else problem
            for problem in error.problems
            for at in [prefix + problem.pointer]
        ]
    )


def _input(envelope: Envelope, document: WorkflowSchema, limit: int, *, starts: bool) -> bytes | None:
    """What is given is checked now; what is required may still come with the trigger."""
    if envelope.input is None and not starts:
        return None
    return encode_input(document, envelope.input, limit)


def _unknown_names(document: WorkflowSchema, known: Known | None) -> list[Problem]:
    if known is None:
        return []
    problems = check_tasks(document, known.tasks) if known.tasks else []
    if known.policies is not None:
        problems += check_policies(document, known.policies.retry, known.policies.scheduling)
    return problems
