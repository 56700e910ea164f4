"""The way of a command: ACCEPT keeps it in Redis, the log takes it, the fold passes it.

What was accepted is never forgotten: until an orchestrator folded it, its bytes stay in `{p}:acc`, reads show it, and
the orchestrator's sweep appends it again. Copies carry the same command id and change nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wf_api.problems import ProblemError, of_document, unavailable
from wf_core.broker import topics
from wf_core.broker.protocol import MAX_RECORD_BYTES, LogUnavailableError, RecordTooLargeError, TopicPartition
from wf_core.errors import DocumentError, Problem
from wf_core.failpoints import fail_point
from wf_core.ids import partition_of
from wf_core.store.commands import pack_command
from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import AcceptReply

if TYPE_CHECKING:
    from wf_api.context import ApiContext

APPEND_SECONDS = 5.0
APPLY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Command:
    """What a request asks for. `records` is appended as it stands; `allowed` are the statuses that permit it.

    `verb` has the command's id behind a colon where several may wait: it names the field that keeps it.
    """

    execution_id: str
    verb: str
    request: str
    records: tuple[bytes, ...]
    allowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A command is in the log. `position` is `partition:offset`; `applied` says whether the fold has passed it."""

    position: str
    applied: bool


async def accept(context: ApiContext, command: Command, now_ms: int) -> AcceptReply:
    """Keeps the command unless one of its verb waits already or the execution's status forbids it.

    Raises the problem 422 for a record that the log would refuse for good.
    """
    if max(map(len, command.records)) > MAX_RECORD_BYTES:
        detail = (
            f"Name, labels and input together take more than the {MAX_RECORD_BYTES:,} bytes that a record may have."
        )
        raise of_document(DocumentError([Problem("", "too_large", detail)]), "invalid-input")
    keys = PartitionKeys.of(context.settings.namespace, partition_of(command.execution_id))
    packed = pack_command(now_ms, command.records, command.request)
    reply = await context.scripts.accept(keys, command.execution_id, command.verb, packed, command.allowed)
    if reply.kind == "EXISTS" and reply.value == packed:  # our own, accepted by a call whose reply was lost
        reply = AcceptReply("OK", packed)
    context.counters.inc("api_commands_total", verb=command.verb.partition(":")[0], answer=reply.kind)
    return reply


async def deliver(context: ApiContext, execution_id: str, records: tuple[bytes, ...], *, wait: bool) -> Delivery:
    """Appends an accepted command and, with `wait`, gives the fold up to two seconds to pass it.

    Raises the problem 503 when the log does not acknowledge it in time; the command is accepted all the same. Raises
    the problem 413 when the log refuses its size, by a limit of the broker's own.
    """
    fail_point("api.accepted")
    partition = partition_of(execution_id)
    target = TopicPartition(topics.events(context.settings.namespace), partition)
    try:
        async with asyncio.timeout(APPEND_SECONDS):
            offsets = await context.log.append(target, records, key=execution_id.encode())
    except RecordTooLargeError as error:
        context.counters.inc("api_records_refused_total")
        detail = (
            "The log takes no record of this size. Nothing came of the request; until an orchestrator has laid it with "
            "the dead letters, a moment from now, reads still show it as accepted."
        )
        raise ProblemError("too-large", detail, execution_id=execution_id) from error
    except (LogUnavailableError, TimeoutError) as error:
        context.counters.inc("api_log_unavailable_total")
        detail = (
            "The log does not answer. The request was accepted and will be carried out when the log is back; "
            f"GET /workflows/{execution_id} shows it. Repeat it only with the same Idempotency-Key."
        )
        raise unavailable(detail, execution_id=execution_id) from error
    fail_point("api.appended")
    applied = wait and await context.positions.passed(partition, offsets[-1], APPLY_SECONDS)
    return Delivery(f"{partition}:{offsets[-1]}", applied)


def pending(delivery: Delivery | None) -> dict[str, Any]:
    """The members that an answer has only while its command is in the log but not applied."""
    if delivery is None or delivery.applied:
        return {}
    return {"applied": False, "position": delivery.position}
