"""The history of an execution, in pages."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.store.reads import snapshot as snapshots
from wf_core.store.reads.views import EventPage, EventView, moment

_SEQ = re.compile(r"\d{1,20}-\d{1,20}")


async def read_events(
    redis: Redis, namespace: str, execution_id: str, *, after_seq: str | None = None, limit: int = 100
) -> EventPage | None:
    """Entries after `after_seq` (None: from the first), oldest first; None when there is no such execution.

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
    items = [_view(seq.decode(), fields) for seq, fields in entries[:limit]]
    return EventPage(items=items, next_cursor=items[-1].seq if len(entries) > limit else None)


def _view(seq: str, fields: dict[bytes, bytes]) -> EventView:
    attempt = fields.get(b"attempt")
    data = fields.get(b"data")
    return EventView(
        seq=seq,
        ts=cast("Any", moment(int(fields.get(b"ts", b"0")))),
        kind=fields.get(b"kind", b"").decode(),
        node=_text(fields.get(b"node")),
        attempt=int(attempt) if attempt else None,
        status=_text(fields.get(b"status")),
        data=msgspec.Raw(data) if data else None,
    )


def _text(value: bytes | None) -> str | None:
    return value.decode() if value else None
