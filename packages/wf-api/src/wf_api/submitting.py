"""From a request to executions: their document comes with it, or is a registered definition."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wf_api.acceptance import pending
from wf_api.answers import answer
from wf_api.bounded import ANSWER_SECONDS
from wf_api.creation import Creation, create, is_known, repetition, request_of
from wf_api.definitions import definition
from wf_api.endings import wait_for_end
from wf_api.envelope import Envelope
from wf_api.intake import Submission, checked, take
from wf_api.pinning import pin
from wf_api.problems import of_document
from wf_api.views import execution_end
from wf_core import payload
from wf_core.definitions import Reference
from wf_core.errors import DocumentError, Problem

if TYPE_CHECKING:
    from fastapi import Response

    from wf_api.body import Body
    from wf_api.context import ApiContext
    from wf_api.idempotency import Idempotency


@dataclass(frozen=True, slots=True)
class Wish:
    """How a client wants it: `trigger` starts the execution, `hurry` does not wait until it is applied.

    `seconds` is how long its end is waited for, once it is applied.
    """

    trigger: bool
    allow_unknown: bool
    hurry: bool
    seconds: float

    def on(self, envelope: Envelope) -> Envelope:
        """The envelope with `trigger` as query or body want it. Raises the problem 422 for a wait that never ends."""
        trigger = self.trigger or envelope.trigger
        if self.seconds and not trigger:
            detail = "wait waits for the end of an execution that starts now: say trigger as well."
            raise of_document(DocumentError([Problem("/query/wait", "conflict", detail)]), "invalid-parameters")
        return replace(envelope, trigger=trigger)


async def submit(context: ApiContext, body: Body, envelope: Envelope, wish: Wish, idempotency: Idempotency) -> Response:
    """Creates what POST /workflow or POST /workflow/batch asks for. Raises the problems 409, 422 and 503."""
    if isinstance(envelope.workflow, str):
        reference = Reference.parse(envelope.workflow)
        return await submit_registered(context, reference, envelope, wish, idempotency, name_at=envelope.prefix)
    envelope = wish.on(envelope)
    # A repetition gets its first answer, whoever knows its tasks now.
    repeated = await is_known(context, idempotency, len(envelope.inputs))
    submission = await take(context, body, envelope, allow_unknown=wish.allow_unknown, repeated=repeated)
    creation = await create(context, submission, idempotency, wait=not wish.hurry)
    return await _answer(context, creation, wish, triggered=submission.trigger, is_batch=envelope.is_batch)


async def submit_registered(  # noqa: PLR0913 - the definition, what comes with it, where it is named
    context: ApiContext,
    reference: Reference,
    envelope: Envelope,
    wish: Wish,
    idempotency: Idempotency,
    *,
    name_at: str | None = None,
    version_at: str = "",
) -> Response:
    """Creates executions of a registered definition. Raises as `submit`, and as `definition` when it is not there."""
    envelope = wish.on(envelope)
    trigger = envelope.trigger
    asked = [reference.name, reference.version, envelope.given, envelope.labels, trigger]
    count = len(envelope.inputs)
    creation = await repetition(context, idempotency, count, request_of(*asked), trigger=trigger, wait=not wish.hurry)
    if creation is None:
        submission = await take_registered(context, reference, envelope, wish, name_at=name_at, version_at=version_at)
        submission = replace(submission, asked=tuple(asked))
        creation = await create(context, submission, idempotency, wait=not wish.hurry)
    return await _answer(context, creation, wish, triggered=trigger, is_batch=envelope.is_batch)


async def take_registered(  # noqa: PLR0913 - the definition, what comes with it, where it is named
    context: ApiContext,
    reference: Reference,
    envelope: Envelope,
    wish: Wish,
    *,
    name_at: str | None,
    version_at: str = "",
) -> Submission:
    """The submission of a registered definition, checked again: workers and other definitions come and go."""
    found = await definition(context, reference, name_at=name_at, version_at=version_at)
    canonical = bytes(found.document)
    whole = await context.compute(len(canonical), lambda: payload.decode(canonical))
    envelope = replace(envelope, workflow=whole)
    try:
        taken = await checked(context, envelope, len(canonical), allow_unknown=wish.allow_unknown)
        return replace(taken, pinned=await pin(context, taken.read.canonical))
    except DocumentError as error:
        raise of_document(error) from error


async def _answer(context: ApiContext, creation: Creation, wish: Wish, *, triggered: bool, is_batch: bool) -> Response:
    headers = {"Preference-Applied": "respond-async"} if wish.hurry else {}
    shown: list[dict[str, Any]] = [
        {"execution_id": execution_id, "status": creation.status, **pending(delivery)}
        for execution_id, delivery in zip(creation.execution_ids, creation.deliveries, strict=True)
    ]
    if is_batch:
        return answer({"executions": shown}, 201, headers)
    (execution_id,) = creation.execution_ids
    headers["Location"] = f"/workflows/{execution_id}"
    if wish.seconds and triggered and await wait_for_end(context, execution_id, wish.seconds):
        async with asyncio.timeout(ANSWER_SECONDS):
            return answer(await execution_end(context, execution_id), 201, headers)
    return answer(shown[0], 201, headers)
