"""Pause, resume, retry, signals and approvals, of executions whose state was written by hand."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from wf_api.idempotency import Idempotency, request_hash
from wf_core import wire
from wf_core.ids import new_execution_id, partition_of
from wf_core.settings import Settings
from wf_core.states import ExecutionStatus, NodeStatus
from wf_core.store.codec import ScopeRecord, pack_node, pack_scope
from wf_core.store.commands import unpack_command
from wf_core.store.keys import PartitionKeys

from .conftest import DOCUMENT, HURRY, problem, until
from .test_control import create
from .test_creation import events_of

ANSWER = {"type": "object", "required": ["yes"], "properties": {"yes": {"type": "boolean"}}}
APPROVALS: dict[str, Any] = {
    "name": "approvals",
    "input": {"type": "object", "properties": {"day": {"type": "string"}}},
    "nodes": {
        "sign": {"kind": "approval", "schema": ANSWER},
        "m": {"kind": "map", "items": [1], "nodes": {"ask": {"kind": "approval", "schema": ANSWER}}},
        "any": {"kind": "approval"},
        "work": {"task": "core.echo"},
    },
}
NODES = ["sign", "m", "any", "work", "m[0]/ask"]
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
Folded = Callable[..., Awaitable[str]]


@pytest.fixture
def folded(settings: Settings, redis: Redis) -> Folded:
    """Writes an execution as the fold does: its status and document, the statuses of nodes.

    `retry` is the hash of a retry under the key `k` that was folded.
    """

    async def write(status: str = "RUNNING", *, retry: str = "", **nodes: str) -> str:
        execution_id = new_execution_id(1, 1_800_000_000_000)
        keys = PartitionKeys.of(settings.namespace, 1)
        canonical = json.dumps(APPROVALS).encode()
        fields = {"status": status, "document": "d1", "name": "approvals", "created_at": "1800000000000"}
        states = {"sign": "WAITING", "m": "WAITING", "any": "WAITING", "m[0]/ask": "WAITING", **nodes}
        cells = b"".join(pack_node(NodeStatus(states.get(node, "PENDING")), 3, 0, 0) for node in NODES)
        await redis.hset(keys.document("d1"), mapping={"parts": 1, "0": zlib.compress(canonical)})
        commands = [(Idempotency("k").command_id(execution_id, "retry"), retry)] if retry else []
        await redis.hset(
            keys.execution(execution_id), mapping={**fields, "commands": json.dumps(commands), "input": "{}"}
        )
        await redis.set(keys.nodes(execution_id), cells)
        await redis.hset(keys.scopes(execution_id), "m[0]", pack_scope(ScopeRecord(base=4, parent=1)))
        return execution_id

    return write


@pytest.mark.parametrize(
    ("verb", "answers"),
    [
        ("pause", {"RUNNING": "PAUSED", "PAUSED": "PAUSED"}),
        ("resume", {"PAUSED": "RUNNING", "RUNNING": "RUNNING"}),
        ("retry", {"FAILED": "RUNNING", "CANCELLED": "RUNNING"}),
        ("signals/go", {"PENDING": "PENDING", "RUNNING": "RUNNING", "PAUSED": "PAUSED"}),
        ("approvals/any", {"RUNNING": "RUNNING", "PAUSED": "PAUSED"}),
    ],
)
async def test_the_state_decides(api: httpx.AsyncClient, folded: Folded, verb: str, answers: dict[str, str]) -> None:
    """Each command is for some states, and names the status that it leads to; any other state is a 409 with it."""
    for status in ExecutionStatus:
        execution_id = await folded(status)
        answer = await api.post(f"/workflows/{execution_id}/{verb}", headers=HURRY)
        if status in answers:
            assert answer.status_code == 202, answer.text
            assert answer.json()["status"] == answers[status]
        else:
            assert problem(answer, 409, "wrong-state")["current_status"] == status


async def test_what_is_written(api: httpx.AsyncClient, settings: Settings, redis: Redis, folded: Folded) -> None:
    """Each command is a record of its own kind, with what its body says."""
    running, failed = await folded(), await folded("FAILED")
    asked: list[tuple[str, str, dict[str, Any], wire.Event]] = [
        (running, "pause", {"reason": "stop"}, wire.Paused(execution="", ts=0, source="", id="", reason="stop")),
        (
            running,
            "signals/a%20b%2Fc",
            {"payload": {"n": 10**30}},
            wire.Signalled(execution="", ts=0, source="", id="", name="a b/c", payload=b'{"n":%d}' % 10**30),
        ),
        (
            running,
            "approvals/sign",
            {"answer": {"yes": True}},
            wire.Answered(execution="", ts=0, source="", id="", node="sign", attempt=3, answer=b'{"yes":true}'),
        ),
        (
            running,
            "approvals/m%5B0%5D%2Fask",
            {"answer": {"yes": False}},
            wire.Answered(execution="", ts=0, source="", id="", node="m[0]/ask", attempt=3, answer=b'{"yes":false}'),
        ),
        (
            failed,
            "retry",
            {"from": ["work", "m[0]/ask"], "input": {"day": "x"}},
            wire.Retried(execution="", ts=0, source="", id="", nodes=("work", "m[0]/ask"), input=b'{"day":"x"}'),
        ),
    ]
    for execution_id, path, body, wanted in asked:
        answer = await api.post(f"/workflows/{execution_id}/{path}", json=body, headers=HURRY)
        assert answer.status_code == 202, answer.text
        written = (await events_of(settings, redis, execution_id))[-1]
        same = {"execution": execution_id, "ts": written.ts, "source": "api", "id": written.id}
        assert written == type(written)(**{**{f: getattr(wanted, f) for f in wanted.__struct_fields__}, **same,
                                           "request": written.request})  # fmt: skip


async def test_several_may_wait(api: httpx.AsyncClient, settings: Settings, redis: Redis, folded: Folded) -> None:
    """Signals that nobody has folded stand side by side; copies under one key are one."""
    execution_id = await folded()
    path = f"/workflows/{execution_id}/signals/go"
    for payload in (1, 2):
        assert (await api.post(path, json={"payload": payload}, headers=HURRY)).status_code == 202
    key = {"Idempotency-Key": "k"} | HURRY
    copies = await asyncio.gather(*(api.post(path, json={"payload": 3}, headers=key) for _ in range(3)))
    assert {answer.status_code for answer in copies} == {202}
    waiting = await redis.hgetall(PartitionKeys.of(settings.namespace, 1).accepted)
    assert len(waiting) == 3
    assert all(field.decode().startswith(f"{execution_id}/signal:") for field in waiting)
    records = [wire.decode_event(unpack_command(command).record[-1]) for command in waiting.values()]
    assert sorted(record.payload for record in records) == [b"1", b"2", b"3"]
    problem(await api.post(path, json={"payload": 4}, headers=key), 409, "idempotency-conflict")


async def test_a_repetition_after_the_fold(api: httpx.AsyncClient, folded: Folded) -> None:
    """A copy of a retry that was folded gets the first answer, though the execution runs; another body is a 409."""
    execution_id = await folded("RUNNING", retry=request_hash("retry", [[], None]))
    path, key = f"/workflows/{execution_id}/retry", {"Idempotency-Key": "k"}
    assert (await api.post(path, headers=key)).json() == {"execution_id": execution_id, "status": "RUNNING"}
    problem(await api.post(path, json={"from": ["work"]}, headers=key), 409, "idempotency-conflict")
    problem(await api.post(path), 409, "wrong-state")


async def test_early_commands_bring_what_they_build_on(
    api: httpx.AsyncClient, settings: Settings, redis: Redis
) -> None:
    """What was started counts as RUNNING before that is folded, and its records travel ahead of the command."""
    started = await create(api, query="?trigger=true")
    answer = await api.post(f"/workflows/{started}/pause", headers=HURRY)
    assert (answer.status_code, answer.json()["status"]) == (202, "PAUSED")
    later = await create(api)
    problem(await api.post(f"/workflows/{later}/pause", headers=HURRY), 409, "wrong-state")
    await api.post(f"/workflow/trigger/{later}", headers=HURRY)
    answer = await api.post(f"/workflows/{later}/pause", headers=HURRY)
    assert (answer.status_code, answer.json()["status"]) == (202, "PAUSED")
    for execution_id in (started, later):
        kinds = [type(event) for event in await events_of(settings, redis, execution_id)]
        assert kinds[-4:] == [wire.Document, wire.Created, wire.Triggered, wire.Paused]


async def test_the_answer_tells_where_it_stands(
    api: httpx.AsyncClient, settings: Settings, redis: Redis, folded: Folded
) -> None:
    """A pause that came after the end is a 409, though it was allowed when it was asked for."""
    execution_id = await folded()
    keys = PartitionKeys.of(settings.namespace, partition_of(execution_id))

    async def end() -> None:
        await until(lambda: redis.hlen(keys.accepted), bool, "the command is accepted")
        await redis.hset(keys.execution(execution_id), "status", "COMPLETED")
        await redis.hset(keys.meta, "off", 10**12)

    ending = asyncio.create_task(end())
    answer = await api.post(f"/workflows/{execution_id}/pause")
    await ending
    assert problem(answer, 409, "wrong-state")["current_status"] == "COMPLETED"


async def test_retry_from_nodes(api: httpx.AsyncClient, folded: Folded) -> None:
    """With `from` what has COMPLETED is retried as well; nodes that are not there are named with the nearest one."""
    execution_id = await folded("COMPLETED")
    path = f"/workflows/{execution_id}/retry"
    body = problem(await api.post(path, json={"from": []}, headers=HURRY), 409, "wrong-state")
    assert "from" in body["detail"]
    body = problem(await api.post(path, json={"from": ["work", "wrk", "m[1]/ask"]}), 422, "invalid-parameters")
    assert [(error["pointer"], error["code"]) for error in body["errors"]] == [
        ("/from/1", "unknown_node"),
        ("/from/2", "unknown_node"),
    ]
    assert "'work'" in body["errors"][0]["detail"]
    assert (await api.post(path, json={"from": ["work"]}, headers=HURRY)).status_code == 202
    problem(await api.post(f"/workflows/{await folded()}/retry", json={"from": ["work"]}), 409, "wrong-state")


@pytest.mark.parametrize("body", [{"from": "work"}, {"from": [1]}, {"from": ["x"] * 1001}, {"nodes": []}, []])
async def test_wrong_retry(api: httpx.AsyncClient, folded: Folded, body: Any) -> None:
    """`from` is a list of texts, and nothing else is known but `input`."""
    problem(await api.post(f"/workflows/{await folded('FAILED')}/retry", json=body), 422, "invalid-parameters")


async def test_wrong_input_at_retry(api: httpx.AsyncClient, folded: Folded, stored: Callable[..., Any]) -> None:
    """The input of a retry is checked as at a trigger, and a wrong one changes nothing."""
    execution_id = await folded("FAILED")
    before = await stored()
    answer = await api.post(f"/workflows/{execution_id}/retry", json={"input": {"day": 7}})
    assert problem(answer, 422, "invalid-input")["errors"][0]["pointer"] == "/input/day"
    assert await stored() == before


async def test_wrong_answers(api: httpx.AsyncClient, folded: Folded, stored: Callable[..., Any]) -> None:
    """An answer that the approval's schema refuses is a 422 with pointers and changes nothing, inside a map too."""
    execution_id = await folded()
    before = await stored()
    for node in ("sign", "m%5B0%5D%2Fask"):
        path = f"/workflows/{execution_id}/approvals/{node}"
        body = problem(await api.post(path, json={"answer": {"yes": "perhaps"}}), 422, "invalid-answer")
        assert [error["pointer"] for error in body["errors"]] == ["/answer/yes"]
        assert problem(await api.post(path, json={}), 422, "invalid-answer")["errors"][0]["pointer"] == "/answer"
    assert await stored() == before


async def test_approvals_that_do_not_wait(api: httpx.AsyncClient, folded: Folded) -> None:
    """Only an approval that is WAITING takes an answer; an unknown path names the nearest."""
    execution_id = await folded(any="COMPLETED")
    base = f"/workflows/{execution_id}/approvals"
    body = problem(await api.post(f"{base}/any", json={}), 409, "wrong-state")
    assert (body["current_status"], body["node_status"]) == ("RUNNING", "COMPLETED")
    assert "is a task" in problem(await api.post(f"{base}/work", json={}), 409, "wrong-state")["detail"]
    assert "'any'" in problem(await api.post(f"{base}/ayn", json={}), 404, "unknown-node")["detail"]


async def test_signals_have_names(api: httpx.AsyncClient, folded: Folded) -> None:
    """The name of a signal has 1 to 200 characters."""
    base = f"/workflows/{await folded()}/signals/"
    for name in ("", "x" * 201):
        problem(await api.post(base + name, json={}), 422, "invalid-parameters")


@pytest.mark.parametrize("verb", ["pause", "resume", "retry", "signals/x", "approvals/x"])
async def test_unknown_executions(api: httpx.AsyncClient, verb: str) -> None:
    """An execution that does not exist is a 404."""
    for execution_id in ("nonsense", new_execution_id(1, 1)):
        problem(await api.post(f"/workflows/{execution_id}/{verb}", json={}), 404, "unknown-execution")


async def test_nested_nodes(api: httpx.AsyncClient, folded: Folded) -> None:
    """Paths stand percent-encoded in addresses; `under` lists what is inside; what is unknown names the nearest."""
    base = f"/workflows/{await folded()}/nodes"
    assert [item["node"] for item in (await api.get(base)).json()["items"]] == NODES[:4]
    inside = (await api.get(base, params={"under": "m"})).json()["items"]
    assert [(item["node"], item["kind"]) for item in inside] == [("m[0]/ask", "approval")]
    assert (await api.get(f"{base}/m%5B0%5D%2Fask")).json()["node"] == "m[0]/ask"
    assert "'m[0]/ask'" in problem(await api.get(f"{base}/m%5B0%5D%2Fasks"), 404, "unknown-node")["detail"]
    problem(await api.get(base, params={"under": "n"}), 404, "unknown-node")


async def test_many_at_once(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """A command to all that filters find: each is ordered as if alone, in pages; others are left alone."""
    mine = [await create(api, {**DOCUMENT, "name": "mine"}, "?trigger=true") for _ in range(3)]
    await create(api, {**DOCUMENT, "name": "other"}, "?trigger=true")
    first = await api.post("/workflows/cancel?name=mine&limit=2", json={"reason": "no need"})
    assert first.status_code == 202, first.text
    page = first.json()
    assert {item["status"] for item in page["items"]} == {"CANCELLED"}
    assert all(item["applied"] is False for item in page["items"])
    rest = (await api.post(f"/workflows/cancel?name=mine&cursor={page['next_cursor']}")).json()
    assert sorted(item["execution_id"] for item in page["items"] + rest["items"]) == sorted(mine)
    for execution_id in mine:
        assert isinstance((await events_of(settings, redis, execution_id))[-1], wire.Cancelled)
    assert (await api.post("/workflows/resume?name=mine")).json() == {"items": [], "next_cursor": None}


async def test_many_need_a_filter(api: httpx.AsyncClient) -> None:
    """Without a filter the command would be for everything: that is refused, and so is what the list does not know."""
    for verb in ("cancel", "pause", "resume", "retry"):
        problem(await api.post(f"/workflows/{verb}"), 422, "invalid-parameters")
        problem(await api.post(f"/workflows/{verb}?nmae=x"), 422, "invalid-parameters")
        problem(await api.post(f"/workflows/{verb}?status=ODD"), 422, "invalid-parameters")
    assert (await api.post("/workflows/retry?status=FAILED")).status_code == 202


async def test_many_that_do_not_allow_it(
    api: httpx.AsyncClient, settings: Settings, redis: Redis, folded: Folded
) -> None:
    """An execution whose state forbids the command says so; it keeps no other from it."""
    ids = {status: await folded(status) for status in ("RUNNING", "COMPLETED")}
    keys = PartitionKeys.of(settings.namespace, 1)
    for status, execution_id in ids.items():
        for words in (("n", "approvals"), ("s", status)):
            await redis.zadd(keys.index(*words), {execution_id: 1_800_000_000_000})
    query = "?name=approvals&status=RUNNING,COMPLETED"
    items = (await api.post(f"/workflows/pause{query}")).json()["items"]
    found = {item["execution_id"]: (item["status"], item["problem"]) for item in items}
    assert found[ids["RUNNING"]] == ("PAUSED", None)
    assert found[ids["COMPLETED"]] == (None, "The execution is COMPLETED: only one that is RUNNING is paused.")
