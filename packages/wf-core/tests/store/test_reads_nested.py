"""Reads of nodes inside maps, loops and dynamic nodes, of compensations and of child executions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from wf_core import wire
from wf_core.states import AttemptStatus, NodeStatus, ScopeState
from wf_core.store import reads
from wf_core.store.codec import AttemptRecord
from wf_core.store.reads import executions
from wf_core.store.scripts import Scripts

CREATED = 1_800_000_000_000
DOCUMENT = {
    "nodes": {
        "list": {"task": "shop.list"},
        "price": {
            "kind": "map",
            "items": "${{ nodes.list.output }}",
            "batch": 2,
            "nodes": {
                "one": {"task": "shop.price", "queue": "gpu", "compensate": {"task": "shop.undo"}},
                "inner": {"kind": "loop", "max_iterations": 5, "nodes": {"x": {"task": "t.x"}, "y": {"task": "t.y"}}},
            },
        },
        "short": {"kind": "map", "items": [1], "task": "shop.ship", "queue": "cpu"},
        "grow": {"kind": "dynamic", "nodes": "${{ nodes.list.output }}"},
        "sub": {"kind": "workflow", "workflow": "child"},
    },
    "finally": {"clean": {"task": "core.noop"}},
}
TOP = ["list", "price", "short", "grow", "sub", "clean"]
# Item 1 opened before item 0, and a pass inside item 1 before anything inside item 0.
INSIDE = {
    "price[1]": ["price[1]/one", "price[1]/inner"],
    "price[1]/inner#0": ["price[1]/inner#0/x", "price[1]/inner#0/y"],
    "price[0]": ["price[0]/one", "price[0]/inner"],
    "price[0]/inner#2": ["price[0]/inner#2/x", "price[0]/inner#2/y"],
    "price[0]/one~compensate": ["price[0]/one~compensate"],
    "short[0]": ["short[0]"],
    "grow": ["grow/a", "grow/sub"],
    "grow/sub[0]": ["grow/sub[0]"],
}
CELLS = dict.fromkeys([*TOP, *(path for paths in INSIDE.values() for path in paths)], "")
PRICE = [
    *INSIDE["price[0]"][:1],
    "price[0]/one~compensate",
    "price[0]/inner",
    *INSIDE["price[0]/inner#2"],
    "price[1]/one",
    "price[1]/inner",
    *INSIDE["price[1]/inner#0"],
]
GROWN = {"nodes": {"a": {"task": "t.a"}, "sub": {"kind": "map", "items": [0], "task": "t.s"}}}


@pytest.fixture
async def one(write):
    """An execution whose containers have opened scopes."""
    made = await (await write(CELLS, document=DOCUMENT)).fold(counts=json.dumps({"WAITING": 3, "PENDING": 16}))
    await made.open("price[1]", "price", "price[1]/one", number=1)
    await made.open("price[1]/inner#0", "price[1]/inner", "price[1]/inner#0/x")
    await made.open("price[0]", "price", "price[0]/one", number=0, state=ScopeState.FAILED)
    await made.open("price[0]/inner#2", "price[0]/inner", "price[0]/inner#2/x", number=2)
    await made.open("price[0]/one~compensate", "price[0]/one", "price[0]/one~compensate")
    await made.open("short[0]", "short", "short[0]")
    await made.open("grow", "grow", "grow/a", document=json.dumps(GROWN).encode())
    await made.open("grow/sub[0]", "grow/sub", "grow/sub[0]")
    return made


@pytest.fixture
def under(redis: Redis, namespace: str, one):
    """The paths that a list shows, in pages of `limit`."""

    async def walk(path: str | None, limit: int = 100, **filters: Any) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = await reads.read_nodes(
                redis, namespace, one.execution_id, under=path, cursor=cursor, limit=limit, **filters
            )
            found += [item.node for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found

    return walk


async def test_the_top_level(redis: Redis, namespace: str, one, under):
    """Without `under` a list shows the document's own nodes, then those of `finally`; so does an execution."""
    assert await under(None) == await under(None, 1) == TOP
    view = await reads.read_execution(redis, namespace, one.execution_id)
    assert list(view.nodes) == TOP
    assert view.nodes_omitted == 0
    assert view.counts == {"WAITING": 3, "PENDING": 16}
    page = await reads.read_nodes(redis, namespace, one.execution_id)
    assert [(item.kind, item.task, item.queue) for item in page.items] == [
        ("task", "shop.list", "default"),
        ("map", None, None),
        ("map", None, None),
        ("dynamic", None, None),
        ("workflow", None, None),
        ("task", "core.noop", "default"),
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_under_a_container(under, limit: int):
    """A list under a container is deep and in the order of items and passes, in pages of any length."""
    assert await under("price", limit) == PRICE
    assert await under("price[1]", limit) == PRICE[5:]
    assert await under("price[0]/inner", limit) == INSIDE["price[0]/inner#2"]
    assert await under("price[0]/one", limit) == ["price[0]/one~compensate"]
    assert await under("short", limit) == await under("short[0]", limit) == ["short[0]"]
    assert await under("grow", limit) == ["grow/a", "grow/sub", "grow/sub[0]"]
    assert await under("list", limit) == []


async def test_filters_under_a_container(one, under, scripts: Scripts):
    """The filters of a list hold inside containers as well; what a worker claimed is RUNNING there too."""
    for path in ("price[0]/inner#2/x", "price[1]/inner#0/x"):
        await one.set(path, NodeStatus.QUEUED)
    await scripts.claim(one.keys, "w1", [one.token("price[1]/inner#0/x")], [False])
    assert await under("price", statuses=["QUEUED"]) == ["price[0]/inner#2/x"]
    assert await under("price", statuses=["RUNNING"]) == ["price[1]/inner#0/x"]
    assert await under("price", task="t.y") == ["price[0]/inner#2/y", "price[1]/inner#0/y"]
    assert await under("grow", task="t.s") == ["grow/sub[0]"]


@pytest.mark.parametrize("path", [*CELLS])
async def test_every_path_is_found(redis: Redis, namespace: str, one, path: str):
    """A node at any depth is found at its path, with its own cell."""
    await one.set(path, NodeStatus.COMPLETED, 7, output=b'"mine"')
    node = await reads.read_node(redis, namespace, one.execution_id, path)
    assert (node.node, node.status, node.attempts) == (path, NodeStatus.COMPLETED, 7)
    assert bytes(node.output) == b'"mine"'


async def test_what_inner_nodes_are(redis: Redis, namespace: str, one):
    """Tasks and queues of inner nodes come from the document, those of a dynamic node from what it was expanded to."""
    wanted = {
        "price[0]/one": ("task", "shop.price", "gpu"),
        "price[0]/one~compensate": ("task", "shop.undo", "gpu"),
        "price[1]/inner": ("loop", None, None),
        "short[0]": ("task", "shop.ship", "cpu"),
        "grow/a": ("task", "t.a", "default"),
        "grow/sub[0]": ("task", "t.s", "default"),
    }
    for path, told in wanted.items():
        node = await reads.read_node(redis, namespace, one.execution_id, path)
        assert (node.kind, node.task, node.queue) == told, path


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("price[2]/one", ()),
        ("price[1]/won", ("price[1]/one",)),
        ("pirce", ("price",)),
        ("price[0]", ("price[0]/one",)),
        ("price[1]/inner[0]/x", ("price[1]/inner#0/x",)),
        ("price[0]/inner#2", None),
        ("price[0]/inner#1/x", None),
        ("list/x", None),
        ("list~compensate", None),
        ("", ()),
    ],
)
async def test_unknown_paths(redis: Redis, namespace: str, one, path: str, nearest: tuple[str, ...] | None):
    """A path that leads nowhere, or to a scope and not to a node, is an error that names what looks like it."""
    with pytest.raises(reads.UnknownNodeError) as unknown:
        await reads.read_node(redis, namespace, one.execution_id, path)
    if nearest is not None:
        assert unknown.value.nearest == nearest


async def test_dormant_scopes_are_not_shown(redis: Redis, namespace: str, one, under):
    """What an earlier attempt of a container left, and all inside it, does not show until it is opened again."""
    await one.open("price[1]", "price", "price[1]/one", number=1, state=ScopeState.DORMANT)
    assert await under("price") == PRICE[:5]
    for path in ("price[1]/one", "price[1]/inner#0/x"):
        with pytest.raises(reads.UnknownNodeError):
            await reads.read_node(redis, namespace, one.execution_id, path)
    with pytest.raises(reads.UnknownNodeError):
        await under("price[1]")


async def test_progress_of_containers(redis: Redis, namespace: str, one):
    """A map tells how many of its items (batches) were opened, ended and failed, a loop which pass it is at."""
    await one.set("price", NodeStatus.WAITING, input=b"[1,2,3,4,5]")
    await one.set("price[0]/inner", NodeStatus.WAITING)
    view = await reads.read_execution(redis, namespace, one.execution_id)
    assert view.nodes["price"].progress == reads.ProgressView(total=3, opened=2, ended=1, failed=1)
    assert view.nodes["price"].started_at == datetime.fromtimestamp((CREATED + 9000) / 1000, UTC)
    assert view.nodes["short"].progress is None
    loop = await reads.read_node(redis, namespace, one.execution_id, "price[0]/inner")
    assert json.loads(msgspec.json.encode(loop))["progress"] == {
        "total": 5,
        "opened": 1,
        "ended": 0,
        "failed": 0,
        "pass": 2,
    }


async def test_a_compensation_is_shown_with_its_node(redis: Redis, namespace: str, one):
    """The record of a node's compensation stands in the node's view as well as at its own path."""
    undone = AttemptRecord(attempt=1, status=AttemptStatus.COMPLETED, worker="w1", started_at=CREATED)
    await one.set("price[0]/one~compensate", NodeStatus.COMPLETED, attempts=[undone])
    node = await reads.read_node(redis, namespace, one.execution_id, "price[0]/one")
    assert (node.compensation.node, node.compensation.task) == ("price[0]/one~compensate", "shop.undo")
    assert (node.compensation.status, node.compensation.worker) == (NodeStatus.COMPLETED, "w1")
    other = await reads.read_node(redis, namespace, one.execution_id, "price[1]/one")
    assert other.compensation is None


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_compensations_of_the_top_level(redis: Redis, namespace: str, write, limit: int):
    """Lists and the execution show a compensation after its node once it has begun; those inside stand `under` it."""
    undo = {"task": "t", "compensate": {"task": "u"}}
    nodes = {
        "a": undo,
        "b": {"task": "t"},
        "c": undo,
        "m": {"kind": "map", "items": [1], "nodes": {"x": undo}},
        "d": undo,
    }
    paths = [*nodes, "f", "m[0]/x", "m[0]/x~compensate", "a~compensate", "c~compensate"]
    made = await write(dict.fromkeys(paths, ""), document={"nodes": nodes, "finally": {"f": {"task": "t"}}})
    await made.fold(counts=json.dumps({"PENDING": 9, "FAILED": 1}))
    await made.open("m[0]", "m", "m[0]/x")
    await made.open("m[0]/x~compensate", "m[0]/x", "m[0]/x~compensate")
    for name in ("c", "a"):
        await made.open(f"{name}~compensate", name, f"{name}~compensate")
    failed = AttemptRecord(attempt=1, status=AttemptStatus.FAILED, error=wire.Failure(type="E", message="m"))
    await made.set("a~compensate", NodeStatus.FAILED, attempts=[failed])
    found, cursor = [], None
    while not found or cursor:
        page = await reads.read_nodes(redis, namespace, made.execution_id, cursor=cursor, limit=limit)
        found, cursor = [*found, *page.items], page.next_cursor
    assert [item.node for item in found] == ["a", "a~compensate", "b", "c", "c~compensate", "m", "d", "f"]
    assert (found[1].task, found[1].status, found[1].error.message) == ("u", NodeStatus.FAILED, "m")
    page = await reads.read_nodes(redis, namespace, made.execution_id, statuses=["FAILED"])
    assert [item.node for item in page.items] == ["a~compensate"]
    view = await reads.read_execution(redis, namespace, made.execution_id)
    assert list(view.nodes) == [item.node for item in found]
    assert view.nodes["a~compensate"].status is NodeStatus.FAILED
    assert view.nodes_omitted == 0


async def test_compensations_count_among_the_nodes_that_are_omitted(
    redis: Redis, namespace: str, write, monkeypatch: pytest.MonkeyPatch
):
    """What an execution does not show is counted with them."""
    monkeypatch.setattr(executions, "MOST_NODES", 3)
    nodes = {name: {"task": "t", "compensate": {"task": "u"}} for name in ("a", "b", "c")}
    made = await write(dict.fromkeys([*nodes, "a~compensate", "b~compensate"], ""), document={"nodes": nodes})
    await made.fold()
    for name in ("a", "b"):
        await made.open(f"{name}~compensate", name, f"{name}~compensate")
    view = await reads.read_execution(redis, namespace, made.execution_id)
    assert (list(view.nodes), view.nodes_omitted) == (["a", "a~compensate", "b"], 2)


async def test_a_child_and_its_parent_name_each_other(redis: Redis, namespace: str, one):
    """A `workflow` node names the execution that it runs, which names the node that it runs for."""
    await one.set("sub", NodeStatus.WAITING, child=b'"0123"')
    node = await reads.read_node(redis, namespace, one.execution_id, "sub")
    assert node.child == reads.ChildView(execution_id="0123")
    parent = msgspec.msgpack.encode(wire.Parent(execution="p1", node="price[3]/sub", attempt=1))
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), "parent", parent))
    view = await reads.read_execution(redis, namespace, one.execution_id)
    assert view.parent == reads.ParentView(execution_id="p1", node="price[3]/sub")


async def test_an_execution_that_is_ending(redis: Redis, namespace: str, one):
    """While compensations and `finally` run, an execution says what it will end in, and that it halts."""
    fields = ("ending", "FAILED", "halting", "halt")
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), *fields))
    view = await reads.read_execution(redis, namespace, one.execution_id, nodes=False)
    assert (view.status, view.ending, view.halting) == ("RUNNING", "FAILED", "halt")


async def test_results_hold_the_top_level(redis: Redis, namespace: str, one):
    """Outputs inside containers are in those of the containers."""
    await one.set("price", NodeStatus.COMPLETED, output=b"[1]")
    await one.set("price[0]/one", NodeStatus.COMPLETED, output=b"1")
    await one.set("clean", NodeStatus.COMPLETED, output=b"null")
    results = await reads.read_results(redis, namespace, one.execution_id)
    assert json.loads(msgspec.json.encode(results))["results"] == {"price": [1], "clean": None}


async def test_attempts_count_from_the_floor(redis: Redis, namespace: str, one, scripts: Scripts):
    """Numbers of attempts never come again; of a pass that took over the cells of another only its own count."""
    await one.open("price[1]/inner#0", "price[1]/inner", "price[1]/inner#0/x", floor=4)
    await one.set("price[1]/inner#0/x", NodeStatus.QUEUED, 6)
    await one.set("price[1]/inner#0/y", NodeStatus.PENDING, 4)
    await scripts.claim(one.keys, "w1", [one.token("price[1]/inner#0/x", 6)], [False])
    page = await reads.read_nodes(redis, namespace, one.execution_id, under="price[1]/inner")
    assert [(item.status, item.attempts, item.worker) for item in page.items] == [
        (NodeStatus.RUNNING, 2, "w1"),
        (NodeStatus.PENDING, 0, None),
    ]
