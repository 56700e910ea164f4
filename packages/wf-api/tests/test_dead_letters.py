"""Dead letters are listed, shown, edited, sent where they belong, and discarded; each of it on both logs."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from wf_api.service import ApiService
from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import Batch, Log, LogReader, TopicPartition
from wf_core.ids import new_execution_id
from wf_core.settings import Settings

from .conftest import problem

ID = new_execution_id(2, 1_790_000_000_000)
RESULT = {
    "kind": "result",
    "execution": ID,
    "ts": 1_700_000_000_000,
    "source": "w",
    "node": "a",
    "attempt": 1,
    "worker": "w",
    "started_at": 1,
    "ended_at": 2,
    "output": {"n": 2**70, "text": "ü"},
}


class Topic:
    """The topic of dead letters, and those that records come from."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.events = topics.events(settings.namespace)
        self.tasks = topics.tasks(settings.namespace, "default")
        self._dead = TopicPartition(topics.dead_letters(settings.namespace), 0)
        self._log = log

    async def bury(self, record: bytes, topic: str = "", partition: int = 0, **fields: Any) -> int:
        """Lays a record with the dead letters; the letter's id."""
        known: dict[str, Any] = {"offset": 5, "reason": "no record", "ts": 1_790_000_000_000, "source": "o"}
        letter = wire.DeadLetter(topic=topic or self.events, partition=partition, record=record, **{**known, **fields})
        (offset,) = await self._log.append(self._dead, [wire.encode(letter)])
        return offset

    async def garbage(self, record: bytes) -> int:
        """Something that is no letter."""
        (offset,) = await self._log.append(self._dead, [record])
        return offset

    async def records(self, topic: str, partition: int) -> list[bytes]:
        """What a partition holds."""
        reader = self._log.reader()
        try:
            reader.assign({TopicPartition(topic, partition): 0})
            return [record for batch in await reader.read(1.0) for record in batch.records]
        finally:
            await reader.close()


@pytest_asyncio.fixture
async def topic(settings: Settings, log: Log, service: ApiService) -> Topic:
    """The topics of this test, which the API's start made."""
    await log.ensure_topics({topics.tasks(settings.namespace, "default"): settings.task_partitions})
    return Topic(settings, log)


def packed(record: dict[str, Any]) -> bytes:
    """A record in msgpack, its output as the bytes that it travels as."""
    return msgspec.msgpack.encode({**record, "output": json.dumps(record["output"]).encode()})


async def test_listed_and_shown(topic: Topic, api: httpx.AsyncClient) -> None:
    """Newest first, in pages; a record is shown as JSON as far as it is one, else its bytes are."""
    broken = {name: value for name, value in RESULT.items() if name != "worker"}
    first = await topic.bury(packed(broken), partition=2)
    await topic.bury(b'{"by": "hand"}', offset=None)
    await topic.bury(b"\xc1 nothing", topic=topic.tasks)
    last = await topic.garbage(b"no letter")
    found = (await api.get("/dead-letters")).json()
    assert found["next_cursor"] is None
    assert [item["id"] for item in found["items"]] == [last, last - 1, last - 2, first]
    assert [item["record"] for item in found["items"]] == [None, None, {"by": "hand"}, broken]
    assert base64.b64decode(found["items"][1]["data"]) == b"\xc1 nothing"
    assert "no dead letter" in found["items"][0]["reason"]
    one = await api.get(f"/dead-letters/{first}")
    assert one.json() == found["items"][3]
    assert one.json() | {"record": None} == {
        "id": first,
        "status": "waiting",
        "settled_at": None,
        "position": None,
        "topic": topic.events,
        "partition": 2,
        "offset": 5,
        "reason": "no record",
        "ts": "2026-09-21T14:13:20Z",
        "source": "o",
        "bytes": len(packed(broken)),
        "record": None,
        "data": None,
    }
    paged: list[Any] = []
    cursor = ""
    for _ in range(2):
        page = (await api.get(f"/dead-letters?limit=2{cursor}")).json()
        paged += page["items"]
        cursor = f"&cursor={page['next_cursor']}"
    assert (paged, cursor) == (found["items"], "&cursor=None")
    for wrong in ("x", "-1", "9" * 30):
        problem(await api.get(f"/dead-letters?cursor={wrong}"), 422, "invalid-parameters")
    for unknown in (last + 1, "x", "9" * 30):
        problem(await api.get(f"/dead-letters/{unknown}"), 404, "unknown-dead-letter")


async def test_a_slow_log_is_no_end(
    topic: Topic, api: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that the log gives only in part is a 503: without its newest letters the cursor would pass them over."""
    for _ in range(3):
        await topic.bury(packed(RESULT))
    reader, asked = type(log.reader()), []
    read = reader.read

    async def slow(self: LogReader, max_wait: float, max_records: int = 500) -> list[Batch]:
        asked.append(max_records)
        return await read(self, max_wait, 1) if len(asked) == 1 else []

    monkeypatch.setattr(reader, "read", slow)
    problem(await api.get("/dead-letters"), 503, "unavailable")
    monkeypatch.undo()
    assert len((await api.get("/dead-letters")).json()["items"]) == 3


async def test_edited_and_sent(topic: Topic, api: httpx.AsyncClient) -> None:
    """What was edited goes to the execution's own partition, once, however often it is asked for."""
    number = await topic.bury(packed({**RESULT, "node": 7}), partition=0)
    at = f"/dead-letters/{number}"
    wrong = problem(await api.post(f"{at}/send"), 422, "invalid-record")
    assert "as it stands" in wrong["detail"].lower()
    edited = (await api.get(at)).json()["record"] | {"node": "a"}
    first = await api.post(f"{at}/send", json={"record": edited})
    assert first.status_code == 200, first.text
    assert first.json() | {"settled_at": None} == {
        "id": number,
        "status": "sent",
        "settled_at": None,
        "position": "2:0",
    }
    again = await api.post(f"{at}/send", json={"record": edited})
    assert (again.status_code, again.content) == (200, first.content)
    (record,) = await topic.records(topic.events, 2)
    assert await topic.records(topic.events, 0) == []
    sent = wire.decode_event(record)
    assert isinstance(sent, wire.Result)
    assert json.loads(sent.output or b"") == RESULT["output"]
    shown = (await api.get(at)).json()
    assert (shown["status"], shown["position"]) == ("sent", "2:0")
    problem(await api.post(f"{at}/send", json={"record": edited | {"node": "b"}}), 409, "dead-letter-settled")
    problem(await api.post(f"{at}/discard"), 409, "dead-letter-settled")
    assert (await api.post(f"{at}/send?again=true", json={"record": edited})).json()["position"] == "2:1"


async def test_sent_as_it_is(topic: Topic, api: httpx.AsyncClient, settings: Settings) -> None:
    """A valid record goes back byte for byte: an event home, a message to the partition that it came from."""
    event = packed({**RESULT, "something": "newer"})
    message = wire.encode(
        wire.TaskMessage(execution=ID, node="a", attempt=1, task="t", params=b"{}", workflow="w", queued_at=1)
    )
    numbers = [await topic.bury(event, partition=0), await topic.bury(message, topic.tasks, 1)]
    positions = [(await api.post(f"/dead-letters/{number}/send")).json()["position"] for number in numbers]
    assert positions == ["2:0", "1:0"]
    assert await topic.records(topic.events, 2) == [event]
    assert await topic.records(topic.tasks, 1) == [message]


async def test_discarded(topic: Topic, api: httpx.AsyncClient) -> None:
    """A letter of no use is marked, twice with one answer, and can be sent all the same."""
    number = await topic.bury(packed(RESULT))
    first = await api.post(f"/dead-letters/{number}/discard", json={})
    assert (first.status_code, first.json()["status"]) == (200, "discarded")
    assert (await api.post(f"/dead-letters/{number}/discard")).content == first.content
    assert (await api.get("/dead-letters")).json()["items"][0]["status"] == "discarded"
    problem(await api.post(f"/dead-letters/{number}/send"), 409, "dead-letter-settled")
    assert (await api.post(f"/dead-letters/{number}/send?again=true")).json()["status"] == "sent"


async def test_what_is_refused(topic: Topic, api: httpx.AsyncClient, settings: Settings) -> None:
    """Nothing is sent that the engine could not use, and each refusal says what is wrong where."""
    event, foreign = await topic.bury(b"x"), await topic.bury(b"x", "other.topic")
    message = await topic.bury(b"x", topic.tasks)
    away = new_execution_id(settings.partitions, 1)
    for number, body, pointer in (
        (event, {"record": []}, "/record"),
        (event, {"record": RESULT | {"node": 7}}, "/record/node"),
        (event, {"record": {"kind": "unheard-of", "execution": ID, "ts": 1, "source": "x"}}, "/record/kind"),
        (event, {"record": RESULT | {"execution": "x"}}, "/record/execution"),
        (event, {"record": RESULT | {"execution": away}}, "/record/execution"),
        (event, {"record": RESULT | {"v": 99}}, "/record"),
        (event, {"record": RESULT | {"ts": 1_700_000_000_000_000}}, "/record/ts"),
        (event, {"record": RESULT | {"ts": 2**70}}, "/record"),
        (event, {"record": RESULT | {"output": "x" * 1_000_000}}, "/record"),
        (event, {"rekord": RESULT}, "/rekord"),
        (message, {"record": RESULT}, "/record"),
        (foreign, {"record": RESULT}, ""),
        (foreign, None, ""),
    ):
        answer = await api.post(f"/dead-letters/{number}/send", **({} if body is None else {"json": body}))
        wrong = problem(answer, 422, "invalid-parameters" if body and "rekord" in body else "invalid-record")
        assert wrong["errors"][0]["pointer"] == pointer, wrong
    for partition in range(settings.partitions):
        assert await topic.records(topic.events, partition) == []
    problem(await api.post("/dead-letters/99/send"), 404, "unknown-dead-letter")


async def test_marks_go_with_their_log(topic: Topic, api: httpx.AsyncClient, redis: Redis, settings: Settings) -> None:
    """A mark of a log that was lost says nothing about the letter that has the same offset in the new one."""
    number = await topic.bury(packed(RESULT))
    await api.post(f"/dead-letters/{number}/discard")
    await redis.hset(f"{settings.namespace}:install", "incarnation", "another")
    assert (await api.get(f"/dead-letters/{number}")).json()["status"] == "waiting"


async def test_a_command_that_would_be_ignored(
    topic: Topic, api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    """One that is not newer than what retention deleted is refused, and taken with a newer time."""
    command = {"kind": "cancelled", "execution": ID, "ts": 50, "source": "api", "id": "c"}
    number = await topic.bury(msgspec.msgpack.encode(command), offset=None)
    await redis.set(f"{settings.namespace}:{{2}}:exp", "50")
    wrong = problem(await api.post(f"/dead-letters/{number}/send"), 422, "invalid-record")
    assert wrong["errors"][0]["pointer"] == "/record/ts"
    answer = await api.post(f"/dead-letters/{number}/send", json={"record": command | {"ts": 51}})
    assert answer.status_code == 200, answer.text
