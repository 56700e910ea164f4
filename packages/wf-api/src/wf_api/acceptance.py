"""The way of a command: ACCEPT keeps it in Redis, the log takes it, the fold passes it.

What was accepted is never forgotten: until an orchestrator folded it, its bytes stay in `{p}:acc`, reads show it, and
the orchestrator's sweep appends it again. Copies carry the same command id and change nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
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
    check_size(command)
    keys = PartitionKeys.of(context.settings.namespace, partition_of(command.execution_id))
    packed = pack_command(now_ms, command.records, command.request)
    reply = await context.scripts.accept(keys, command.execution_id, command.verb, packed, command.allowed)
    if reply.kind == "EXISTS" and reply.value == packed:  # our own, accepted by a call whose reply was lost
        reply = AcceptReply("OK", packed)
    context.counters.inc("api_commands_total", verb=command.verb.partition(":")[0], answer=reply.kind)
    return reply


def check_size(command: Command) -> None:
    """Raises the problem 422 for a record that the log would refuse for good."""
    if max(map(len, command.records)) > MAX_RECORD_BYTES:
        detail = (
            f"Name, labels and input together take more than the {MAX_RECORD_BYTES:,} bytes that a record may have."
        )
        raise of_document(DocumentError([Problem("", "too_large", detail)]), "invalid-input")


async def deliver(context: ApiContext, execution_id: str, records: tuple[bytes, ...], *, wait: bool) -> Delivery:
    """Appends an accepted command and, with `wait`, gives the fold up to two seconds to pass it.

    Raises the problem 503 when the log does not acknowledge it in time; the command is accepted all the same. Raises
    the problem 413 when the log refuses its size, by a limit of the broker's own.
    """
    fail_point("api.accepted")
    partition = partition_of(execution_id)
    with refusals(context, [execution_id]):
        offsets = await append(context, partition, records, key=execution_id.encode())
    fail_point("api.appended")
    applied = wait and await context.positions.passed(partition, offsets[-1], APPLY_SECONDS)
    return Delivery(f"{partition}:{offsets[-1]}", applied)


async def append(context: ApiContext, partition: int, records: Sequence[bytes], key: bytes | None = None) -> list[int]:
    """The offsets of event records. Raises RecordTooLargeError, LogUnavailableError and TimeoutError."""
    target = TopicPartition(topics.events(context.settings.namespace), partition)
    async with asyncio.timeout(APPEND_SECONDS):
        return await context.log.append(target, records, key=key)


@contextlib.contextmanager
def refusals(context: ApiContext, execution_ids: Sequence[str]) -> Iterator[None]:
    """Makes what keeps accepted records out of the log the problems 413 and 503, which name the executions."""
    named: dict[str, Any] = {"execution_ids": list(execution_ids)}
    shows = "GET /workflows shows them"
    if len(execution_ids) == 1:
        named, shows = {"execution_id": execution_ids[0]}, f"GET /workflows/{execution_ids[0]} shows it"
    try:
        yield
    except RecordTooLargeError as error:
        context.counters.inc("api_records_refused_total")
        detail = (
            "The log takes no record of this size. Nothing came of what it refused; until an orchestrator has laid it "
            "with the dead letters, a moment from now, reads still show it as accepted."
        )
        raise ProblemError("too-large", detail, **named) from error
    except (LogUnavailableError, TimeoutError) as error:
        context.counters.inc("api_log_unavailable_total")
        detail = (
            "The log does not answer. The request was accepted and will be carried out when the log is back; "
            f"{shows}. Repeat it only with the same Idempotency-Key."
        )
        raise unavailable(detail, **named) from error


def pending(delivery: Delivery | None) -> dict[str, Any]:
    """The members that an answer has only while its command is in the log but not applied."""
    if delivery is None or delivery.applied:
        return {}
    return {"applied": False, "position": delivery.position}
