"""Reads of one execution: its view, results, nodes and history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from wf_core import wire
from wf_core.states import AttemptClass, AttemptStatus, ExecutionStatus, NodeStatus
from wf_core.store import reads
from wf_core.store.codec import AttemptRecord, pack_history, pack_node
from wf_core.store.commands import pack_command
from wf_core.store.scripts import Scripts
from wf_core.store.shared import SharedClient
from wf_core.wire import Failure

CREATED = 1_800_000_000_000
UNKNOWN = "0" * 28
NODES = {"load": "core.echo", "a-b/x": "core.noop", "last": "core.noop"}


def at(ms: int) -> datetime:
    return datetime.fromtimestamp((CREATED + ms) / 1000, UTC)


def tried(attempt: int = 1, status: AttemptStatus = AttemptStatus.COMPLETED, **fields: object) -> AttemptRecord:
    known = {"worker": "w1", "queued_at": CREATED + 10, "started_at": CREATED + 20, "ended_at": CREATED + 30}
    return AttemptRecord(attempt=attempt, status=status, **{**known, **fields})


def as_json(view: object) -> dict:
    return json.loads(msgspec.json.encode(view))


@pytest.mark.parametrize("execution_id", [UNKNOWN, "nonsense", "", "x" * 28, "../../x"])
async def test_an_unknown_execution_is_none(redis: Redis, namespace: str, execution_id: str):
    """Nothing is known of an id that was never given out or has not the form of one."""
    assert await reads.read_execution(redis, namespace, execution_id) is None
    assert await reads.read_results(redis, namespace, execution_id) is None
    assert await reads.read_nodes(redis, namespace, execution_id) is None
    assert await reads.read_node(redis, namespace, execution_id, "load") is None
    assert await reads.read_events(redis, namespace, execution_id) is None


async def test_an_accepted_execution_is_pending(redis: Redis, namespace: str, scripts: Scripts, write):
    """What was answered can be read at once, before anything was folded."""
    one = await write(NODES, labels={"team": "data"})
    await scripts.accept(one.keys, one.execution_id, "create", one.command(), [""])
    assert as_json(await reads.read_execution(redis, namespace, one.execution_id)) == {
        "execution_id": one.execution_id,
        "name": "orders",
        "version": None,
        "status": "PENDING",
        "labels": {"team": "data"},
        "input": {"day": "2026-01-01"},
        "output": None,
        "error": None,
        "counts": {"PENDING": 3},
        "created_at": "2027-01-15T08:00:00Z",
        "started_at": None,
        "ended_at": None,
        "parent": None,
        "ending": None,
        "halting": None,
        "nodes": {
            node: {
                "status": "PENDING",
                "attempts": 0,
                "started_at": None,
                "ended_at": None,
                "error": None,
                "kind": "task",
                "progress": None,
            }
            for node in NODES
        },
        "nodes_omitted": 0,
    }
    brief = await reads.read_execution(redis, namespace, one.execution_id, nodes=False)
    assert brief is not None
    assert brief.counts == {"PENDING": 3}
    results = await reads.read_results(redis, namespace, one.execution_id)
    assert as_json(results) == {"execution_id": one.execution_id, "status": "PENDING", "output": None, "results": {}}
    page = await reads.read_nodes(redis, namespace, one.execution_id)
    assert page is not None
    assert [item.node for item in page.items] == list(NODES)
    node = await reads.read_node(redis, namespace, one.execution_id, "load")
    assert node is not None
    assert (node.status, node.input, node.history) == (NodeStatus.PENDING, None, [])
    assert await reads.read_events(redis, namespace, one.execution_id) == reads.EventPage(items=[], next_cursor=None)


async def test_an_accepted_execution_may_use_a_document_that_is_there(
    redis: Redis, namespace: str, scripts: Scripts, write
):
    """A second execution of a document need not bring it along."""
    await (await write(NODES)).fold()
    two = await write(NODES, created_at=CREATED + 1)
    command = pack_command(CREATED, [wire.encode(two.created())], "")
    await scripts.accept(two.keys, two.execution_id, "create", command, [""])
    view = await reads.read_execution(redis, namespace, two.execution_id)
    assert view is not None
    assert view.counts == {"PENDING": 3}


async def test_a_folded_execution_is_shown_in_full(redis: Redis, namespace: str, write):
    """An execution carries its input, output, first failure, counts, times, and its nodes."""
    one = await write(NODES)
    await one.fold(
        status=ExecutionStatus.FAILED,
        version="7",
        started_at=str(CREATED + 5),
        ended_at=str(CREATED + 50),
        output=b'{"big":123456789012345678901234567890}',
    )
    broken = Failure(type="ValueError", message="no rows", traceback="Traceback ...", node="a-b/x", attempt=2)
    await one.fail(broken)
    await one.set("load", NodeStatus.COMPLETED, at=CREATED + 30, attempts=[tried()], output=b"[1]")
    await one.set(
        "a-b/x",
        NodeStatus.FAILED,
        2,
        at=CREATED + 40,
        attempts=[
            tried(1, AttemptStatus.LOST, class_=AttemptClass.PLATFORM),
            tried(2, AttemptStatus.FAILED, error=broken),
        ],
    )
    await one.set("last", NodeStatus.UPSTREAM_FAILED, 0, at=CREATED + 41)
    await one.count(COMPLETED=1, FAILED=1, UPSTREAM_FAILED=1, PENDING=0)
    view = await reads.read_execution(redis, namespace, one.execution_id)
    assert view is not None
    assert (view.status, view.version, view.created_at) == (ExecutionStatus.FAILED, "7", at(0))
    assert (view.started_at, view.ended_at) == (at(5), at(50))
    assert as_json(view)["output"] == {"big": 123456789012345678901234567890}
    assert as_json(view)["error"] == {"type": "ValueError", "message": "no rows", "node": "a-b/x", "attempt": 2}
    assert view.counts == {"COMPLETED": 1, "FAILED": 1, "UPSTREAM_FAILED": 1}
    assert view.nodes == {
        "load": reads.NodeSummary(
            status=NodeStatus.COMPLETED, attempts=1, started_at=at(20), ended_at=at(30), error=None
        ),
        "a-b/x": reads.NodeSummary(
            status=NodeStatus.FAILED,
            attempts=2,
            started_at=at(20),
            ended_at=at(40),
            error=reads.NodeErrorView(type="ValueError", message="no rows"),
        ),
        "last": reads.NodeSummary(
            status=NodeStatus.UPSTREAM_FAILED, attempts=0, started_at=None, ended_at=at(41), error=None
        ),
    }
    results = await reads.read_results(redis, namespace, one.execution_id)
    assert results is not None
    assert as_json(results)["results"] == {"load": [1]}


async def test_a_claimed_node_is_running(redis: Redis, namespace: str, scripts: Scripts, write):
    """A queued node whose token a worker holds is RUNNING since the claim; a condemned one is not."""
    one = await (await write(NODES)).fold()
    for node in NODES:
        await one.set(node, NodeStatus.QUEUED)
    await one.count(QUEUED=3)
    await scripts.claim(one.keys, "w7", [one.token("load")], [False])
    await scripts.withdraw(one.keys, "owner", [one.token("last")])
    view = await reads.read_execution(redis, namespace, one.execution_id)
    assert view is not None
    assert view.counts == {"QUEUED": 2, "RUNNING": 1}
    assert [node.status for node in view.nodes.values()] == ["RUNNING", "QUEUED", "QUEUED"]
    brief = await reads.read_execution(redis, namespace, one.execution_id, nodes=False)
    assert brief is not None
    assert brief.counts == view.counts
    assert "nodes" not in as_json(brief)
    node = await reads.read_node(redis, namespace, one.execution_id, "load")
    assert node is not None
    assert (node.worker, node.status, node.attempts) == ("w7", NodeStatus.RUNNING, 1)
    assert node.started_at is not None


async def test_progress_of_a_running_node(redis: Redis, namespace: str, scripts: Scripts, write):
    """What the task gave to ctx.heartbeat comes with the claim, and means nothing once that is gone."""
    one = await (await write(NODES)).fold()
    await one.set("load", NodeStatus.QUEUED)
    token = one.token("load")
    await scripts.claim(one.keys, "w7", [token], [False])
    await scripts.beat(one.keys, "w7", [token], [], [(token, b'{"done":3}')])
    node = await reads.read_node(redis, namespace, one.execution_id, "load")
    assert as_json(node)["progress"] == {"done": 3}
    await one.owner.write(("HDEL", one.keys.claims, token))
    node = await reads.read_node(redis, namespace, one.execution_id, "load")
    assert as_json(node)["progress"] is None


async def test_claims_of_other_executions_do_not_count(redis: Redis, namespace: str, scripts: Scripts, write):
    """A partition's claims belong to many executions."""
    one, two = await (await write(NODES)).fold(), await (await write(NODES, created_at=CREATED + 1)).fold()
    for written in (one, two):
        await written.set("load", NodeStatus.QUEUED)
        await written.count(QUEUED=1, PENDING=2)
    await scripts.claim(two.keys, "w7", [two.token("load")], [False])
    view = await reads.read_execution(redis, namespace, one.execution_id)
    assert view is not None
    assert view.counts == {"QUEUED": 1, "PENDING": 2}


async def test_a_retried_node_shows_its_first_start_and_last_error(
    redis: Redis, namespace: str, scripts: Scripts, write
):
    """While a node is tried again its times span all attempts."""
    one = await (await write(NODES)).fold()
    failed = tried(1, AttemptStatus.FAILED, error=Failure(type="OSError", message="away"))
    await one.set("load", NodeStatus.QUEUED, 2, attempts=[failed])
    await one.count(QUEUED=1, PENDING=2)
    await scripts.claim(one.keys, "w9", [one.token("load", 2)], [False])
    node = await reads.read_node(redis, namespace, one.execution_id, "load")
    assert node is not None
    assert (node.status, node.attempts, node.worker, node.started_at) == (NodeStatus.RUNNING, 2, "w9", at(20))
    assert node.error == reads.NodeErrorView(type="OSError", message="away")


async def test_a_wide_execution_shows_its_first_thousand_nodes(redis: Redis, namespace: str, write):
    """The view of an execution is bounded; pages of nodes are not."""
    one = await (await write({f"n{i}": "core.noop" for i in range(1203)})).fold()
    view = await reads.read_execution(redis, namespace, one.execution_id)
    assert view is not None
    assert list(view.nodes) == [f"n{i}" for i in range(1000)]
    assert view.nodes_omitted == 203


async def test_results_of_thousands_of_nodes(redis: Redis, namespace: str, write):
    """Outputs are read in bounded commands."""
    names = [f"n{i}" for i in range(2500)]
    one = await (await write(dict.fromkeys(names, "core.noop"))).fold()
    cells = b"".join(pack_node(NodeStatus.COMPLETED, 1, 0, CREATED) for _ in names)
    outputs = [part for name in names for part in (f"o:{name}", f'"{name}"')]
    await one.owner.write(
        ("SETRANGE", one.keys.nodes(one.execution_id), 0, cells),
        ("HSET", one.keys.results(one.execution_id), *outputs),
    )
    results = await reads.read_results(redis, namespace, one.execution_id)
    assert results is not None
    assert as_json(results)["results"] == {name: name for name in names}


async def test_nodes_come_in_pages_with_filters(redis: Redis, namespace: str, scripts: Scripts, write):
    """Pages follow the document's order; filters by status (RUNNING too) and task."""
    names = {f"n{i}": "core.echo" if i % 2 else "core.noop" for i in range(7)}
    one = await (await write(names, queue="gpu")).fold()
    for name in ("n1", "n2", "n3", "n5"):
        await one.set(name, NodeStatus.QUEUED)
    await scripts.claim(one.keys, "w1", [one.token("n3")], [False])

    async def pages(**filters: object) -> list[list[str]]:
        found, cursor = [], None
        while True:
            page = await reads.read_nodes(redis, namespace, one.execution_id, cursor=cursor, limit=2, **filters)
            found.append([item.node for item in page.items])
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert await pages() == [["n0", "n1"], ["n2", "n3"], ["n4", "n5"], ["n6"]]
    assert await pages(statuses=["QUEUED"]) == [["n1", "n2"], ["n5"]]
    assert await pages(statuses=["RUNNING", "PENDING"]) == [["n0", "n3"], ["n4", "n6"]]
    assert await pages(task="core.echo", statuses=["QUEUED"]) == [["n1", "n5"]]
    assert await pages(task="none") == [[]]
    page = await reads.read_nodes(redis, namespace, one.execution_id, statuses=["RUNNING"])
    assert page is not None
    assert (page.items[0].queue, page.items[0].worker, page.items[0].task) == ("gpu", "w1", "core.echo")


@pytest.mark.parametrize("cursor", ["-1", "x", "", "1.5", "²"])
async def test_a_cursor_that_no_page_gave_is_refused(redis: Redis, namespace: str, cursor: str):
    """The caller must act."""
    with pytest.raises(ValueError, match="no cursor"):
        await reads.read_nodes(redis, namespace, UNKNOWN, cursor=cursor)
    with pytest.raises(ValueError, match="no cursor"):
        await reads.list_executions(redis, namespace, 2, cursor=cursor)
    with pytest.raises(ValueError, match="no seq"):
        await reads.read_events(redis, namespace, UNKNOWN, after_seq=cursor)


async def test_one_node_tells_everything(redis: Redis, namespace: str, write):
    """Input, output, and each attempt with its worker, times, error, decision and reason."""
    one = await (await write(NODES)).fold()
    failed = tried(
        1,
        AttemptStatus.FAILED,
        class_=AttemptClass.USER,
        error=Failure(
            type="OSError",
            message="away",
            traceback="Traceback ...",
            causes=(wire.Cause(type="KeyError", message="'host'"),),
        ),
        host="h1",
        worker_package="wf-worker 0.1.0",
        log_tail="trying",
        decision="retry",
        reason="1 of 3 retries, in 1 s",
    )
    await one.set(
        "a-b/x",
        NodeStatus.COMPLETED,
        2,
        at=CREATED + 99,
        attempts=[failed, tried(2, worker="w2", package="shop 1.0")],
        input=b'{"url":"x"}',
        output=b"null",
    )
    node = as_json(await reads.read_node(redis, namespace, one.execution_id, "a-b/x"))
    history = node.pop("history")
    assert node == {
        "node": "a-b/x",
        "kind": "task",
        "task": "core.noop",
        "status": "COMPLETED",
        "attempts": 2,
        "queue": "default",
        "worker": "w2",
        "started_at": "2027-01-15T08:00:00.020000Z",
        "ended_at": "2027-01-15T08:00:00.099000Z",
        "error": None,
        "input": {"url": "x"},
        "output": None,
        "child": None,
        "compensation": None,
        "progress": None,
    }
    assert history[0] == {
        "attempt": 1,
        "status": "FAILED",
        "class": "user",
        "worker": "w1",
        "host": "h1",
        "package": None,
        "worker_package": "wf-worker 0.1.0",
        "queued_at": "2027-01-15T08:00:00.010000Z",
        "started_at": "2027-01-15T08:00:00.020000Z",
        "ended_at": "2027-01-15T08:00:00.030000Z",
        "error": {
            "type": "OSError",
            "message": "away",
            "traceback": "Traceback ...",
            "causes": [{"type": "KeyError", "message": "'host'"}],
        },
        "decision": "retry",
        "reason": "1 of 3 retries, in 1 s",
        "log_tail": "trying",
    }
    assert (history[1]["status"], history[1]["class"], history[1]["package"]) == ("COMPLETED", None, "shop 1.0")


async def test_an_unknown_node_names_the_nearest(redis: Redis, namespace: str, write):
    """A node that the document does not have is an error that names the known one which looks most like it."""
    one = await (await write(NODES)).fold()
    with pytest.raises(reads.UnknownNodeError) as unknown:
        await reads.read_node(redis, namespace, one.execution_id, "lost")
    assert unknown.value.nearest == ("last",)
    with pytest.raises(reads.UnknownNodeError) as unknown:
        await reads.read_nodes(redis, namespace, one.execution_id, under="lost")
    assert unknown.value.nearest == ("last",)


async def test_events_come_in_order_after_a_seq(redis: Redis, namespace: str, write):
    """The history is read in pages; the seq of the last entry goes on from there."""
    one = await (await write(NODES)).fold()
    await one.happened("4-0", "execution.created", status="PENDING")
    await one.happened(
        "17592186044420-1", "node.lost", node="load", attempt=1, status="QUEUED", data=b'{"worker":"w1"}'
    )
    page = await reads.read_events(redis, namespace, one.execution_id, limit=1)
    assert as_json(page) == {
        "items": [
            {
                "seq": "4-0",
                "ts": "2027-01-15T08:00:00Z",
                "kind": "execution.created",
                "node": None,
                "attempt": None,
                "status": "PENDING",
                "data": None,
            }
        ],
        "next_cursor": "4-0",
    }
    rest = await reads.read_events(redis, namespace, one.execution_id, after_seq="4-0", limit=1)
    assert rest is not None
    assert rest.next_cursor is None
    assert as_json(rest)["items"][0]["data"] == {"worker": "w1"}
    assert (rest.items[0].node, rest.items[0].attempt) == ("load", 1)
    done = await reads.read_events(redis, namespace, one.execution_id, after_seq=rest.items[0].seq)
    assert done == reads.EventPage(items=[], next_cursor=None)


async def test_a_page_of_events_may_end_within_an_entry(redis: Redis, namespace: str, write):
    """What one batch told of an execution lies in one entry; pages are cut by events, whatever their size."""
    one = await (await write(NODES)).fold()
    places = [(9, 1), (9, 2), (10, 1), (12, 1), (12, 2)]
    for entry in (places[:3], places[3:]):
        lines: list[Any] = [(*place, (f"kind {place}", "", 0, "", CREATED, b"")) for place in entry]
        seq = "-".join(map(str, entry[-1]))
        await one.owner.write(("XADD", one.keys.history(one.execution_id), seq, "lines", pack_history(lines)))
    for limit in range(1, 7):
        seen: list[str] = []
        after: str | None = None
        while True:
            page = await reads.read_events(redis, namespace, one.execution_id, after_seq=after, limit=limit)
            assert page is not None
            seen += [f"{event.seq} {event.kind}" for event in page.items]
            after = page.next_cursor
            if after is None:
                break
            assert len(page.items) == limit
        assert seen == [f"{a}-{b} kind {(a, b)}" for a, b in places]


async def test_a_document_is_read_back(redis: Redis, namespace: str, write):
    """The canonical document as it was submitted; nothing for a hash that is unknown, or while parts are missing."""
    one = await (await write(NODES)).fold()
    assert await reads.read_document(redis, namespace, 3, one.hash) == one.canonical
    assert await reads.read_document(redis, namespace, 3, "none") is None
    await redis.hdel(one.keys.document(one.hash), "1")
    assert await reads.read_document(redis, namespace, 3, one.hash) is None


async def test_an_execution_without_its_document_is_shown(redis: Redis, namespace: str, write):
    """The log held no document, so the execution FAILED: its view says why, and has no nodes."""
    one = await (await write(NODES)).fold(status=ExecutionStatus.FAILED)
    await one.fail(Failure(type="InternalError", message="the log holds no document"))
    await one.count()
    await redis.delete(one.keys.document(one.hash))
    view = await reads.read_execution(redis, namespace, one.execution_id)
    assert view is not None
    assert (view.status, view.counts, view.nodes) == (ExecutionStatus.FAILED, {}, {})
    assert view.error is not None
    assert view.error.type == "InternalError"
    page = await reads.read_nodes(redis, namespace, one.execution_id)
    assert page == reads.NodePage(items=[], next_cursor=None)


async def test_round_trips_do_not_grow_with_the_execution(redis: Redis, namespace: str, write, monkeypatch):
    """A read is three round trips at most, two once the document was seen."""
    one = await (await write({f"n{i}": "core.noop" for i in range(300)})).fold()
    for i in range(0, 300, 50):
        await one.set(f"n{i}", NodeStatus.COMPLETED, attempts=[tried()])
    assert [await trips(redis, namespace, one.execution_id, monkeypatch) for _ in range(2)] == [3, 2]


async def trips(redis: Redis, namespace: str, execution_id: str, monkeypatch: pytest.MonkeyPatch) -> int:
    assert isinstance(redis, SharedClient)
    count = 0
    run = redis.run

    async def counted(commands: Sequence[tuple[object, ...]]) -> list[object]:
        nonlocal count
        count += 1
        return await run(commands)

    with monkeypatch.context() as patch:
        patch.setattr(redis, "run", counted)
        await reads.read_execution(redis, namespace, execution_id)
    return count
