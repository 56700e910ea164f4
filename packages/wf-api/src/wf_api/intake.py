"""From the bytes of a request to a submission that is right in every way that can be known before it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from wf_api.body import Body, read_body
from wf_api.context import INLINE_BYTES
from wf_api.envelope import Envelope
from wf_api.pinning import Pinned, pin
from wf_api.problems import MOST_ERRORS, ProblemError, of_document
from wf_api.reading import Known, Reading, read, read_again
from wf_core import payload
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.schema.loading import yaml_lines

if TYPE_CHECKING:
    from fastapi import Request

    from wf_api.context import ApiContext
    from wf_api.recent import Recent
    from wf_core.schema.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Limits:
    """Most bytes of JSON that one input may have, and those of a request together."""

    input: int
    together: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A document and what came with it, checked. `inputs` are JSON, one an execution; None where none was given."""

    read: Reading
    inputs: tuple[bytes | None, ...]
    labels: dict[str, str]
    trigger: bool
    is_batch: bool = False
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
    if allow_unknown or (await context.catalogue.get()).tasks:
        return []
    return ["No worker is alive: the names and parameters of tasks were not checked."]


async def open_body(context: ApiContext, body: Body, opened: Callable[[Any], Envelope]) -> Envelope:
    """The envelope in `body`. Raises the problems 400 and 422."""
    return await context.compute(len(body.data), lambda: opened(body.load()))


async def take(
    context: ApiContext, body: Body, envelope: Envelope, *, allow_unknown: bool, repeated: bool = False
) -> Submission:
    """The submission in `envelope`, whose document came whole in `body`. Raises the problem 422 with all that is wrong.

    `repeated`: the request was answered before, so whatever it named then need not be there any more.
    """
    with problems_in(body, envelope.prefix):
        unknown = allow_unknown or repeated
        taken = await checked(context, envelope, len(body.data), allow_unknown=unknown)
        return taken if repeated else replace(taken, pinned=await pin(context, taken.read.canonical))


@contextlib.contextmanager
def problems_in(body: Body, prefix: str) -> Iterator[None]:
    """Makes what is wrong with the document in `body` the problem 422, with lines where it is YAML.

    `prefix` is where the document lies in the body.
    """
    try:
        yield
    except DocumentError as error:
        raise of_document(_with_lines(error, body, prefix), prefix=prefix) from error


async def checked(context: ApiContext, envelope: Envelope, size: int, *, allow_unknown: bool) -> Submission:
    """The submission in an envelope of about `size` bytes, before its definitions are looked for.

    Raises DocumentError for what is wrong with the document, and the problem 422 for its inputs.
    """
    known = None if allow_unknown else Known(await context.catalogue.get(), context.policies)
    longest = context.settings.max_payload_bytes
    limits = Limits(longest, max(longest, context.settings.max_body_bytes))
    # What is large is checked in a thread, and what is remembered stays with the loop's.
    recent = context.documents if size <= INLINE_BYTES else None
    return await context.compute(size, lambda: _check(envelope, known, limits, recent))


def encode_inputs(inputs: Inputs, placed: Iterable[tuple[str, Any]], limits: Limits) -> tuple[bytes, ...]:
    """Inputs, each with its pointer, as JSON with the defaults of their schema filled in; None stands for `{}`.

    Raises the problem 422 with what is wrong with any of them.
    """
    size = 0
    encoded: list[bytes] = []
    problems: list[Problem] = []
    for pointer, value in placed:
        try:
            encoded.append(payload.encode(inputs.filled(value, pointer), limit=limits.input, what="the input"))
            size += len(encoded[-1])
        except DocumentError as error:
            problems += error.problems
        except PayloadError as error:
            problems.append(Problem(pointer, "not_allowed", str(error)))
        if size > limits.together:
            detail = f"With their defaults the inputs have more than {limits.together:,} bytes; send several batches."
            problems.append(Problem("/inputs", "too_large", detail))
        if size > limits.together or len(problems) >= MOST_ERRORS:
            break
    if problems:
        raise of_document(DocumentError(problems), "invalid-input")
    return tuple(encoded)


def _check(envelope: Envelope, known: Known | None, limits: Limits, recent: Recent[Reading] | None) -> Submission:
    taken = read(envelope.workflow, known) if recent is None else read_again(envelope.workflow, known, recent)
    return Submission(
        read=taken,
        inputs=_inputs(envelope, taken.inputs, limits),
        labels={**taken.document.labels, **envelope.labels},
        trigger=envelope.trigger,
        is_batch=envelope.is_batch,
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


def _inputs(envelope: Envelope, inputs: Inputs, limits: Limits) -> tuple[bytes | None, ...]:
    """What is given is checked now; what is required may still come with the trigger."""
    if envelope.trigger:
        return encode_inputs(inputs, envelope.placed(), limits)
    given = [(pointer, value) for pointer, value in envelope.placed() if value is not None]
    encoded = iter(encode_inputs(inputs, given, limits))
    return tuple(None if value is None else next(encoded) for value in envelope.inputs)
