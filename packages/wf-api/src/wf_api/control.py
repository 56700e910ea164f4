"""Commands to an execution that exists. Each is carried out once, however often it is sent; see `wf_api.verbs`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from wf_api import records
from wf_api.acceptance import Command, Delivery, accept, deliver
from wf_api.bounded import ANSWER_SECONDS
from wf_api.context import ApiContext
from wf_api.heads import Head, read_head
from wf_api.idempotency import Idempotency, conflict, request_hash
from wf_api.problems import ProblemError, unknown_execution
from wf_api.verbs import PENDING, RUNNING, Verb
from wf_core import wire
from wf_core.store.commands import StoredCommand, unpack_command

Fields = Callable[[Head], Awaitable[dict[str, Any]]]
"""Makes the fields that the record of a verb has beside the common ones, or raises what is wrong with the request."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A command as it was asked for. `request` tells a repetition from another request under the same key."""

    execution_id: str
    verb: Verb
    command_id: str
    request: str

    @property
    def field(self) -> str:
        """Which place it takes among the accepted commands of the execution."""
        return f"{self.verb.name}:{self.command_id}" if self.verb.several else self.verb.name


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to. `delivery` is None when it was folded before, or there was nothing left to do."""

    execution_id: str
    status: str
    delivery: Delivery | None


async def order(  # noqa: PLR0913 - the verb, its object, its content and how it is sent
    context: ApiContext,
    verb: Verb,
    execution_id: str,
    body: object,
    idempotency: Idempotency,
    fields: Fields,
    *,
    wait: bool,
) -> Answer:
    """Carries out a command; `body` is what tells it from another request under the same key.

    Raises the problems 404, 409 (the execution's status does not allow it), 503, and what `fields` raises.
    """
    command_id = idempotency.command_id(execution_id, verb.name)
    asked = Asked(execution_id, verb, command_id, request_hash(verb.name, body))
    async with asyncio.timeout(ANSWER_SECONDS):
        head = await read_head(context.redis, context.settings.namespace, execution_id)
        found: StoredCommand | Head = head
        if not _was_folded(head, asked) and _permits(verb, head):
            found = await _accept(context, asked, head, await fields(head))
    if isinstance(found, Head):
        return _settled(asked, found)
    if not _is_same(found, asked) and not verb.shared:
        raise _wrong_state(verb, RUNNING if verb.answer is None else verb.answer)
    return await _delivered(context, asked, head, found, wait=wait)


async def nothing(_head: Head) -> dict[str, Any]:
    """The fields of a record that has none of its own."""
    return {}


def _permits(verb: Verb, head: Head) -> bool:
    """Whether the status allows it, which is RUNNING where only the fold of a start is awaited."""
    if head.starts and RUNNING in verb.allowed:
        return True
    return head.status in verb.allowed and not (head.triggered and head.starts)


def _settled(asked: Asked, head: Head) -> Answer:
    """The answer for which nothing is written (any more). Raises the problem 409 when it cannot be had."""
    verb = asked.verb
    if head.status in verb.done or (_was_folded(head, asked) and head.status not in verb.late):
        return Answer(asked.execution_id, verb.answer or head.status, None)
    raise _wrong_state(verb, RUNNING if head.starts else head.status)


async def _delivered(context: ApiContext, asked: Asked, head: Head, stored: StoredCommand, *, wait: bool) -> Answer:
    verb, execution_id = asked.verb, asked.execution_id
    delivery = await deliver(context, execution_id, stored.record, wait=wait)
    status = verb.answer or (RUNNING if head.starts else head.status)
    if delivery.applied and verb.looks:
        async with asyncio.timeout(ANSWER_SECONDS):
            after = await read_head(context.redis, context.settings.namespace, execution_id)
        if verb.unheard and asked.command_id not in after.commands:
            raise ProblemError("wrong-state", verb.unheard, current_status=after.status)
        if after.status in verb.late:  # it ended before the command came
            raise _wrong_state(verb, after.status)
        if verb.answer is None or verb.late:
            status = after.status
    return Answer(execution_id, status, delivery)


def _was_folded(head: Head, asked: Asked) -> bool:
    """Whether this very command was folded. Raises the problem 409 when its key came with another request."""
    request = head.commands.get(asked.command_id)
    if request is not None and request != asked.request:
        raise conflict()
    return request is not None


def _is_same(stored: StoredCommand, asked: Asked) -> bool:
    """Whether the command that waits to be folded is this one, or a copy. Raises as `_was_folded`."""
    record = wire.decode_event(stored.record[-1])
    same = isinstance(record, asked.verb.record) and record.id == asked.command_id
    if same and stored.request != asked.request:
        raise conflict()
    return same


async def _accept(context: ApiContext, asked: Asked, head: Head, fields: dict[str, Any]) -> StoredCommand | Head:
    """The command that waits now, this one or an earlier one of its verb; or the head that does not allow it."""
    now, verb = context.clock.now_ms(), asked.verb
    record = records.command(verb.record, asked.execution_id, now, asked.command_id, asked.request, **fields)
    starts = head.starts and RUNNING in verb.allowed
    ahead = head.starting if starts and head.starting else head.pending
    allowed = (*verb.allowed, PENDING) if starts else verb.allowed
    command = Command(asked.execution_id, asked.field, asked.request, (*ahead, record), allowed)
    reply = await accept(context, command, now)
    if reply.kind == "STATE":
        if not reply.value:
            raise unknown_execution()
        return await read_head(context.redis, context.settings.namespace, asked.execution_id)
    return unpack_command(reply.value)


def _wrong_state(verb: Verb, status: str) -> ProblemError:
    return ProblemError("wrong-state", f"The execution is {status}: {verb.refusal}", current_status=str(status))
