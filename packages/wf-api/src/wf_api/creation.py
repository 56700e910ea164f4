"""Creates executions: ids, records, and the answer that a repetition of the request gets again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from wf_api import records
from wf_api.acceptance import Command, Delivery, accept, deliver
from wf_api.bounded import ANSWER_SECONDS
from wf_api.context import ApiContext
from wf_api.heads import read_head
from wf_api.idempotency import Idempotency, conflict, request_hash
from wf_api.intake import Submission
from wf_core import wire
from wf_core.ids import partition_of
from wf_core.plan import rules_of
from wf_core.states import ExecutionStatus
from wf_core.store.commands import unpack_command
from wf_core.store.keys import PartitionKeys

VERB = "create"


@dataclass(frozen=True, slots=True)
class Creation:
    """An execution exists. `delivery` is None when it had been created, and folded, before."""

    execution_id: str
    status: ExecutionStatus
    delivery: Delivery | None


async def is_known(context: ApiContext, idempotency: Idempotency) -> bool:
    """Whether the key made an execution before."""
    if idempotency.key is None:
        return False
    execution_id = idempotency.execution_id(context.partitions, 0)
    keys = PartitionKeys.of(context.settings.namespace, partition_of(execution_id))
    async with asyncio.timeout(ANSWER_SECONDS), context.redis.pipeline(transaction=False) as pipe:
        pipe.hexists(keys.accepted, f"{execution_id}/{VERB}")
        pipe.exists(keys.execution(execution_id))
        return any(await pipe.execute())


async def create(context: ApiContext, submission: Submission, idempotency: Idempotency, *, wait: bool) -> Creation:
    """Creates the execution, or finds the one that the same request created before.

    Raises the problems 409 (the key came with another request) and 503.
    """
    now = context.clock.now_ms()
    execution_id = idempotency.execution_id(context.partitions, now)
    status = ExecutionStatus.RUNNING if submission.trigger else ExecutionStatus.PENDING
    request = request_of(*(submission.asked or _asked(submission)))
    async with asyncio.timeout(ANSWER_SECONDS):
        taken = await _records(
            context, submission, execution_id, idempotency.command_id(execution_id, VERB), request, now
        )
        reply = await accept(context, Command(execution_id, VERB, request, taken, ("",)), now)
        if reply.kind == "STATE":
            head = await read_head(context.redis, context.settings.namespace, execution_id)
            if head.request != request:
                raise conflict()
            return Creation(execution_id, status, None)
    if reply.kind == "EXISTS":
        stored = unpack_command(reply.value)
        if stored.request != request:
            raise conflict()
        taken = stored.record
    return Creation(execution_id, status, await deliver(context, execution_id, taken, wait=wait))


async def repetition(
    context: ApiContext, idempotency: Idempotency, request: str, *, trigger: bool, wait: bool
) -> Creation | None:
    """The execution that the same request created before; None when there is none. Raises the problems 409 and 503."""
    if not await is_known(context, idempotency):
        return None
    execution_id = idempotency.execution_id(context.partitions, 0)
    async with asyncio.timeout(ANSWER_SECONDS):
        head = await read_head(context.redis, context.settings.namespace, execution_id)
    if head.request != request:
        raise conflict()
    delivery = await deliver(context, execution_id, head.pending, wait=wait) if head.pending else None
    return Creation(execution_id, ExecutionStatus.RUNNING if trigger else ExecutionStatus.PENDING, delivery)


def request_of(*asked: Any) -> str:
    """A hash of what a creation asks for, in JSON values, to tell a repetition from another request."""
    return request_hash(VERB, *asked)


def _asked(submission: Submission) -> tuple[Any, ...]:
    given = None if submission.input is None else submission.input.decode()
    return submission.hash, given, submission.labels, submission.trigger


async def _records(  # noqa: PLR0913 - what a record holds
    context: ApiContext, submission: Submission, execution_id: str, command_id: str, request: str, now: int
) -> tuple[bytes, ...]:
    keys = PartitionKeys.of(context.settings.namespace, partition_of(execution_id))
    taken: list[bytes] = []
    for document_hash, canonical in {**submission.pinned.documents, submission.hash: submission.canonical}.items():
        if not await _is_known_whole(context, keys.document(document_hash)):
            # Compression takes a second for the largest documents: not on the loop that serves everybody.
            taken += await asyncio.to_thread(records.document, execution_id, now, document_hash, canonical)
    settings = records.frozen_settings(context.settings)
    created = wire.Created(
        execution=execution_id,
        ts=now,
        source=records.SOURCE,
        id=command_id,
        document=submission.hash,
        name=submission.document.name,
        version=submission.document.version,
        labels=submission.labels,
        input=submission.input or b"{}",
        settings=settings,
        rules=max(rules_of(submission.document), settings.rules),
        request=request,
        definitions=dict(submission.pinned.hashes),
    )
    taken.append(wire.encode(created))
    if submission.trigger:
        taken.append(records.triggered(execution_id, now, f"{command_id}-trigger", request, None))
    return tuple(taken)


async def _is_known_whole(context: ApiContext, document_key: str) -> bool:
    """Whether the partition has folded every part of a document: each is a field, and `parts` says how many."""
    async with context.redis.pipeline(transaction=False) as pipe:
        pipe.hget(document_key, "parts")
        pipe.hlen(document_key)
        parts, fields = await pipe.execute()
    return parts is not None and int(fields) == int(parts) + 1
