"""Why an execution or a node is where it is: each state that does not move, and each failure, in a sentence."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.ids import new_execution_id
from wf_core.states import AttemptClass, AttemptStatus, ExecutionStatus, NodeStatus, ScopeState
from wf_core.store import reads
from wf_core.store.codec import AttemptRecord
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.reads.why import Surroundings, read_why
from wf_core.wire import Failure

CREATED = 1_800_000_000_000
NOW = CREATED + 60_000
CHILD = new_execution_id(2, CREATED)
DOCUMENT: dict[str, Any] = {
    "max_parallel": 2,
    "nodes": {
        "load": {"task": "shop.load", "queue": "gpu", "compensate": {"task": "shop.drop"}},
        "check": {
            "kind": "switch",
            "depends_on": ["load"],
            "cases": [{"when": "true", "to": ["price"]}],
            "default": ["nothing"],
        },
        "price": {"kind": "map", "items": [1, 2, 3], "nodes": {"one": {"task": "shop.price"}}},
        "nothing": {"task": "core.noop"},
        "guarded": {"task": "core.noop", "depends_on": ["load"], "when": "input.go"},
        "after": {"task": "core.noop", "depends_on": ["nothing"]},
        "report": {"task": "core.noop", "depends_on": ["price", "guarded"]},
        "poll": {"kind": "loop", "max_iterations": 5, "until": "true", "delay": "5s", "nodes": {"x": {"task": "t.x"}}},
        "sub": {"kind": "workflow", "workflow": "child"},
        "wait": {"kind": "wait", "any": [{"signal": "go", "match": "payload.n > 2"}, {"duration": "1h"}]},
        "ask": {"kind": "approval", "assignees": ["ann", "bob"], "timeout": "1h"},
        "grow": {"kind": "dynamic", "nodes": "${{ nodes.load.output }}"},
    },
    "finally": {"clean": {"task": "core.noop"}},
}  # fmt: skip
NODES = [*DOCUMENT["nodes"], "clean", "price[0]/one", "price[1]/one", "poll#0/x", "load~compensate"]
ERROR = Failure(type="OSError", message="away\nfor good.")


def tried(attempt: int = 1, **fields: Any) -> AttemptRecord:
    """An attempt that failed."""
    known = {"status": AttemptStatus.FAILED, "class_": AttemptClass.USER, "error": ERROR}
    return AttemptRecord(attempt=attempt, **{**known, **fields})


@pytest.fixture
async def one(write):
    """A running execution of which nothing has begun."""
    made = await write(dict.fromkeys(NODES, ""), document=DOCUMENT, queue="gpu")
    return await made.fold(started_at=str(CREATED))


@pytest.fixture
def why(redis: Redis, namespace: str, one):
    """The sentences about the execution, or about a node of it."""

    async def ask(node: str | None = None) -> list[str]:
        around = Surroundings(namespace, 4, NOW, 3000)
        found = await read_why(redis, around, one.execution_id, node)
        assert found is not None
        return [cause.sentence for cause in found.causes]

    return ask


async def test_nothing_to_ask_about(redis: Redis, namespace: str, one):
    """An execution that does not exist is None, a node that does not exist an error."""
    around = Surroundings(namespace, 4, NOW, 3000)
    assert await read_why(redis, around, new_execution_id(1, 1)) is None
    with pytest.raises(reads.UnknownNodeError):
        await read_why(redis, around, one.execution_id, "laod")


async def test_never_triggered(redis: Redis, namespace: str, write):
    """A PENDING execution was never triggered."""
    waiting = await (await write(dict.fromkeys(NODES, ""), document=DOCUMENT)).fold(status=ExecutionStatus.PENDING)
    for node in (None, "load"):
        found = await read_why(redis, Surroundings(namespace, 4, NOW, 3000), waiting.execution_id, node)
        assert found.causes[0].code == "not_triggered"


async def test_about_to_be_decided(why):
    """Where nothing has begun and nothing is waited for, the answer says that, too."""
    assert await why() == ["Nothing is waited for: what follows is about to be decided."]
    assert await why("load") == ["Nothing keeps load from starting: it is about to be decided."]


async def test_paused(one, why):
    """A paused execution says since when and why; a node that is held says that it is held by that."""
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), "status", "PAUSED"))
    await one.happened("1-0", "execution.paused", data=b'{"reason":"lunch"}')
    await one.set("load", NodeStatus.WAITING, 0)
    sentence = (
        "The execution is paused since 2027-01-15T08:00:00Z (1 min), 'lunch': nothing starts until it is resumed."
    )
    assert await why() == [sentence, "load may start, and is held since the execution is paused."]
    assert (await why("load"))[0] == sentence


async def test_upstream(one, why):
    """A PENDING node names what it waits for, and why that waits."""
    await one.set("load", NodeStatus.QUEUED)
    assert await why("report") == [
        "report waits for price (PENDING), guarded (PENDING) to end.",
        "price waits for check (PENDING) to end.",
        "guarded waits for load (QUEUED) to end.",
        "check waits for load (QUEUED) to end.",
        "load is in the queue 'gpu' (1 attempt in it), which no live worker takes from.",
    ]
    assert await why("clean") == ["clean stands in `finally`: it starts when everything else has ended."]


async def test_queued(redis: Redis, namespace: str, one, why):
    """A QUEUED node says whether a live worker takes from its queue, knows its task and has room."""
    keys = InstallationKeys(namespace)
    await one.set("load", NodeStatus.QUEUED)

    async def publish(worker: str, task: str, free: int, seen: int = NOW) -> None:
        catalogue = Catalogue(tasks={task: TaskInfo(name=task)})
        about = {"id": worker, "queues": ["gpu"], "slots": 4, "free": free, "catalogue": catalogue.hash}
        await redis.hset(keys.catalogues, catalogue.hash, catalogue.encode())
        await redis.set(keys.worker(worker), json.dumps(about), ex=60)
        await redis.zadd(keys.workers, {worker: seen})

    await publish("w0", "shop.load", 4, NOW - 5000)
    assert "no live worker takes from" in (await why())[0]
    await publish("w1", "shop.other", 4)
    assert await why() == ["load needs the task 'shop.load', which no live worker of the queue 'gpu' has (w1)."]
    await publish("w2", "shop.load", 0)
    assert await why() == ["load is in the queue 'gpu' (1 attempt in it): all slots of w2 are taken."]
    await publish("w2", "shop.load", 1)
    assert await why() == ["load is in the queue 'gpu' (1 attempt in it) and about to be taken."]


async def test_the_depth_of_a_queue(redis: Redis, namespace: str, one, why):
    """What was sent and is not claimed counts, in every partition; other queues do not."""
    await one.set("load", NodeStatus.QUEUED)
    other = PartitionKeys.of(namespace, 1)
    sent = {"e/a/1": f"{namespace}.tasks.gpu-0:5:x-y", "e/b/1": f"{namespace}.tasks.gpu-1:6:x-y",
            "e/c/1": f"{namespace}.tasks.default-0:7:x-y"}  # fmt: skip
    await redis.hset(other.sent, mapping=sent)
    await redis.hset(other.claims, "e/b/1", "w1|5")
    assert "(2 attempts in it)" in (await why("load"))[0]


async def test_running(one, why, scripts):
    """A RUNNING node says who has it and what it reported."""
    await one.set("load", NodeStatus.QUEUED, 2)
    await scripts.claim(one.keys, "w1", [one.token("load", 2)], [False])
    sentence = (await why("load"))[0]
    assert sentence.startswith("load runs on w1 since ")
    assert sentence.endswith("attempt 2.")


async def test_retrying(one, why):
    """A RETRYING node says when it is tried again, what failed, and which rule decided it."""
    decided = tried(decision="retry", reason="1 of 3 retries")
    await one.set("load", NodeStatus.RETRYING, attempts=[decided])
    await one.owner.write(("ZADD", one.keys.timers, NOW + 3200, f"retry|{one.token('load')}"))
    assert await why() == [
        "load is tried again in 3.2 s (at 2027-01-15T08:01:03Z): attempt 1 failed with OSError: away; 1 of 3 retries."
    ]
    await one.owner.write(("ZREM", one.keys.timers, f"retry|{one.token('load')}"))
    assert (await why())[0].startswith("load failed, and its retry policy is being asked")


async def test_slots(one, why):
    """A node without a slot names the limit and who holds it."""
    for node in ("guarded", "price[0]/one"):
        await one.set(node, NodeStatus.QUEUED)
    await one.open("price[0]", "price", "price[0]/one")
    await one.set("load", NodeStatus.WAITING, 0)
    assert await why("load") == ["load waits for one of the 2 slots (max_parallel), held by guarded, price[0]/one."]


async def test_items_of_a_map(one, why):
    """A map says how far its items are, which run, and what they wait for."""
    await one.set("price", NodeStatus.WAITING, input=b"[1,2,3]")
    await one.open("price[0]", "price", "price[0]/one", state=ScopeState.FAILED)
    await one.open("price[1]", "price", "price[1]/one", number=1)
    await one.set("price[1]/one", NodeStatus.RETRYING, attempts=[tried()])
    sentences = await why()
    assert sentences[0] == "price waits for its items: 1 of 3 have ended, 1 of them failed; price[1] run."
    assert sentences[1].startswith("price[1]/one failed, and its retry policy is being asked")


async def test_passes_of_a_loop(one, why):
    """A loop says which pass runs, or when the next one begins."""
    await one.set("poll", NodeStatus.WAITING)
    await one.open("poll#0", "poll", "poll#0/x")
    await one.set("poll#0/x", NodeStatus.QUEUED)
    assert (await why())[0] == "poll waits for its pass 0 (from 0) of at most 5."
    await one.open("poll#0", "poll", "poll#0/x", state=ScopeState.COMPLETED)
    await one.owner.write(("ZADD", one.keys.timers, NOW + 5000, f"pass|{one.token('poll')}"))
    assert await why("poll") == ["poll begins its pass 1 of at most 5 in 5 s (at 2027-01-15T08:01:05Z)."]


async def test_a_child(redis: Redis, namespace: str, one, why):
    """A `workflow` node says where its child stands."""
    await one.set("sub", NodeStatus.WAITING, child=json.dumps(CHILD).encode())
    assert await why() == [f"sub waits for its child execution {CHILD}, which is being started."]
    await redis.hset(PartitionKeys.of(namespace, 2).execution(CHILD), "status", "PAUSED")
    assert await why() == [f"sub waits for its child execution {CHILD}, which is PAUSED (`wf why {CHILD}`)."]


async def test_waits_and_approvals(one, why):
    """A wait names its signals and its time, an approval whom it asks and until when."""
    await one.set("wait", NodeStatus.WAITING)
    await one.set("ask", NodeStatus.WAITING, at=NOW - 4000, input=b'{"assignees":["ann","bob"],"schema":null}')
    due = (("ZADD", one.keys.timers, NOW + 3_600_000, f"{kind}|{one.token(node)}")
           for kind, node in (("wait", "wait"), ("approval", "ask")))  # fmt: skip
    await one.owner.write(*due)
    assert await why() == [
        "wait waits for the signal 'go' that fits `match` (payload.n > 2) (`wf signal`).",
        "wait waits: its time comes in 1 h (at 2027-01-15T09:01:00Z).",
        "ask waits for an answer from ann, bob since 2027-01-15T08:00:56Z (4 s) (`wf approve`).",
        "The answer to ask must come until 2027-01-15T09:01:00Z (1 h from now).",
    ]


async def test_a_dynamic_node(one, why):
    """A dynamic node whose nodes are not there yet says so."""
    await one.set("grow", NodeStatus.WAITING)
    assert await why() == ["The nodes of grow are being checked."]


async def test_a_concurrency_key(redis: Redis, namespace: str, one, why):
    """An execution that waits for its key says who holds it."""
    hold = msgspec.msgpack.encode(["daily", 0, "waiting", "e0"])
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), "hold", hold))
    assert await why() == ["The execution waits for the concurrency key 'daily'; it is held by e0."]
    for number in range(4):
        record = msgspec.msgpack.encode([[["e1", 0, 1, "queue"]], []])
        await redis.hset(PartitionKeys.of(namespace, number).concurrency, "daily", record)
    assert "it is held by e1" in (await why("load"))[0]


async def test_a_failure(one, why):
    """A FAILED execution says where it began: from the container to the innermost node, its attempts and its error."""
    error = Failure(type="OSError", message="1 of 3 items failed; price[1]: away", node="price[1]/one", attempt=4)
    await one.fail(error)
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), "status", "FAILED"))
    await one.set(
        "price", NodeStatus.FAILED, attempts=[tried(error=error, reason="the node has no `retry` of its own")]
    )
    await one.open("price[1]", "price", "price[1]/one", number=1, state=ScopeState.FAILED, error=error)
    await one.set("price[1]/one", NodeStatus.FAILED, 4, attempts=[tried(4, reason="all 3 retries are used")])
    said, reason = "1 of 3 items failed; price[1]: away", "the node has no `retry` of its own"
    chain = [
        f"price failed, which began at price[1]/one: OSError: {said} ({reason}).",
        "price[1]/one failed after 4 attempts: OSError: away (all 3 retries are used).",
    ]
    assert await why() == ["The execution failed at 'price[1]/one', attempt 4: OSError: away.", *chain]
    assert await why("price") == chain


@pytest.mark.parametrize("status", [NodeStatus.RETRYING, NodeStatus.FAILED])
async def test_compensations(one, why, status: NodeStatus):
    """What is being undone is told while it is, and when it failed also of an execution that has ended."""
    await one.set("load", NodeStatus.COMPLETED, output=b"1")
    await one.open("load~compensate", "load", "load~compensate")
    await one.set("load~compensate", status, 1, attempts=[tried()])
    if status is NodeStatus.FAILED:
        await one.owner.write(("HSET", one.keys.execution(one.execution_id), "status", "CANCELLED"))
    assert (await why())[-1].startswith("load~compensate failed")


SEVERAL: dict[str, Any] = {
    "on_failure": "continue",
    "nodes": {
        "a": {"task": "t"},
        "b": {"task": "t"},
        "m": {"kind": "map", "items": [1], "nodes": {"x": {"task": "t"}}},
        "continued": {"task": "t", "on_error": "continue"},
        "caught": {"task": "t", "catch": [{"errors": ["OSError"], "to": "rescue"}]},
        "any": {"task": "t", "catch": [{"to": "rescue"}]},
        "missed": {"task": "t", "catch": [{"errors": ["KeyError"], "to": "rescue"}]},
        "rescue": {"task": "t"},
        "undone": {"task": "t", "compensate": {"task": "u"}},
    },
    "finally": {"f": {"task": "t"}},
}


@pytest.fixture
async def several(write):
    """An execution of SEVERAL in which everything that may fail has failed, `b` first."""
    nodes = [*SEVERAL["nodes"], "f", "m[0]/x", "undone~compensate"]
    made = await (await write(dict.fromkeys(nodes, ""), document=SEVERAL)).fold(started_at=str(CREATED))
    for node in ("a", "b", "continued", "caught", "any", "missed", "f"):
        await made.set(node, NodeStatus.FAILED, attempts=[tried()])
    failure = Failure(type="OSError", message="away", node="m[0]/x", attempt=1)
    await made.set("m", NodeStatus.FAILED, attempts=[tried(error=failure)])
    await made.open("m[0]", "m", "m[0]/x", state=ScopeState.FAILED, error=failure)
    await made.set("m[0]/x", NodeStatus.FAILED, attempts=[tried()])
    await made.set("undone", NodeStatus.COMPLETED, output=b"1")
    await made.open("undone~compensate", "undone", "undone~compensate")
    await made.set("undone~compensate", NodeStatus.FAILED, attempts=[tried()])
    return made


@pytest.mark.parametrize("status", [ExecutionStatus.FAILED, ExecutionStatus.CANCELLED])
async def test_several_failures(redis: Redis, namespace: str, several, status: ExecutionStatus):
    """Each one that counts is told, that of `finally` too, the first one first; caught and continued ones are not."""
    await several.fail(Failure(type="OSError", message="away", node="m[0]/x", attempt=1))
    await several.owner.write(("HSET", several.keys.execution(several.execution_id), "status", status.value))
    found = await read_why(redis, Surroundings(namespace, 4, NOW, 3000), several.execution_id)
    nodes = [cause.node for cause in found.causes]
    if status is ExecutionStatus.FAILED:
        assert nodes == [None, "m", "m[0]/x", "undone~compensate", "a", "b", "missed", "f"]
    else:
        assert nodes == [None, "undone~compensate", "a", "b", "m", "missed", "f", "m[0]/x"]
    assert next(one.sentence for one in found.causes if one.node == "b") == "b failed: OSError: away."


async def test_more_failures_than_are_told(redis: Redis, namespace: str, write):
    """However many failed, an answer speaks of a few."""
    names = [f"n{number}" for number in range(30)]
    document = {"on_failure": "continue", "nodes": {name: {"task": "t"} for name in names}}
    many = await (await write(dict.fromkeys(names, ""), document=document)).fold(started_at=str(CREATED))
    for name in names:
        await many.set(name, NodeStatus.FAILED, attempts=[tried()])
    await many.fail(Failure(type="OSError", message="away", node="n20", attempt=1))
    await many.owner.write(("HSET", many.keys.execution(many.execution_id), "status", "FAILED"))
    found = await read_why(redis, Surroundings(namespace, 4, NOW, 3000), many.execution_id)
    assert [cause.node for cause in found.causes] == [None, "n20", *names[:11]]


async def test_a_failed_child(one, why):
    """A failure in a child execution names the child."""
    await one.set("sub", NodeStatus.FAILED, attempts=[tried()], child=json.dumps(CHILD).encode())
    assert await why("sub") == [f"sub failed in its child execution {CHILD} (`wf why {CHILD}`): OSError: away."]


async def test_what_a_failure_left(one, why):
    """What cannot start because of a failure names it and the join rule."""
    await one.set("guarded", NodeStatus.FAILED, attempts=[tried()])
    await one.set("report", NodeStatus.UPSTREAM_FAILED, 0)
    assert await why("report") == [
        "report can never start because of guarded (FAILED); its join is all_success.",
        "guarded failed: OSError: away.",
    ]


async def test_skipped(one, why):
    """A SKIPPED node names the switch, the guard, or the skipped node before it."""
    await one.set("load", NodeStatus.COMPLETED, output=b"1")
    await one.set("check", NodeStatus.COMPLETED, output=b"0")
    for node in ("nothing", "after", "guarded"):
        await one.set(node, NodeStatus.SKIPPED, 0)
    switch = "nothing was skipped: the switch check did not choose it."
    assert await why("nothing") == [switch]
    assert await why("after") == ["after was skipped, since nothing was skipped before it.", switch]
    assert await why("guarded") == ["guarded was skipped: its guard `when` (input.go) did not hold."]


async def test_cancelled(one, why):
    """A CANCELLED node and a CANCELLED execution say why."""
    await one.set("load", NodeStatus.CANCELLED, 0)
    assert await why("load") == ["load was cancelled: the execution was cancelled."]
    await one.happened("1-0", "node.cancelled", node="load", data=b'{"reason":"the execution halts"}')
    await one.happened("2-0", "execution.cancelling", data=b'{"reason":"no need"}')
    assert await why("load") == ["load was cancelled: the execution halts."]
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), "status", "CANCELLED"))
    assert await why() == ["The execution was cancelled: no need."]


async def test_cancelled_by_its_end_node(one, why):
    """An `end` node said why; that it had been cancelled before its last retry is of no interest."""
    await one.happened("1-0", "execution.cancelling", data=b'{"reason":"no need"}')
    await one.happened("2-0", "execution.retried")
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), "status", "CANCELLED"))
    assert await why() == ["The execution was cancelled."]
    await one.fail(Failure(type="Foo", message="out of stock", node="stop", attempt=1))
    assert await why() == ["The execution was cancelled: Foo: out of stock."]


async def test_ending_and_halting(one, why):
    """An execution that is ending says as what; one that halts says after which failure."""
    key = one.keys.execution(one.execution_id)
    await one.fail(ERROR)
    await one.owner.write(("HSET", key, "halting", "halt"))
    assert await why() == ["The execution failed and starts only clean-up: OSError: away."]
    await one.owner.write(("HSET", key, "ending", "FAILED"))
    assert await why() == ["The execution will be FAILED; its compensations and `finally` run before that."]


async def test_nothing_wrong(one, why):
    """What has completed says so, too."""
    await one.set("load", NodeStatus.COMPLETED, output=b"1")
    assert await why("load") == ["load has completed."]
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), "status", "COMPLETED"))
    assert await why() == ["The execution has completed."]


async def test_without_its_document(redis: Redis, one, why):
    """An execution whose document is not there still says what is known."""
    await one.fail(Failure(type="InternalError", message="the log holds no document"))
    await one.owner.write(("HSET", one.keys.execution(one.execution_id), "status", "FAILED"))
    await redis.delete(one.keys.document(one.hash))
    assert await why() == ["The execution failed: InternalError: the log holds no document."]
