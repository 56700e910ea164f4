"""The documents that executions are created with: a partition that has not folded one gets it with each command."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from wf_api.acceptance import APPLY_SECONDS, append
from wf_api.problems import unavailable
from wf_api.records import SOURCE
from wf_core import wire
from wf_core.documents import document_records
from wf_core.ids import partition_of
from wf_core.store.keys import PartitionKeys

if TYPE_CHECKING:
    from wf_api.context import ApiContext

MOST_COPIED = 16 * 2**20
"""Bytes of documents that the commands of one request carry together; what is more goes ahead of them."""
Place = tuple[int, str]
"""A partition and the hash of a document."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """By partition: the records that go ahead of each creation, and the keys of the documents that are there."""

    records: Mapping[int, tuple[bytes, ...]]
    relied_on: Mapping[int, tuple[str, ...]]


async def lacking(context: ApiContext, documents: Mapping[str, bytes], ids: Sequence[str], now: int) -> Ahead:
    """What of those `documents` (hash → canonical) the home partitions of `ids` have not folded, as records.

    They belong in front of the creation of every execution there: an accepted command is appended by whoever finds it,
    in any order, and finds its document only ahead of itself. Raises the problem 503 when they are too large to be
    copied so often and no orchestrator takes them at once.
    """
    counts = Counter(map(partition_of, ids))
    homes = {p: PartitionKeys.of(context.settings.namespace, p) for p in counts}
    keys = {(p, name): home.document(name) for p, home in homes.items() for name in documents}
    missing = await _not_folded(context, keys)
    relied_on = {p: tuple(keys[p, name] for name in documents if (p, name) not in missing) for p in counts}
    if not missing:
        return Ahead(dict.fromkeys(counts, ()), relied_on)
    records = await _records(context, {name: documents[name] for _, name in missing}, missing, ids, now)
    if sum(counts[p] * sum(map(len, sent)) for p, sent in records.items()) > MOST_COPIED:
        await _send_ahead(context, records)
        return Ahead(dict.fromkeys(counts, ()), {p: tuple(keys[p, name] for name in documents) for p in counts})
    return Ahead(records, relied_on)


async def _not_folded(context: ApiContext, keys: Mapping[Place, str]) -> set[Place]:
    """Where documents are not folded whole: each part of one is a field, and `parts` says how many there are.

    One that was seen whole is believed to be so still: ACCEPT_ALL looks again.
    """
    asked = [(place, key) for place, key in keys.items() if context.folded.get(key) is None]
    if not asked:
        return set()
    async with context.redis.pipeline(transaction=False) as pipe:
        for _, key in asked:
            pipe.hget(key, "parts")
            pipe.hlen(key)
        replies = iter(await pipe.execute())
    missing = set()
    for place, key in asked:
        if _is_whole(next(replies), next(replies)):
            context.folded.put(key, True)
        else:
            missing.add(place)
    return missing


def _is_whole(parts: bytes | None, fields: int) -> bool:
    return parts is not None and int(fields) == int(parts) + 1


async def _records(
    context: ApiContext, documents: Mapping[str, bytes], missing: set[Place], ids: Sequence[str], now: int
) -> dict[int, tuple[bytes, ...]]:
    """The records of missing documents by partition, each under the first of the `ids` that lives there."""
    parts: dict[str, list[wire.Document]] = {}
    for name, canonical in documents.items():
        write = partial(document_records, "", now, SOURCE, name, canonical)
        parts[name] = await context.compute(len(canonical), write)
    first = {partition_of(execution_id): execution_id for execution_id in reversed(ids)}
    return {
        p: tuple(
            wire.encode(msgspec.structs.replace(part, execution=execution_id))
            for name in documents
            if (p, name) in missing
            for part in parts[name]
        )
        for p, execution_id in first.items()
    }


async def _send_ahead(context: ApiContext, records: Mapping[int, Sequence[bytes]]) -> None:
    """Appends documents alone and waits until they are folded: nothing was accepted so far."""

    async def sent(partition: int, documents: Sequence[bytes]) -> bool:
        offsets = await append(context, partition, documents)
        return await context.positions.passed(partition, offsets[-1], APPLY_SECONDS)

    if not all(await asyncio.gather(*(sent(partition, own) for partition, own in records.items() if own))):
        raise unavailable(
            "No orchestrator has taken the document yet, which is too large to go with each execution. Nothing was "
            "accepted; send the batch again."
        )
