"""Lists of executions, and of workers and what they can run."""

from __future__ import annotations

import json
import random
from typing import NamedTuple

import pytest
from redis.asyncio import Redis

from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.ids import new_execution_id
from wf_core.states import ExecutionStatus
from wf_core.store import reads
from wf_core.store.keys import InstallationKeys
from wf_core.store.reads import Filters, listing
from wf_core.store.scripts import Scripts

CREATED = 1_800_000_000_000
PARTITIONS = 4
NODES = {"a": "core.noop"}


class Facts(NamedTuple):
    """What the filters' expectations look at: number and age in ms."""

    i: int
    at: int


def never(_: Facts) -> bool:
    return False


async def ids(redis: Redis, namespace: str, limit: int = 50, **filters: object) -> list[str]:
    """The whole list, page by page."""
    found: list[str] = []
    cursor = None
    while True:
        page = await reads.list_executions(redis, namespace, PARTITIONS, Filters(**filters), cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        found += [item.execution_id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.fixture
async def many(write) -> list:
    """Forty executions in four partitions, several in the same millisecond, newest first."""
    random_ = random.Random(7)
    found = [
        await (
            await write(
                NODES,
                partition=i % PARTITIONS,
                created_at=CREATED + random_.randrange(12),
                name=f"flow{i % 3}",
                labels={"team": "data" if i % 2 else "web", "n": str(i)},
            )
        ).fold(status=[ExecutionStatus.RUNNING, ExecutionStatus.COMPLETED, ExecutionStatus.PENDING][i % 5 % 3])
        for i in range(40)
    ]
    return sorted(found, key=lambda one: (one.created_at, one.execution_id), reverse=True)


async def test_no_executions(redis: Redis, namespace: str):
    """An empty installation has an empty list."""
    assert await ids(redis, namespace) == []


@pytest.mark.parametrize("limit", [1, 3, 39, 40, 41, 100])
async def test_pages_hold_every_execution_once_newest_first(redis: Redis, namespace: str, many, limit: int):
    """Partitions are merged; pages neither repeat nor leave out, even within one millisecond."""
    assert await ids(redis, namespace, limit) == [one.execution_id for one in many]


@pytest.mark.parametrize("limit", [2, 50])
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"statuses": ["RUNNING"]}, lambda one: one.i % 5 % 3 == 0),
        ({"statuses": ["RUNNING", "PENDING"]}, lambda one: one.i % 5 % 3 != 1),
        ({"name": "flow1"}, lambda one: one.i % 3 == 1),
        ({"name": "flow"}, never),
        ({"labels": {"team": "web"}}, lambda one: one.i % 2 == 0),
        (
            {"labels": {"team": "web"}, "name": "flow1", "statuses": ["COMPLETED"]},
            lambda one: one.i % 2 == 0 and one.i % 3 == 1 and one.i % 5 % 3 == 1,
        ),
        ({"since_ms": CREATED + 6}, lambda one: one.at >= 6),
        ({"q": "FLOW2"}, lambda one: one.i % 3 == 2),
        ({"q": "team=data", "since_ms": CREATED + 3}, lambda one: one.i % 2 == 1 and one.at >= 3),
        ({"q": "nowhere"}, never),
    ],
)
async def test_filters_hold_together(redis: Redis, namespace: str, many, filters, expected, limit: int):
    """Status, name (exact), labels, since and q (any part of id, name and labels)."""
    wanted = [one.execution_id for one in many if expected(Facts(int(one.labels["n"]), one.created_at - CREATED))]
    assert await ids(redis, namespace, limit, **filters) == wanted


async def test_an_id_is_found_by_a_part_of_it(redis: Redis, namespace: str, many):
    """`q` searches ids too."""
    assert await ids(redis, namespace, q=many[5].execution_id[8:]) == [many[5].execution_id]


async def test_executions_that_come_in_do_not_disturb_the_pages(redis: Redis, namespace: str, many, write):
    """What was there when the first page was read is listed exactly once."""
    found: list[str] = []
    cursor, n = None, 0
    while True:
        page = await reads.list_executions(redis, namespace, PARTITIONS, cursor=cursor, limit=7)
        found += [item.execution_id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        for partition in range(PARTITIONS):
            n += 1
            await (await write(NODES, partition=partition, created_at=CREATED + 100 + n)).fold()
    assert found == [one.execution_id for one in many]


async def test_many_executions_of_one_millisecond(redis: Redis, namespace: str, write):
    """A burst in one partition and millisecond is paged through like any other."""
    burst = [await (await write(NODES, created_at=CREATED)).fold() for _ in range(60)]
    expected = sorted((one.execution_id for one in burst), reverse=True)
    assert await ids(redis, namespace, 2) == expected
    assert await ids(redis, namespace, 2, q="orders") == expected


async def test_accepted_executions_are_listed(redis: Redis, namespace: str, scripts: Scripts, many, write):
    """What was answered is listed at its time before it was folded, as PENDING."""
    new = await write(NODES, partition=1, created_at=CREATED + 50, name="fresh")
    old = await write(NODES, partition=2, created_at=CREATED - 50, name="fresh")
    for one in (new, old):
        await scripts.accept(one.keys, one.execution_id, "create", one.command(), [""])
    expected = [new.execution_id, *(one.execution_id for one in many), old.execution_id]
    for limit in (1, 10, 100):
        assert await ids(redis, namespace, limit) == expected
    assert await ids(redis, namespace, name="fresh", statuses=["PENDING"]) == [new.execution_id, old.execution_id]
    assert await ids(redis, namespace, name="fresh", statuses=["RUNNING"]) == []
    assert await ids(redis, namespace, since_ms=CREATED + 20) == [new.execution_id]


async def test_an_execution_folded_between_the_reads_is_listed_once(
    redis: Redis, namespace: str, scripts: Scripts, write
):
    """A creation that is still among the accepted commands does not appear twice, whatever its two times are."""
    one = await write(NODES)
    await (await write(NODES, created_at=CREATED + 5, execution_id=one.execution_id)).fold()
    await redis.hset(one.keys.accepted, f"{one.execution_id}/create", one.command())
    assert await ids(redis, namespace, 1) == [one.execution_id]


async def test_a_search_in_vain_stops_and_goes_on(redis: Redis, namespace: str, many, monkeypatch):
    """A page may come back short, with a cursor, so that no request searches without bound."""
    monkeypatch.setattr(listing, "MOST_ROUNDS", 1)
    monkeypatch.setattr(listing, "_FILTERED", 8)
    page = await reads.list_executions(redis, namespace, PARTITIONS, Filters(q="nowhere"), limit=5)
    assert page.items == []
    assert page.next_cursor is not None
    assert await ids(redis, namespace, 5, q="flow1") == [o.execution_id for o in many if o.name == "flow1"]


async def test_an_index_entry_without_an_execution_is_passed_over(redis: Redis, namespace: str, many):
    """An execution that was deleted meanwhile is no error."""
    gone = many[3]
    await redis.delete(gone.keys.execution(gone.execution_id))
    assert await ids(redis, namespace, 2) == [o.execution_id for o in many if o is not gone]


async def publish(
    redis: Redis, namespace: str, worker: str, catalogue: Catalogue, queues: list[str], seen: int
) -> None:
    keys = InstallationKeys(namespace)
    said = {"id": worker, "host": "h", "pid": 5, "queues": queues, "slots": 16, "free": 3, "version": "0.1.0"}
    said |= {"broken": catalogue.broken} if catalogue.broken else {}  # a worker of an older release says nothing of it
    await redis.hset(keys.catalogues, catalogue.hash, catalogue.encode())
    await redis.zadd(keys.workers, {worker: seen})
    await redis.set(
        keys.worker(worker), json.dumps({**said, "catalogue": catalogue.hash, "started_at": CREATED}), ex=60
    )


async def test_workers_and_what_they_can_run(redis: Redis, namespace: str):
    """Live workers by id, the union of their catalogues, and who can run what; a dead worker counts no more."""
    noop, echo = (TaskInfo(name=name, package="p", version="1", params={"type": "object"}) for name in ("noop", "echo"))
    broken = {"bad.py": "bad.py does not import"}
    await publish(
        redis, namespace, "w2", Catalogue(tasks={"noop": noop}, broken=broken, refused=("echo",)), ["a"], CREATED + 10
    )
    both = Catalogue(tasks={"noop": noop, "echo": echo}, refused=("shell.run",))
    await publish(redis, namespace, "w1", both, ["b", "a"], CREATED)
    await publish(redis, namespace, "w0", Catalogue(tasks={"gone": noop}), ["c"], CREATED)
    await redis.delete(InstallationKeys(namespace).worker("w0"))
    workers = await reads.read_workers(redis, namespace, CREATED + 30)
    assert [(w.id, w.queues, w.free, w.silent_ms) for w in workers] == [("w1", ["b", "a"], 3, 30), ("w2", ["a"], 3, 20)]
    assert [w.broken for w in workers] == [{}, broken]
    assert await reads.read_catalogue(redis, namespace) == both
    tasks = await reads.read_tasks(redis, namespace)
    assert [(t.name, t.queues, t.workers) for t in tasks] == [
        ("echo", ["a", "b"], ["w1"]),
        ("noop", ["a", "b"], ["w1", "w2"]),
    ]


async def test_no_workers(redis: Redis, namespace: str):
    """Without workers nothing is known of tasks."""
    assert await reads.read_workers(redis, namespace, CREATED) == []
    assert await reads.read_catalogue(redis, namespace) == Catalogue()
    assert await reads.read_tasks(redis, namespace) == []


def test_ids_order_by_time():
    """The order of ids within a millisecond is theirs; across milliseconds it is time's."""
    assert new_execution_id(0, CREATED) < new_execution_id(0, CREATED + 1)
