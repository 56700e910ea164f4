"""Commands to an execution that exists: trigger and cancel. Each is carried out once, however often it is sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from wf_api import records
from wf_api.acceptance import Command, Delivery, accept, deliver
from wf_api.bounded import ANSWER_SECONDS
from wf_api.context import ApiContext
from wf_api.heads import Head, read_head
from wf_api.idempotency import Idempotency, conflict, request_hash
from wf_api.inputs import input_at_trigger
from wf_api.problems import ProblemError, unknown_execution
from wf_core import wire
from wf_core.states import ExecutionStatus
from wf_core.store.commands import StoredCommand, unpack_command

TRIGGER = "trigger"
CANCEL = "cancel"
_NOT_ENDED = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING, ExecutionStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class Asked:
    """A command as it was asked for. `request` tells a repetition from another request under the same key."""

    execution_id: str
    verb: str
    command_id: str
    request: str
    wait: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to. `delivery` is None when it was folded before."""

    execution_id: str
    status: str
    delivery: Delivery | None


async def trigger(
    context: ApiContext, execution_id: str, given: object, idempotency: Idempotency, *, wait: bool
) -> Answer:
    """Starts a PENDING execution; `given`, when it is not None, replaces the input of its creation.

    Raises the problems 404, 409 (it was started before), 422 (the input is wrong) and 503.
    """
    asked = _asked(execution_id, TRIGGER, given, idempotency, wait=wait)
    done = Answer(execution_id, ExecutionStatus.RUNNING, None)
    async with asyncio.timeout(ANSWER_SECONDS):
        head = await read_head(context.redis, context.settings.namespace, execution_id)
        if _was_folded(head, asked):
            return done
        if head.status != ExecutionStatus.PENDING or head.triggered:
            raise _wrong_state(TRIGGER, ExecutionStatus.RUNNING if head.triggered else head.status)
        now = context.clock.now_ms()
        chosen = await input_at_trigger(context, execution_id, head, given)
        record = records.triggered(execution_id, now, asked.command_id, asked.request, chosen)
        found = await _accept(context, asked, head, record, (ExecutionStatus.PENDING,), now)
    if isinstance(found, Head):
        if _was_folded(found, asked):
            return done
        raise _wrong_state(TRIGGER, found.status)
    if not _is_same(found, asked):
        raise _wrong_state(TRIGGER, ExecutionStatus.RUNNING)
    return replace(done, delivery=await deliver(context, execution_id, found.record, wait=wait))


async def cancel(
    context: ApiContext, execution_id: str, reason: str, idempotency: Idempotency, *, wait: bool
) -> Answer:
    """Cancels an execution that has not ended; asked twice, the answer is the same.

    Raises the problems 404, 409 (it is COMPLETED or FAILED) and 503.
    """
    asked = _asked(execution_id, CANCEL, reason, idempotency, wait=wait)
    done = Answer(execution_id, ExecutionStatus.CANCELLED, None)
    async with asyncio.timeout(ANSWER_SECONDS):
        head = await read_head(context.redis, context.settings.namespace, execution_id)
        if not _was_folded(head, asked) and head.status in _NOT_ENDED:
            now = context.clock.now_ms()
            record = records.cancelled(execution_id, now, asked.command_id, asked.request, reason)
            found = await _accept(context, asked, head, record, _NOT_ENDED, now)
        else:
            found = head
    if isinstance(found, Head):
        _was_folded(found, asked)
        if found.status != ExecutionStatus.CANCELLED:
            raise _wrong_state(CANCEL, found.status)
        return done
    _is_same(found, asked)
    delivery = await deliver(context, execution_id, found.record, wait=wait)
    if delivery.applied:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = await read_head(context.redis, context.settings.namespace, execution_id)
        if head.status in {ExecutionStatus.COMPLETED, ExecutionStatus.FAILED}:  # it ended before the command came
            raise _wrong_state(CANCEL, head.status)
        return Answer(execution_id, head.status, delivery)
    return replace(done, delivery=delivery)


def _asked(execution_id: str, verb: str, body: object, idempotency: Idempotency, *, wait: bool) -> Asked:
    command_id = idempotency.command_id(execution_id, verb)
    return Asked(execution_id, verb, command_id, request_hash(verb, body), wait)


def _was_folded(head: Head, asked: Asked) -> bool:
    """Whether this very command was folded. Raises the problem 409 when its key came with another request."""
    request = head.commands.get(asked.command_id)
    if request is not None and request != asked.request:
        raise conflict()
    return request is not None


def _is_same(stored: StoredCommand, asked: Asked) -> bool:
    """Whether the command that waits to be folded is this one, or a copy. Raises as `_was_folded`."""
    record = wire.decode_event(stored.record[-1])
    same = isinstance(record, wire.Triggered | wire.Cancelled) and record.id == asked.command_id
    if same and stored.request != asked.request:
        raise conflict()
    return same


async def _accept(  # noqa: PLR0913 - the command, what is known, what it writes
    context: ApiContext, asked: Asked, head: Head, record: bytes, allowed: tuple[str, ...], now: int
) -> StoredCommand | Head:
    """The command that waits now, this one or an earlier one of its verb; or the head that does not allow it.

    While the creation itself waits to be folded its records go ahead of the command's: the fold then knows the
    execution even if the log has not got them yet, and copies do no harm.
    """
    taken = (*head.pending, record)
    reply = await accept(context, Command(asked.execution_id, asked.verb, asked.request, taken, allowed), now)
    if reply.kind == "STATE":
        if not reply.value:
            raise unknown_execution()
        return await read_head(context.redis, context.settings.namespace, asked.execution_id)
    return unpack_command(reply.value)


def _wrong_state(verb: str, status: str) -> ProblemError:
    detail = {
        TRIGGER: f"The execution is {status}: it was started before, or has ended. Only a PENDING one is triggered.",
        CANCEL: f"The execution is {status}: it has ended, and stays as it is.",
    }[verb]
    return ProblemError("wrong-state", detail, current_status=str(status))
