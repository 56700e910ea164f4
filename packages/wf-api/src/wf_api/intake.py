"""From the bytes of a request to a submission that is right in every way that can be known before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wf_api.envelope import Envelope, open_envelope
from wf_api.policies import Policies
from wf_api.problems import of_document
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
    from wf_api.body import Body
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


async def take(context: ApiContext, body: Body, *, trigger: bool, allow_unknown: bool) -> Submission:
    """The submission in `body`. Raises the problems 400 and 422 with all that is wrong."""
    known = None if allow_unknown else Known(await context.catalogue.get(), context.policies)
    limit = context.settings.max_payload_bytes
    return await context.compute(len(body.data), lambda: _check(body, known, trigger=trigger, limit=limit))


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


def _check(body: Body, known: Known | None, *, trigger: bool, limit: int) -> Submission:
    envelope = open_envelope(body.load())
    try:
        document = parse_document(envelope.workflow)
        if known is not None:
            _check_names(document, known)
    except DocumentError as error:
        raise of_document(_with_lines(error, body, envelope.prefix), prefix=envelope.prefix) from error
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


def _check_names(document: WorkflowSchema, known: Known) -> None:
    problems = check_tasks(document, known.tasks) if known.tasks else []
    if known.policies is not None:
        problems += check_policies(document, known.policies.retry, known.policies.scheduling)
    if problems:
        raise DocumentError(problems)
