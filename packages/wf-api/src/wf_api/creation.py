"""Creates executions: ids, records, and the answer that a repetition of the request gets again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from wf_api import records
from wf_api.acceptance import Command, Delivery
from wf_api.bounded import ANSWER_SECONDS
from wf_api.context import ApiContext
from wf_api.documents import lacking
from wf_api.heads import Birth, read_births
from wf_api.idempotency import Idempotency, conflict, request_hash
from wf_api.intake import Submission
from wf_api.problems import unavailable
from wf_api.together import Accepted, DocumentGoneError, accept_all, deliver_all
from wf_core import wire
from wf_core.ids import partition_of
from wf_core.states import ExecutionStatus

VERB = "create"
_TRIES = 3
"""Of a creation whose document Redis forgot meanwhile."""
RECORD_BYTES = 1024
"""About what the records of a creation cost to write, beside its input."""


@dataclass(frozen=True, slots=True)
class Creation:
    """Executions exist, in the order of their inputs, each with its delivery: None when it had been folded before."""

    execution_ids: tuple[str, ...]
    status: ExecutionStatus
    deliveries: tuple[Delivery | None, ...]


async def is_known(context: ApiContext, idempotency: Idempotency, count: int) -> bool:
    """Whether the key made `count` executions before, and all of them are still there."""
    return None not in await _births(context, idempotency, count)


async def _births(context: ApiContext, idempotency: Idempotency, count: int) -> list[Birth | None]:
    """What is known of the executions of a key. Whoever made the first has the key: without it none is looked for."""
    unknown: list[Birth | None] = [None] * count
    if idempotency.key is None:
        return unknown
    first, *others = idempotency.execution_ids(context.partitions, 0, count)
    async with asyncio.timeout(ANSWER_SECONDS):
        found = await read_births(context.redis, context.settings.namespace, [first])
        if found == [None]:
            return unknown
        return found + (await read_births(context.redis, context.settings.namespace, others) if others else [])


async def create(context: ApiContext, submission: Submission, idempotency: Idempotency, *, wait: bool) -> Creation:
    """Creates the executions, all or none, or finds those that the same request created before.

    Raises the problems 409 (the key came with another request) and 503.
    """
    now = context.clock.now_ms()
    ids = idempotency.execution_ids(context.partitions, now, len(submission.inputs))
    writer = _Writer(context, submission, idempotency, now)
    async with asyncio.timeout(ANSWER_SECONDS):
        accepted = await _accepted(context, writer, ids, now)
    return await _created(context, accepted, trigger=submission.trigger, wait=wait)


async def _accepted(context: ApiContext, writer: _Writer, ids: tuple[str, ...], now: int) -> list[Accepted]:
    for _ in range(_TRIES):
        ahead = await lacking(context, writer.documents, ids, now)
        commands = await context.compute(writer.size, partial(writer.commands, ids, ahead.records))
        try:
            return await accept_all(context, commands, ahead.relied_on, now)
        except DocumentGoneError:
            context.folded.clear()
    raise unavailable("Redis forgets the document that it was given; try again.")


async def repetition(  # noqa: PLR0913 - the request, and what its answer says
    context: ApiContext, idempotency: Idempotency, count: int, request: str, *, trigger: bool, wait: bool
) -> Creation | None:
    """The executions that the same request created before; None when one is missing. Raises the problems 409, 503."""
    births = await _births(context, idempotency, count)
    if any(birth.request != request for birth in births if birth is not None):
        raise conflict()
    if None in births:
        return None
    ids = idempotency.execution_ids(context.partitions, 0, count)
    accepted = [Accepted(id_, birth.pending) for id_, birth in zip(ids, births, strict=True) if birth is not None]
    return await _created(context, accepted, trigger=trigger, wait=wait)


def request_of(*asked: Any) -> str:
    """A hash of what a creation asks for, in JSON values, to tell a repetition from another request."""
    return request_hash(VERB, *asked)


async def _created(context: ApiContext, accepted: list[Accepted], *, trigger: bool, wait: bool) -> Creation:
    status = ExecutionStatus.RUNNING if trigger else ExecutionStatus.PENDING
    deliveries = await deliver_all(context, accepted, wait=wait)
    return Creation(tuple(a.execution_id for a in accepted), status, tuple(deliveries))


class _Writer:
    """Writes the commands of a submission: they differ in little but their ids and inputs."""

    def __init__(self, context: ApiContext, submission: Submission, idempotency: Idempotency, now: int) -> None:
        self._submission = submission
        self._idempotency = idempotency
        self._now = now
        self._settings = records.frozen_settings(context.settings)
        self._rules = max(submission.read.rules, self._settings.rules)
        self._definitions = dict(submission.pinned.hashes)
        self._request = request_of(*(submission.asked or _asked(submission)))
        self.documents = {**submission.pinned.documents, submission.read.hash: submission.read.canonical}
        """By hash: those that it pins, and its own."""
        self.size = sum(RECORD_BYTES + len(given or b"") for given in submission.inputs)
        """About the bytes of the commands."""

    def commands(self, ids: tuple[str, ...], ahead: Mapping[int, tuple[bytes, ...]]) -> list[Command]:
        """A command for each execution; `ahead` are the records of documents by partition."""
        return [
            Command(execution_id, VERB, self._request, (*ahead[partition_of(execution_id)], *own), ("",))
            for execution_id, given in zip(ids, self._submission.inputs, strict=True)
            for own in [self._records(execution_id, given)]
        ]

    def _records(self, execution_id: str, given: bytes | None) -> list[bytes]:
        submission, command_id = self._submission, self._idempotency.command_id(execution_id, VERB)
        created = wire.Created(
            execution=execution_id,
            ts=self._now,
            source=records.SOURCE,
            id=command_id,
            document=submission.read.hash,
            name=submission.read.document.name,
            version=submission.read.document.version,
            labels=submission.labels,
            input=given or b"{}",
            settings=self._settings,
            rules=self._rules,
            request=self._request,
            definitions=self._definitions,
        )
        if not submission.trigger:
            return [wire.encode(created)]
        triggered = records.triggered(execution_id, self._now, f"{command_id}-trigger", self._request, None)
        return [wire.encode(created), triggered]


def _asked(submission: Submission) -> tuple[Any, ...]:
    given = [None if value is None else value.decode() for value in submission.inputs]
    return submission.read.hash, given if submission.is_batch else given[0], submission.labels, submission.trigger
