"""Creations of one request: accepted in one step, all or none, and appended a partition at a time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from wf_api.acceptance import APPLY_SECONDS, Command, Delivery, append, check_size, refusals
from wf_api.accepting import MOST_TOGETHER, Asked
from wf_api.idempotency import conflict
from wf_api.problems import unavailable
from wf_core.failpoints import fail_point
from wf_core.ids import partition_of
from wf_core.store.cluster import ClusterClient
from wf_core.store.commands import pack_command, unpack_command
from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Created, Creation

if TYPE_CHECKING:
    from wf_api.context import ApiContext

T = TypeVar("T")
Execution = TypeVar("Execution", "Accepted", Command)
_TRIES = 5
"""Of accepting what is missing while the same request comes elsewhere, too."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An execution whose creation is accepted: the records that the log is to take, none once it was folded."""

    execution_id: str
    records: tuple[bytes, ...]


class DocumentGoneError(Exception):
    """A document that a partition had folded is not there any more: Redis forgot it. Nothing, or not all, was kept."""


async def accept_all(
    context: ApiContext, commands: Sequence[Command], documents: Mapping[int, tuple[str, ...]], now_ms: int
) -> list[Accepted]:
    """Keeps commands that create executions, in one step: all or none. What the same request brought before stays.

    `documents` are the keys of those that each partition must have. The partitions of a Redis Cluster cannot be written
    in one step: that of the first execution goes ahead, so that of two requests under one key only one gets further,
    and what is cut short there is completed by a repetition. Raises DocumentGoneError and the problems 409, 422, 503.
    """
    for command in commands:
        check_size(command)
    if not isinstance(context.redis, ClusterClient):
        relied_on = tuple(key for keys in documents.values() for key in keys)
        accepted = await _accept(context, commands, relied_on, now_ms)
    else:
        first, *others = _by_partition(commands).items()
        accepted = await _accept(context, first[1], documents[first[0]], now_ms)
        for share in await _all(_accept(context, own, documents[p], now_ms) for p, own in others):
            accepted |= share
    return [accepted[command.execution_id] for command in commands]


async def _accept(
    context: ApiContext, commands: Sequence[Command], documents: tuple[str, ...], now_ms: int
) -> dict[str, Accepted]:
    """Keeps all of the commands or none, but for those that are there already."""
    accepted: dict[str, Accepted] = {}
    for _ in range(_TRIES):
        missing = [command for command in commands if command.execution_id not in accepted]
        known = await _ask(context, [_creation(context, command, now_ms) for command in missing], documents)
        context.counters.inc(
            "api_commands_total", len(known or missing), verb="create", answer="EXISTS" if known else "OK"
        )
        for place, created in known.items():
            execution_id = missing[place].execution_id
            accepted[execution_id] = Accepted(execution_id, _records_of(created, missing[place].request))
        if not known or len(known) == len(missing):
            return accepted | {c.execution_id: Accepted(c.execution_id, c.records) for c in missing if not known}
    raise unavailable("The same request comes elsewhere, too; repeat it under the same Idempotency-Key.")


async def _ask(context: ApiContext, creations: Sequence[Creation], documents: tuple[str, ...]) -> Mapping[int, Created]:
    if isinstance(context.redis, ClusterClient) or len(creations) > MOST_TOGETHER:
        known = await context.scripts.accept_all(creations, documents)
    else:
        known = await context.accepting.ask(Asked(creations, documents))
    if known is None:
        raise DocumentGoneError
    return known


def _records_of(created: Created, request: str) -> tuple[bytes, ...]:
    """The records of a creation that waits to be folded. Raises the problem 409 when another request made it."""
    stored = unpack_command(created.command) if created.command else None
    if (stored.request if stored else created.request) != request:
        raise conflict()
    return tuple(stored.record) if stored else ()


def _creation(context: ApiContext, command: Command, now_ms: int) -> Creation:
    keys = PartitionKeys.of(context.settings.namespace, partition_of(command.execution_id))
    return Creation(keys, command.execution_id, pack_command(now_ms, command.records, command.request))


async def deliver_all(context: ApiContext, accepted: Sequence[Accepted], *, wait: bool) -> list[Delivery | None]:
    """Appends accepted creations and, with `wait`, gives the folds up to two seconds to pass them.

    A delivery for each; None for what was folded before. Raises the problems 413 and 503; accepted they are all the
    same.
    """
    fail_point("api.accepted")
    waiting = [one for one in accepted if one.records]
    shares = _by_partition(waiting)
    with refusals(context, [one.execution_id for one in waiting]):
        appended = await _all(_append(context, partition, share) for partition, share in shares.items())
    fail_point("api.appended")
    ends = {partition: max(offsets.values()) for partition, offsets in zip(shares, appended, strict=True)}
    passed = await _all(context.positions.passed(p, end, APPLY_SECONDS) for p, end in ends.items()) if wait else []
    applied = dict(zip(ends, passed, strict=False))
    deliveries = {
        execution_id: Delivery(f"{partition}:{offset}", applied.get(partition, False))
        for partition, offsets in zip(shares, appended, strict=True)
        for execution_id, offset in offsets.items()
    }
    return [deliveries.get(one.execution_id) for one in accepted]


async def _append(context: ApiContext, partition: int, share: Sequence[Accepted]) -> dict[str, int]:
    """Appends the records of a partition's executions, documents that they share once; where the last of each lies."""
    records = list(dict.fromkeys(record for one in share for record in one.records))
    key = share[0].execution_id.encode() if len(share) == 1 else None
    offsets = dict(zip(records, await append(context, partition, records, key=key), strict=True))
    return {one.execution_id: offsets[one.records[-1]] for one in share}


def _by_partition(items: Iterable[Execution]) -> Mapping[int, list[Execution]]:
    shares: defaultdict[int, list[Execution]] = defaultdict(list)
    for item in items:
        shares[partition_of(item.execution_id)].append(item)
    return shares


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """What the calls return, once all have ended. Raises the first error among them."""
    listed = list(calls)
    if len(listed) == 1:
        return [await listed[0]]
    replies = await asyncio.gather(*listed, return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return [reply for reply in replies if not isinstance(reply, BaseException)]
