"""POST /workflow/batch creates an execution for each of many inputs: all or none, once per Idempotency-Key."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from wf_testservers.redis_groups import start_redis_cluster

from wf_api import documents
from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import TopicPartition
from wf_core.ids import derived_execution_ids, partition_of
from wf_core.settings import Settings
from wf_core.store.commands import unpack_command
from wf_core.store.keys import PartitionKeys

from .conftest import DOCUMENT, ECHO, HURRY, NEEDS_DAY, problem, serving

Records = Callable[[], Awaitable[int]]
Stored = Callable[[], Awaitable[dict[str, Any]]]


async def events(settings: Settings, redis: Redis) -> dict[int, list[Any]]:
    """The records of each partition, in order."""
    log = open_log(settings, redis)
    reader = log.reader()
    topic = topics.events(settings.namespace)
    reader.assign({TopicPartition(topic, partition): 0 for partition in range(settings.partitions)})
    batches = await reader.read(0.2, 5000)
    await reader.close()
    await log.close()
    return {batch.source.partition: [wire.decode_event(record) for record in batch.records] for batch in batches}


def days(count: int) -> list[dict[str, Any]]:
    """Inputs that NEEDS_DAY takes."""
    return [{"day": f"day {number}"} for number in range(count)]


def ids_of(answer: httpx.Response) -> list[str]:
    """The ids in an answer, in its order."""
    assert answer.status_code == 201, answer.text
    return [item["execution_id"] for item in answer.json()["executions"]]


async def fold(settings: Settings, redis: Redis, execution_ids: list[str]) -> None:
    """Leaves executions as an orchestrator does that has folded their creation."""
    for execution_id in execution_ids:
        keys = PartitionKeys.of(settings.namespace, partition_of(execution_id))
        command = unpack_command(await redis.hget(keys.accepted, f"{execution_id}/create"))
        await redis.hset(keys.execution(execution_id), mapping={"status": "RUNNING", "request": command.request})
        await redis.hdel(keys.accepted, f"{execution_id}/create")


async def fold_documents(settings: Settings, redis: Redis) -> None:
    """Keeps the documents that lie in the log, as orchestrators do, until it is cancelled."""
    while True:
        for partition, records in (await events(settings, redis)).items():
            keys = PartitionKeys.of(settings.namespace, partition)
            for record in records:
                if isinstance(record, wire.Document):
                    parts = {str(record.part): record.data, "parts": str(record.parts)}
                    await redis.hset(keys.document(record.hash), mapping=parts)
            await redis.hset(keys.meta, "off", len(records))


async def test_each_input_has_its_execution(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """Executions come in the order of the inputs, spread over the partitions; the document goes to each only once."""
    body = {"workflow": NEEDS_DAY, "inputs": days(100), "labels": {"run": "7"}, "trigger": True}
    answer = await api.post("/workflow/batch", json=body, headers=HURRY)
    assert answer.headers["preference-applied"] == "respond-async"
    assert {item["status"] for item in answer.json()["executions"]} == {"RUNNING"}
    assert {item["applied"] for item in answer.json()["executions"]} == {False}
    ids = ids_of(answer)
    counts = Counter(map(partition_of, ids))
    assert len(counts) == settings.partitions
    assert max(counts.values()) - min(counts.values()) <= 1
    created = {}
    for partition, records in (await events(settings, redis)).items():
        assert [type(record) for record in records] == [
            wire.Document,
            *[wire.Created, wire.Triggered] * counts[partition],
        ]
        created |= {record.execution: record for record in records if isinstance(record, wire.Created)}
    assert [json.loads(created[i].input) for i in ids] == [{"day": f"day {n}", "limit": 10} for n in range(100)]
    assert created[ids[0]].labels == {"team": "blue", "run": "7"}
    shown = (await api.get(f"/workflows/{ids[99]}")).json()
    assert (shown["status"], shown["input"]) == ("PENDING", {"day": "day 99", "limit": 10})


async def test_positions_are_those_of_each_execution(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """What an answer calls the position of an execution is where its last record lies."""
    answer = await api.post("/workflow/batch", json={"workflow": DOCUMENT, "inputs": [None] * 20}, headers=HURRY)
    log = await events(settings, redis)
    for item in answer.json()["executions"]:
        partition, offset = map(int, item["position"].split(":"))
        assert log[partition][offset].execution == item["execution_id"]
        assert isinstance(log[partition][offset], wire.Created)


async def test_a_thousand_and_one_more(api: httpx.AsyncClient, records: Records) -> None:
    """A batch has at most 1,000 inputs; one more is a 422 and creates nothing."""
    refused = await api.post("/workflow/batch", json={"workflow": DOCUMENT, "inputs": [{}] * 1001})
    assert problem(refused, 422, "invalid-document")["errors"][0]["pointer"] == "/inputs"
    assert await records() == 0
    assert (
        len(set(ids_of(await api.post("/workflow/batch", json={"workflow": DOCUMENT, "inputs": [{}] * 1000})))) == 1000
    )


async def test_bad_inputs_among_a_hundred(api: httpx.AsyncClient, stored: Stored) -> None:
    """Every input that is wrong is named by its place, and nothing at all is written."""
    await api.get("/readyz")
    before = await stored()
    inputs = [*days(17), {"day": 1}, *days(40), {"day": "x", "dya": 2}, {}, *days(40)]
    answer = await api.post("/workflow/batch?trigger=true", json={"workflow": NEEDS_DAY, "inputs": inputs})
    errors = problem(answer, 422, "invalid-input")["errors"]
    assert [error["pointer"] for error in errors] == ["/inputs/17/day", "/inputs/58/dya", "/inputs/59"]
    assert await stored() == before


async def test_what_is_required_may_come_with_the_trigger(api: httpx.AsyncClient) -> None:
    """Without `trigger` null stands for an input that comes later; with it, for an empty one, which is checked."""
    body = {"workflow": NEEDS_DAY, "inputs": [None, {"day": "x"}]}
    first, _ = ids_of(await api.post("/workflow/batch", json=body, headers=HURRY))
    problem(await api.post(f"/workflow/trigger/{first}", headers=HURRY), 422, "invalid-input")
    answer = await api.post(f"/workflow/trigger/{first}", json={"input": {"day": "y"}}, headers=HURRY)
    assert answer.status_code == 202
    errors = problem(await api.post("/workflow/batch?trigger=true", json=body), 422, "invalid-input")["errors"]
    assert [error["pointer"] for error in errors] == ["/inputs/0"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], [""]),
        ({"inputs": [{}]}, ["/workflow"]),
        ({"workflow": DOCUMENT}, ["/inputs"]),
        ({"workflow": DOCUMENT, "inputs": []}, ["/inputs"]),
        ({"workflow": DOCUMENT, "inputs": {}}, ["/inputs"]),
        (
            {"workflow": 1, "inputs": 2, "labels": 3, "trigger": 4, "input": {}},
            ["/input", "/workflow", "/trigger", "/labels", "/inputs"],
        ),
        ({"workflow": {"name": "n", "nodes": {"a": {"task": 1}}}, "inputs": [{}]}, ["/workflow/nodes/a/task"]),
        ({"workflow": "nobody", "inputs": [{}]}, ["/workflow"]),
    ],
)
async def test_what_is_no_batch(api: httpx.AsyncClient, records: Records, body: Any, pointers: list[str]) -> None:
    """What is wrong with a body is a 422 that names every place."""
    errors = problem(await api.post("/workflow/batch", json=body), 422, "invalid-document")["errors"]
    assert [error["pointer"] for error in errors] == pointers
    assert await records() == 0


async def test_unknown_tasks(api: httpx.AsyncClient, publish: Callable[..., Awaitable[None]]) -> None:
    """Tasks are checked as for a single execution, once, and `allow_unknown` accepts others."""
    await publish(ECHO)
    body = {"workflow": {"name": "n", "nodes": {"a": {"task": "core.eco"}}}, "inputs": [{}, {}]}
    errors = problem(await api.post("/workflow/batch", json=body), 422, "invalid-document")["errors"]
    assert [error["pointer"] for error in errors] == ["/workflow/nodes/a/task"]
    assert len(ids_of(await api.post("/workflow/batch?allow_unknown=true", json=body, headers=HURRY))) == 2


async def test_defaults_that_multiply(api: httpx.AsyncClient, records: Records) -> None:
    """A large default in the schema cannot make a small body more than a request may hold."""
    schema = {"properties": {"text": {"default": "x" * 100_000}}}
    body = {"workflow": {**DOCUMENT, "input": schema}, "inputs": [{}] * 1000}
    errors = problem(await api.post("/workflow/batch", json=body), 422, "invalid-input")["errors"]
    assert [(error["pointer"], error["code"]) for error in errors] == [("/inputs", "too_large")]
    assert await records() == 0


async def test_one_key_five_times_at_once(api: httpx.AsyncClient, settings: Settings) -> None:
    """One Idempotency-Key, sent five times in parallel, gives the same ids five times; each exists once."""
    key = {"Idempotency-Key": "backfill"} | HURRY
    body = {"workflow": NEEDS_DAY, "inputs": days(50), "trigger": True}
    answers = await asyncio.gather(*(api.post("/workflow/batch", json=body, headers=key) for _ in range(5)))
    expected = list(derived_execution_ids("backfill", settings.partitions, 50))
    assert [ids_of(answer) for answer in answers] == [expected] * 5
    items = (await api.get("/workflows?limit=100")).json()["items"]
    assert sorted(item["execution_id"] for item in items) == sorted(expected)


@pytest.mark.parametrize(
    "other",
    [
        {"workflow": NEEDS_DAY, "inputs": days(4)},
        {"workflow": NEEDS_DAY, "inputs": days(6)},
        {"workflow": NEEDS_DAY, "inputs": days(5)[::-1]},
        {"workflow": NEEDS_DAY, "inputs": days(5), "trigger": True},
        {"workflow": NEEDS_DAY, "inputs": days(5), "labels": {"a": "b"}},
        {"workflow": DOCUMENT, "inputs": days(5)},
    ],
)
async def test_a_key_with_another_body(api: httpx.AsyncClient, stored: Stored, other: dict[str, Any]) -> None:
    """A key that comes back with other inputs, fewer or more, or another document is a 409 and changes nothing."""
    key = {"Idempotency-Key": "k"} | HURRY
    ids_of(await api.post("/workflow/batch", json={"workflow": NEEDS_DAY, "inputs": days(5)}, headers=key))
    before = await stored()
    problem(await api.post("/workflow/batch", json=other, headers=key), 409, "idempotency-conflict")
    problem(await api.post("/workflow", json=DOCUMENT, headers=key), 409, "idempotency-conflict")
    assert await stored() == before


async def test_the_key_of_a_single_execution(api: httpx.AsyncClient, stored: Stored) -> None:
    """A key that created one execution creates no batch."""
    key = {"Idempotency-Key": "k"} | HURRY
    assert (await api.post("/workflow", json=DOCUMENT, headers=key)).status_code == 201
    before = await stored()
    body = {"workflow": DOCUMENT, "inputs": [None, None]}
    problem(await api.post("/workflow/batch", json=body, headers=key), 409, "idempotency-conflict")
    assert await stored() == before


async def test_a_repetition_after_some_were_folded(
    api: httpx.AsyncClient, settings: Settings, redis: Redis, publish: Callable[..., Awaitable[None]]
) -> None:
    """A repetition gets the same ids, however far the executions are, though its task is not known any more."""
    key = {"Idempotency-Key": "k"} | HURRY
    body = {"workflow": NEEDS_DAY, "inputs": days(20), "trigger": True}
    ids = ids_of(await api.post("/workflow/batch", json=body, headers=key))
    await fold(settings, redis, ids[::2])
    await publish()
    answer = await api.post("/workflow/batch", json=body, headers=key)
    assert ids_of(answer) == ids
    assert ["applied" in item for item in answer.json()["executions"]] == [False, True] * 10
    problem(
        await api.post("/workflow/batch", json={**body, "trigger": False}, headers=key), 409, "idempotency-conflict"
    )


async def test_a_repetition_creates_what_is_missing(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """What is missing of a batch, as when a Redis Cluster answered in part, comes with a repetition."""
    key = {"Idempotency-Key": "k"} | HURRY
    body = {"workflow": NEEDS_DAY, "inputs": days(20), "trigger": True}
    ids = ids_of(await api.post("/workflow/batch", json=body, headers=key))
    for execution_id in ids[10:]:
        keys = PartitionKeys.of(settings.namespace, partition_of(execution_id))
        await redis.hdel(keys.accepted, f"{execution_id}/create")
    assert ids_of(await api.post("/workflow/batch", json=body, headers=key)) == ids
    for execution_id in ids:
        assert (await api.get(f"/workflows/{execution_id}")).status_code == 200


async def test_a_registered_definition(api: httpx.AsyncClient, records: Records) -> None:
    """`workflow` may name a registered definition; a repetition gets its answer after that is gone."""
    assert (await api.put("/definitions/pair", json=NEEDS_DAY)).status_code == 201
    key = {"Idempotency-Key": "k"} | HURRY
    body = {"workflow": "pair", "inputs": days(3), "trigger": True}
    ids = ids_of(await api.post("/workflow/batch", json=body, headers=key))
    assert (await api.get(f"/workflows/{ids[2]}")).json()["input"] == {"day": "day 2", "limit": 10}
    assert (await api.delete("/definitions/pair")).status_code == 200
    assert ids_of(await api.post("/workflow/batch", json=body, headers=key)) == ids
    before = await records()
    other = {**body, "inputs": days(4)}
    problem(await api.post("/workflow/batch", json=other, headers=key), 409, "idempotency-conflict")
    problem(await api.post("/workflow/batch", json=body), 422, "invalid-document")
    assert await records() == before


async def test_a_definition_is_pinned(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """The definitions that the document runs are looked for once and pinned by each execution."""
    await api.put("/definitions/pair", json=DOCUMENT)
    parent = {"name": "parent", "nodes": {"child": {"kind": "workflow", "workflow": "pair"}}}
    ids_of(await api.post("/workflow/batch", json={"workflow": parent, "inputs": [{}] * 30}, headers=HURRY))
    for records in (await events(settings, redis)).values():
        assert [type(record) for record in records[:3]] == [wire.Document, wire.Document, wire.Created]
        assert {tuple(record.definitions) for record in records[2:]} == {("pair",)}


async def test_yaml(api: httpx.AsyncClient) -> None:
    """A batch may be YAML; what is wrong with its document has a line."""
    text = "inputs: [{day: a}, {day: b}]\nworkflow:\n  name: n\n  nodes:\n    a: {task: core.noop}\n"
    headers = {"Content-Type": "application/yaml"} | HURRY
    assert len(ids_of(await api.post("/workflow/batch", content=text, headers=headers))) == 2
    wrong = await api.post("/workflow/batch", content=text.replace("core.noop", "[]"), headers=headers)
    (error,) = problem(wrong, 422, "invalid-document")["errors"]
    assert error["pointer"] == "/workflow/nodes/a/task"
    assert error["detail"].startswith("line 5: ")


async def test_a_redis_cluster(settings: Settings, tmp_path: Path) -> None:
    """Partitions on several servers: a batch five times at once has one answer, another body under its key a 409."""
    with start_redis_cluster(tmp_path / "cluster") as cluster:
        on_cluster = settings.model_copy(update={"redis_url": SecretStr(cluster.url)})
        async with serving(on_cluster) as service, httpx.AsyncClient(base_url=service.url, timeout=30) as api:
            key = {"Idempotency-Key": "k"} | HURRY
            body = {"workflow": NEEDS_DAY, "inputs": days(60), "trigger": True}
            answers = await asyncio.gather(*(api.post("/workflow/batch", json=body, headers=key) for _ in range(5)))
            assert [ids_of(answer) for answer in answers] == [ids_of(answers[0])] * 5
            other = await api.post("/workflow/batch", json={**body, "inputs": days(61)}, headers=key)
            problem(other, 409, "idempotency-conflict")
            assert len((await api.get("/workflows?limit=100")).json()["items"]) == 60


async def test_a_document_that_redis_forgot(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """A document that was there and is not any more, as after a Redis that lost its last second, is sent again."""
    hashed = (await api.post("/workflow/validate", json=DOCUMENT)).json()["hash"]
    keys = [PartitionKeys.of(settings.namespace, p).document(hashed) for p in range(settings.partitions)]
    for key in keys:
        await redis.hset(key, mapping={"0": b"data", "parts": "1"})
    body = {"workflow": DOCUMENT, "inputs": [{}] * settings.partitions}
    ids_of(await api.post("/workflow/batch", json=body, headers=HURRY))
    await redis.delete(*keys)
    ids_of(await api.post("/workflow/batch", json=body, headers=HURRY))
    for records in (await events(settings, redis)).values():
        assert [type(record) for record in records] == [wire.Created, wire.Document, wire.Created]


async def test_many_at_once_are_accepted_together(api: httpx.AsyncClient) -> None:
    """Requests at the same moment, two under one key among them, keep out of each other's way."""
    bodies = [({"workflow": NEEDS_DAY, "input": {"day": f"day {n % 20}"}}, f"k{n % 20}") for n in range(40)]
    bodies += [({"workflow": NEEDS_DAY, "input": {"day": "another"}}, f"k{n}") for n in range(20)]
    answers = await asyncio.gather(
        *(api.post("/workflow", json=body, headers={"Idempotency-Key": key} | HURRY) for body, key in bodies)
    )
    made: dict[str, set[tuple[str, str]]] = {}
    for answer, (body, key) in zip(answers, bodies, strict=True):
        if answer.status_code == 201:
            made.setdefault(key, set()).add((answer.json()["execution_id"], body["input"]["day"]))
        else:
            problem(answer, 409, "idempotency-conflict")
    assert [len(found) for found in made.values()] == [1] * 20
    for ((execution_id, day),) in made.values():
        assert (await api.get(f"/workflows/{execution_id}")).json()["input"]["day"] == day


async def test_a_document_too_large_to_be_copied(
    api: httpx.AsyncClient, settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large document goes ahead of its batch; while nobody takes it nothing is accepted, and then it is."""
    value = secrets.token_hex(30_000)
    large = {"name": "large", "nodes": {"a": {"task": "core.echo", "params": {"value": value}}}}
    body = {"workflow": large, "inputs": [{}] * 30}
    monkeypatch.setattr(documents, "MOST_COPIED", 100_000)
    key = {"Idempotency-Key": "k"} | HURRY
    problem(await api.post("/workflow/batch", json=body, headers=key), 503, "unavailable")
    assert (await api.get("/workflows")).json()["items"] == []
    folding = asyncio.create_task(fold_documents(settings, redis))
    ids = ids_of(await api.post("/workflow/batch", json=body, headers=key))
    folding.cancel()
    for partition, records in (await events(settings, redis)).items():
        created = [record for record in records if isinstance(record, wire.Created)]
        assert len(created) == len([i for i in ids if partition_of(i) == partition])
        first = records.index(created[0])
        assert all(isinstance(record, wire.Document) for record in records[:first])
        assert len(records) == first + len(created)
