"""The history of an execution, in pages."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.store.codec import HistoryLine, history_lines
from wf_core.store.reads import snapshot as snapshots
from wf_core.store.reads.views import EventPage, EventView, moment

_SEQ = re.compile(r"\d{1,20}-\d{1,20}")


async def read_events(
    redis: Redis, namespace: str, execution_id: str, *, after_seq: str | None = None, limit: int = 100
) -> EventPage | None:
    """Events after `after_seq` (None: from the first), oldest first; None when there is no such execution.

    Raises ValueError when `after_seq` has not the form of one.
    """
    keys = snapshots.keys_of(namespace, execution_id)
    if keys is None:
        return None
    if after_seq is not None and not _SEQ.fullmatch(after_seq):
        raise ValueError(f"{after_seq!r} is no seq of an event: it looks like 17-0")
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hexists(keys.accepted, f"{execution_id}/create")
        pipe.exists(keys.execution(execution_id))
        pipe.xrange(keys.history(execution_id), f"({after_seq}" if after_seq else "-", "+", count=limit + 1)
        accepted, folded, entries = await pipe.execute()
    if not accepted and not folded:
        return None
    lines = [line for entry, fields in entries for line in history_lines(entry, fields)]
    if after_seq is not None:  # it may be in the middle of the first entry
        lines = [line for line in lines if _place(line.seq) > _place(after_seq)]
    items = [_view(line) for line in lines[:limit]]
    return EventPage(items=items, next_cursor=items[-1].seq if len(lines) > limit else None)


def _place(seq: str) -> tuple[int, int]:
    position, _, number = seq.partition("-")
    return int(position), int(number)


def _view(line: HistoryLine) -> EventView:
    return EventView(
        seq=line.seq,
        ts=cast("Any", moment(line.ts)),
        kind=line.kind,
        node=line.node or None,
        attempt=line.attempt or None,
        status=line.status or None,
        data=msgspec.Raw(line.data) if line.data else None,
    )
