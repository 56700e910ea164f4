"""Lists of executions, merged over the partitions, newest first.

A place in the order is `(created, execution id)`, and a cursor is the place of the last execution that was seen. New
executions come in before every cursor, so pages neither repeat nor leave out what was there when the first was read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis

from wf_core.ids import is_execution_id, partition_of
from wf_core.states import ExecutionStatus
from wf_core.store.keys import PartitionKeys
from wf_core.store.reads.executions import summary
from wf_core.store.reads.snapshot import SUMMARY_FIELDS, Execution, parse, parse_accepted
from wf_core.store.reads.views import ExecutionPage

MOST_ACCEPTED = 200
"""Executions that are only accepted which a list looks at; more wait only while no orchestrator runs."""
MOST_ROUNDS = 20
_FILTERED = 500

_CURSOR = re.compile(r"(\d{1,15})-(.+)")

Place = tuple[int, str]
"""`(Unix ms of its creation, execution id)`; the greatest comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a list is about. All given ones must hold; `q` is looked for in id, name and labels, in any case."""

    statuses: Collection[str] = ()
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    since_ms: int | None = None
    """Created at or after, Unix ms."""
    q: str | None = None

    def allow(self, execution_id: str, execution: Execution) -> bool:
        """Whether the list shows this execution."""
        return (
            (not self.statuses or execution.status in self.statuses)
            and self.name in (None, execution.name)
            and self.labels.items() <= execution.labels.items()
            and (self.since_ms is None or execution.created_at >= self.since_ms)
            and (not self.q or self._mentions(self.q.casefold(), execution_id, execution))
        )

    @staticmethod
    def _mentions(q: str, execution_id: str, execution: Execution) -> bool:
        texts = (execution_id, execution.name, *(f"{key}={value}" for key, value in execution.labels.items()))
        return any(q in text.casefold() for text in texts)

    def indexes(self) -> list[list[tuple[str, ...]]]:
        """Sets of indexes of which any holds all that the filters allow."""
        choices: list[list[tuple[str, ...]]] = []
        if self.statuses:
            choices.append([("s", status) for status in self.statuses])
        if self.name is not None:
            choices.append([("n", self.name)])
        choices += [[("l", f"{key}={value}")] for key, value in self.labels.items()]
        return choices or [[("all",)]]

    @property
    def is_narrower_than_an_index(self) -> bool:
        """Whether executions must be looked at one by one."""
        return bool(self.q) or len(self.indexes()) > 1


async def list_executions(  # noqa: PLR0913 - where, what and which page
    redis: Redis,
    namespace: str,
    partitions: int,
    filters: Filters | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> ExecutionPage:
    """A page of at most `limit` executions. `partitions` is the installation's number of event partitions.

    A search that finds little stops after some thousands of executions with a short page and a cursor to go on from.
    Raises ValueError for a cursor that no page gave.
    """
    filters = filters or Filters()
    place = _parse_cursor(cursor)
    everywhere = [PartitionKeys.of(namespace, partition) for partition in range(partitions)]
    accepted = await _accepted(redis, everywhere, filters)
    streams = await _streams(redis, everywhere, filters)
    chunk = _FILTERED if filters.is_narrower_than_an_index else limit + 1
    shown: list[tuple[Place, Execution]] = []
    is_all = False
    for _ in range(MOST_ROUNDS):
        indexed, floor = await _after(redis, streams, place, filters.since_ms, chunk)
        waiting = {p for p in accepted if (place is None or p < place) and (floor is None or p >= floor)}
        candidates = sorted({*indexed, *waiting}, reverse=True)
        is_all = floor is None and len(candidates) <= chunk
        del candidates[chunk:]
        shown += await _look(redis, namespace, candidates, accepted, set(indexed), filters)
        place = candidates[-1] if candidates else place
        if is_all or len(shown) > limit:
            break
    page = shown[:limit]
    if len(shown) > limit:
        place = page[-1][0]
    elif is_all:
        place = None
    items = [summary(execution_id, execution) for (_, execution_id), execution in page]
    return ExecutionPage(items=items, next_cursor=None if place is None else f"{place[0]}-{place[1]}")


async def _look(  # noqa: PLR0913 - the candidates and what tells them apart
    redis: Redis,
    namespace: str,
    candidates: Sequence[Place],
    accepted: Mapping[Place, Execution],
    indexed: Collection[Place],
    filters: Filters,
) -> list[tuple[Place, Execution]]:
    """The candidates that the filters allow. One that was folded meanwhile is shown at its place in the index only."""
    folded = await _load(redis, namespace, [execution_id for _, execution_id in candidates])
    found = []
    for place in candidates:
        execution = folded.get(place[1])
        if execution is None:
            execution = accepted.get(place)
        elif place not in indexed:
            continue
        if execution is not None and filters.allow(place[1], execution):
            found.append((place, execution))
    return found


def _parse_cursor(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor)
    if not match or not is_execution_id(match[2]):
        raise ValueError(f"{cursor!r} is no cursor of a list of executions")
    return int(match[1]), match[2]


async def _streams(redis: Redis, everywhere: Sequence[PartitionKeys], filters: Filters) -> list[str]:
    """The indexes to go through: those of the choice that holds the fewest executions."""
    choices = [[keys.index(*words) for words in choice for keys in everywhere] for choice in filters.indexes()]
    if len(choices) == 1:
        return choices[0]
    async with redis.pipeline(transaction=False) as pipe:
        for streams in choices:
            for stream in streams:
                pipe.zcard(stream)
        sizes = iter(await pipe.execute())
    totals = [sum(next(sizes) for _ in streams) for streams in choices]
    return choices[totals.index(min(totals))]


async def _after(
    redis: Redis, streams: Sequence[str], place: Place | None, since_ms: int | None, wanted: int
) -> tuple[list[Place], Place | None]:
    """Places after `place`, unordered, and how far down they are complete: to the floor, or to the end when None."""
    share = wanted // len(streams) + 8
    highest = f"({place[0]}" if place else "+inf"
    lowest = "-inf" if since_ms is None else since_ms
    async with redis.pipeline(transaction=False) as pipe:
        for stream in streams:
            pipe.zrevrangebyscore(stream, highest, lowest, start=0, num=share, withscores=True)
            if place:
                pipe.zrangebyscore(stream, place[0], place[0], withscores=True)
        replies: list[list[tuple[bytes, float]]] = await pipe.execute()
    older = [_places(reply) for reply in (replies[::2] if place else replies)]
    ties = [p for reply in (replies[1::2] if place else []) for p in _places(reply) if place and p < place]
    floor = max((found[-1] for found in older if len(found) == share), default=None)
    found = [*ties, *(p for stream in older for p in stream)]
    return [p for p in found if floor is None or p >= floor], floor


def _places(reply: Iterable[tuple[bytes, float]]) -> list[Place]:
    return [(int(score), member.decode()) for member, score in reply]


async def _accepted(redis: Redis, everywhere: Sequence[PartitionKeys], filters: Filters) -> dict[Place, Execution]:
    """Executions of which nothing was folded yet. Read before the indexes, so that none slips through between."""
    if filters.statuses and ExecutionStatus.PENDING not in filters.statuses:
        return {}
    async with redis.pipeline(transaction=False) as pipe:
        for keys in everywhere:
            pipe.hkeys(keys.accepted)
        replies: list[list[bytes]] = await pipe.execute()
    waiting = [
        (field.decode(), keys)
        for keys, fields in zip(everywhere, replies, strict=True)
        for field in fields
        if field.endswith(b"/create")
    ]
    newest = sorted(waiting, key=lambda pair: pair[0], reverse=True)[:MOST_ACCEPTED]
    async with redis.pipeline(transaction=False) as pipe:
        for name, keys in newest:
            pipe.hget(keys.accepted, name)
        commands: list[bytes | None] = await pipe.execute()
    found = {}
    for (name, _), command in zip(newest, commands, strict=True):
        if command is not None:
            execution, _ = parse_accepted(command)
            found[execution.created_at, name.partition("/")[0]] = execution
    return found


async def _load(redis: Redis, namespace: str, execution_ids: Sequence[str]) -> dict[str, Execution]:
    async with redis.pipeline(transaction=False) as pipe:
        for execution_id in execution_ids:
            keys = PartitionKeys.of(namespace, partition_of(execution_id))
            pipe.hmget(keys.execution(execution_id), SUMMARY_FIELDS)
        values: list[list[bytes | None]] = await pipe.execute()
    return {name: parse(fields) for name, fields in zip(execution_ids, values, strict=True) if fields[0] is not None}
