"""POST /workflow creates an execution, once per Idempotency-Key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import TopicPartition
from wf_core.ids import is_execution_id, partition_of
from wf_core.settings import Settings

from .conftest import DOCUMENT, HURRY, NEEDS_DAY, problem

Records = Callable[[], Awaitable[int]]
YAML = """
name: pair   # the same document
labels: {team: blue}
nodes:
  a: {task: core.echo, params: {value: 1}}
  b: {task: core.echo, params: {value: "${{ nodes.a.output }}"}}
"""


async def events_of(settings: Settings, redis: Redis, execution_id: str) -> list[Any]:
    """The records of an execution, in order."""
    log = open_log(settings, redis)
    reader = log.reader()
    reader.assign({TopicPartition(topics.events(settings.namespace), partition_of(execution_id)): 0})
    batches = await reader.read(0.2)
    await reader.close()
    await log.close()
    events = [wire.decode_event(record) for batch in batches for record in batch.records]
    return [event for event in events if event.execution == execution_id]


async def test_created(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """A document makes a PENDING execution: 201, its address, and the next read shows it."""
    answer = await api.post("/workflow", json=DOCUMENT, headers=HURRY)
    assert answer.status_code == 201
    created = answer.json()
    assert is_execution_id(created["execution_id"])
    assert created["status"] == "PENDING"
    assert answer.headers["location"] == f"/workflows/{created['execution_id']}"
    shown = (await api.get(answer.headers["location"])).json()
    assert (shown["name"], shown["status"], shown["labels"]) == ("pair", "PENDING", {"team": "blue"})
    assert shown["input"] == {}
    assert shown["output"] is None
    assert [type(e) for e in await events_of(settings, redis, created["execution_id"])] == [wire.Document, wire.Created]


async def test_yaml_is_the_same_document(api: httpx.AsyncClient) -> None:
    """YAML and JSON are the same document, down to its hash."""
    as_json = await api.post("/workflow/validate", json=DOCUMENT)
    as_yaml = await api.post("/workflow/validate", content=YAML, headers={"Content-Type": "application/yaml"})
    assert as_json.status_code == as_yaml.status_code == 200
    assert as_json.json()["hash"] == as_yaml.json()["hash"]
    assert as_json.json() | {"warnings": []} == as_json.json() | {"valid": True, "nodes": 2, "warnings": []}


async def test_envelope(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """An envelope brings input, whose defaults are filled in, labels beside the document's, and the trigger."""
    envelope = {"workflow": NEEDS_DAY, "input": {"day": "x"}, "labels": {"run": "7"}, "trigger": True}
    created = (await api.post("/workflow", json=envelope, headers=HURRY)).json()
    assert created["status"] == "RUNNING"
    events = await events_of(settings, redis, created["execution_id"])
    assert [type(e) for e in events] == [wire.Document, wire.Created, wire.Triggered]
    assert events[1].labels == {"team": "blue", "run": "7"}
    assert json.loads(events[1].input) == {"day": "x", "limit": 10}


async def test_big_integers_survive(api: httpx.AsyncClient) -> None:
    """An integer of any size comes back as it went in."""
    content = b'{"workflow": %b, "input": {"n": 123456789012345678901234567890}}' % json.dumps(DOCUMENT).encode()
    headers = {"Content-Type": "application/json"} | HURRY
    created = (await api.post("/workflow", content=content, headers=headers)).json()
    assert b"123456789012345678901234567890" in (await api.get(f"/workflows/{created['execution_id']}")).content


async def test_a_large_document_is_split(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """A document that compresses to more than a record may hold travels in several, and comes back whole."""
    import secrets

    value = secrets.token_hex(1_200_000)
    document = {"name": "big", "nodes": {"a": {"task": "core.echo", "params": {"value": value}}}}
    created = (await api.post("/workflow", json=document, headers=HURRY)).json()
    events = await events_of(settings, redis, created["execution_id"])
    assert [type(e) for e in events] == [wire.Document, wire.Document, wire.Created]
    definition = (await api.get(f"/workflows/{created['execution_id']}/definition")).json()
    assert definition["nodes"]["a"]["params"]["value"] == value


async def test_a_document_that_is_known_is_not_sent_again(
    api: httpx.AsyncClient, settings: Settings, redis: Redis
) -> None:
    """Once a partition has folded a document, later executions there only name it."""
    key = {"Idempotency-Key": "one"} | HURRY
    first = (await api.post("/workflow", json=DOCUMENT, headers=key)).json()["execution_id"]
    document = (await events_of(settings, redis, first))[0]
    for partition in range(settings.partitions):
        await redis.hset(
            f"{settings.namespace}:{{{partition}}}:d:{document.hash}", mapping={"0": document.data, "parts": 1}
        )
    second = (await api.post("/workflow", json=DOCUMENT, headers=HURRY)).json()["execution_id"]
    assert [type(e) for e in await events_of(settings, redis, second)] == [wire.Created]


async def test_one_key_five_times_at_once(api: httpx.AsyncClient) -> None:
    """One Idempotency-Key, sent five times in parallel, makes one execution and gives one answer."""
    key = {"Idempotency-Key": "order-17"} | HURRY
    answers = await asyncio.gather(*(api.post("/workflow", json=DOCUMENT, headers=key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text.replace(answer.json()["position"], "") for answer in answers}) == 1
    assert len((await api.get("/workflows")).json()["items"]) == 1


async def test_a_key_with_another_body(api: httpx.AsyncClient, records: Records) -> None:
    """A key that comes back with another body is a 409 and changes nothing; spacing is no difference."""
    key = {"Idempotency-Key": "k", "Content-Type": "application/json"} | HURRY
    first = await api.post("/workflow", content=json.dumps(DOCUMENT), headers=key)
    again = await api.post("/workflow", content=json.dumps(DOCUMENT, indent=4), headers=key)
    assert again.json()["execution_id"] == first.json()["execution_id"]
    before = await records()
    told = problem(await api.post("/workflow", json=NEEDS_DAY, headers=key), 409, "idempotency-conflict")
    assert told["detail"].startswith("This Idempotency-Key was used for another request")
    problem(await api.post("/workflow?trigger=true", json=DOCUMENT, headers=key), 409, "idempotency-conflict")
    assert await records() == before


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_key_that_is_none(api: httpx.AsyncClient, key: str) -> None:
    """A key of another form is a 400."""
    answer = await api.post("/workflow", json=DOCUMENT, headers={"Idempotency-Key": key})
    problem(answer, 400, "bad-request")


async def test_not_applied_in_time(api: httpx.AsyncClient) -> None:
    """While no orchestrator runs the answer comes after two seconds and says that it is not applied yet."""
    created = await api.post("/workflow", json=DOCUMENT)
    assert created.status_code == 201
    assert created.json()["applied"] is False
    partition, offset = created.json()["position"].split(":")
    assert int(partition) == partition_of(created.json()["execution_id"])
    assert int(offset) >= 0


async def test_validation_creates_nothing(api: httpx.AsyncClient, records: Records) -> None:
    """Validation answers with the number of nodes, or with the 422 that the creation would get."""
    assert (await api.post("/workflow/validate", json=DOCUMENT)).json()["nodes"] == 2
    wrong = {"workflow": NEEDS_DAY, "input": {"day": 1}}
    problem(await api.post("/workflow/validate", json=wrong), 422, "invalid-input")
    assert await records() == 0
    assert (await api.get("/workflows")).json() == {"items": [], "next_cursor": None}


async def test_a_document_of_which_only_a_part_was_folded(
    api: httpx.AsyncClient, settings: Settings, redis: Redis
) -> None:
    """A partition that holds a document in part is sent it again; one that has it whole is not."""
    hashed = (await api.post("/workflow/validate", json=DOCUMENT)).json()["hash"]
    for parts, expected in ((2, [wire.Document, wire.Created]), (1, [wire.Created])):
        for partition in range(settings.partitions):
            key = f"{settings.namespace}:{{{partition}}}:d:{hashed}"
            await redis.hset(key, mapping={"0": b"data", "parts": str(parts)})
        execution_id = (await api.post("/workflow", json=DOCUMENT, headers=HURRY)).json()["execution_id"]
        assert [type(e) for e in await events_of(settings, redis, execution_id)] == expected
