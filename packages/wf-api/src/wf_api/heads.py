"""What a command must know of an execution before it is accepted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from wf_api.problems import unknown_execution
from wf_core import wire
from wf_core.ids import is_execution_id, partition_of
from wf_core.states import ExecutionStatus
from wf_core.store.commands import unpack_command
from wf_core.store.keys import PartitionKeys

_FIELDS = ("status", "document", "input", "request", "commands", "signalled")


@dataclass(frozen=True, slots=True)
class Head:
    """Where an execution stands. Records that are not folded yet travel ahead of those of a new command.

    The fold then knows the execution even if the log has not got them yet, and copies do no harm.
    """

    status: str
    document: str
    input: bytes
    request: str
    commands: dict[str, str]
    """Ids of the last commands that were folded, with the hash of the request of each."""
    pending: tuple[bytes, ...] = ()
    """The records of its creation while they are not folded."""
    triggered: bool = False
    """Whether its creation also starts it."""
    starting: tuple[bytes, ...] = ()
    """The records of a trigger that is not folded."""

    @property
    def starts(self) -> bool:
        """Whether it will run as soon as what was accepted is folded."""
        return self.status == ExecutionStatus.PENDING and (self.triggered or bool(self.starting))


@dataclass(frozen=True, slots=True)
class Birth:
    """How an execution came to be: the hash of the request, and the records of its creation while not folded."""

    request: str
    pending: tuple[bytes, ...] = ()


async def read_births(redis: Redis, namespace: str, execution_ids: Sequence[str]) -> list[Birth | None]:
    """How executions came to be; None for those that are not there."""
    async with redis.pipeline(transaction=False) as pipe:
        for execution_id in execution_ids:
            keys = PartitionKeys.of(namespace, partition_of(execution_id))
            pipe.hget(keys.accepted, f"{execution_id}/create")  # first: see `read_head`
            pipe.hmget(keys.execution(execution_id), ["status", "request"])
        replies = iter(await pipe.execute())
    return [_birth(accepted, *folded) for accepted, folded in zip(replies, replies, strict=True)]


def _birth(accepted: bytes | None, status: bytes | None, request: bytes | None) -> Birth | None:
    if status is not None:
        return Birth((request or b"").decode())
    if accepted is None:
        return None
    command = unpack_command(accepted)
    return Birth(command.request, tuple(command.record))


async def read_head(redis: Redis, namespace: str, execution_id: str) -> Head:
    """The head of an execution, folded or merely accepted. Raises the problem 404."""
    if not is_execution_id(execution_id):
        raise unknown_execution()
    keys = PartitionKeys.of(namespace, partition_of(execution_id))
    async with redis.pipeline(transaction=False) as pipe:
        # In this order: APPLY removes the command in the step that writes the execution, so one of the two is seen.
        pipe.hmget(keys.accepted, [f"{execution_id}/create", f"{execution_id}/trigger"])
        pipe.hmget(keys.execution(execution_id), _FIELDS)
        (accepted, trigger), fields = await pipe.execute()
    starting = unpack_command(trigger).record if trigger is not None else ()
    if fields[0] is not None:
        return replace(_folded(fields), starting=starting)
    if accepted is not None:
        return replace(_accepted(accepted), starting=starting)
    raise unknown_execution()


def _folded(fields: list[bytes | None]) -> Head:
    status, document, given, request, *obeyed = (value or b"" for value in fields)
    known = {name: hash_ for commands in obeyed if commands for name, hash_ in json.loads(commands)}
    return Head(status.decode(), document.decode(), given or b"{}", request.decode(), known)


def _accepted(data: bytes) -> Head:
    command = unpack_command(data)
    records = [wire.decode_event(record) for record in command.record]
    created = next(record for record in records if isinstance(record, wire.Created))
    triggered = any(isinstance(record, wire.Triggered) for record in records)
    return Head(
        ExecutionStatus.PENDING,
        created.document,
        created.input,
        command.request,
        {},
        tuple(command.record),
        triggered,
    )
