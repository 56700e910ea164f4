"""Workers that beat, and what they can run."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.catalogue import decode as decode_catalogue
from wf_core.store.keys import InstallationKeys
from wf_core.store.reads.views import TaskView, WorkerView, moment

MOST_WORKERS = 10_000


class _Published(msgspec.Struct, frozen=True):
    """What a worker says about itself; fields that are not known here are ignored."""

    id: str
    host: str = ""
    pid: int = 0
    queues: list[str] = []
    slots: int = 0
    free: int = 0
    version: str = ""
    catalogue: str = ""
    started_at: int | None = None
    broken: dict[str, str] = {}


_decoder = msgspec.json.Decoder(_Published)


async def read_workers(redis: Redis, namespace: str, now_ms: int) -> list[WorkerView]:
    """The workers that beat, by id. One that is gone leaves when its key expires. Two round trips."""
    return [
        WorkerView(
            id=published.id,
            host=published.host,
            pid=published.pid,
            queues=published.queues,
            slots=published.slots,
            free=published.free,
            version=published.version,
            catalogue=published.catalogue,
            started_at=moment(published.started_at),
            last_seen=cast("Any", moment(seen_ms)),
            silent_ms=max(0, now_ms - seen_ms),
            broken=published.broken,
        )
        for published, seen_ms in await _published(redis, namespace)
    ]


class Capacity(NamedTuple):
    """What a worker that beats takes, and whether it has room."""

    worker: str
    queues: frozenset[str]
    tasks: frozenset[str]
    free: int
    last_seen_ms: int


async def read_capacities(redis: Redis, namespace: str) -> list[Capacity]:
    """What each worker takes, by id. Three round trips."""
    published = await _published(redis, namespace)
    catalogues = await _catalogues(redis, namespace, [worker for worker, _ in published])
    return [
        Capacity(
            worker.id,
            frozenset(worker.queues),
            frozenset(catalogues.get(worker.catalogue, Catalogue()).tasks),
            worker.free,
            seen_ms,
        )
        for worker, seen_ms in published
    ]


async def read_catalogue(redis: Redis, namespace: str) -> Catalogue:
    """What live workers can run together, by name; empty when no worker lives. Three round trips.

    `refused` are the tasks that some have and none is allowed to run.
    """
    workers = [published for published, _ in await _published(redis, namespace)]
    found: dict[str, TaskInfo] = {}
    refused: set[str] = set()
    for catalogue in (await _catalogues(redis, namespace, workers)).values():
        found |= catalogue.tasks
        refused.update(catalogue.refused)
    return Catalogue(tasks=dict(sorted(found.items())), refused=tuple(sorted(refused - found.keys())))


async def read_tasks(redis: Redis, namespace: str) -> list[TaskView]:
    """Every task that some live worker can run, by name, with the queues and workers. Three round trips."""
    workers = [published for published, _ in await _published(redis, namespace)]
    catalogues = await _catalogues(redis, namespace, workers)
    found: dict[str, tuple[TaskInfo, set[str], list[str]]] = {}
    for worker in workers:
        for name, info in catalogues.get(worker.catalogue, Catalogue()).tasks.items():
            _, queues, ids = found.setdefault(name, (info, set(), []))
            queues.update(worker.queues)
            ids.append(worker.id)
    return [
        TaskView(**msgspec.structs.asdict(info), queues=sorted(queues), workers=ids)
        for _, (info, queues, ids) in sorted(found.items())
    ]


async def _published(redis: Redis, namespace: str) -> list[tuple[_Published, int]]:
    keys = InstallationKeys(namespace)
    newest = cast("Any", redis.zrevrange(keys.workers, 0, MOST_WORKERS - 1, withscores=True))
    seen = {worker_id.decode(): int(score) for worker_id, score in await newest}
    async with redis.pipeline(transaction=False) as pipe:
        for worker_id in seen:
            pipe.get(keys.worker(worker_id))
        values = await pipe.execute()
    found = [(_decoder.decode(value), seen[worker_id]) for worker_id, value in zip(seen, values, strict=True) if value]
    return sorted(found, key=lambda pair: pair[0].id)


async def _catalogues(redis: Redis, namespace: str, workers: list[_Published]) -> dict[str, Catalogue]:
    hashes = sorted({worker.catalogue for worker in workers if worker.catalogue})
    if not hashes:
        return {}
    values = await cast("Any", redis.hmget(InstallationKeys(namespace).catalogues, hashes))
    return {name: decode_catalogue(value) for name, value in zip(hashes, values, strict=True) if value}
