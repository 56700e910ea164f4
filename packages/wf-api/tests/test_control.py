"""Trigger and cancel, while no orchestrator has folded anything yet."""

from __future__ import annotations

import asyncio

import httpx
from redis.asyncio import Redis

from wf_core import wire
from wf_core.settings import Settings

from .conftest import DOCUMENT, HURRY, NEEDS_DAY, problem
from .test_creation import events_of


async def create(api: httpx.AsyncClient, document: object = DOCUMENT, query: str = "") -> str:
    """The id of a new execution."""
    answer = await api.post(f"/workflow{query}", json=document, headers=HURRY)
    assert answer.status_code == 201, answer.text
    execution_id: str = answer.json()["execution_id"]
    return execution_id


async def test_not_applied_yet(api: httpx.AsyncClient) -> None:
    """A command that no orchestrator applied within two seconds is a 202 with its position."""
    execution_id = await create(api)
    answer = await api.post(f"/workflow/trigger/{execution_id}")
    assert answer.status_code == 202
    assert answer.json()["applied"] is False
    assert answer.json()["position"]
    assert answer.json()["status"] == "RUNNING"


async def test_prefer_respond_async(api: httpx.AsyncClient) -> None:
    """`Prefer: respond-async` skips the wait, and the answer says that it did."""
    execution_id = await create(api)
    async with asyncio.timeout(1.5):
        answer = await api.post(f"/workflow/trigger/{execution_id}", headers=HURRY)
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"


async def test_trigger_twice(api: httpx.AsyncClient) -> None:
    """The second trigger is a 409, before and after the first was folded."""
    execution_id = await create(api)
    assert (await api.post(f"/workflow/trigger/{execution_id}", headers=HURRY)).status_code == 202
    problem(await api.post(f"/workflow/trigger/{execution_id}", headers=HURRY), 409, "wrong-state")
    started = await create(api, query="?trigger=true")
    problem(await api.post(f"/workflow/trigger/{started}", headers=HURRY), 409, "wrong-state")


async def test_trigger_five_times_at_once(api: httpx.AsyncClient) -> None:
    """Of five triggers at once one starts the execution and four are 409."""
    execution_id = await create(api)
    path = f"/workflow/trigger/{execution_id}"
    answers = await asyncio.gather(*(api.post(path, headers=HURRY) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]


async def test_trigger_with_a_key(api: httpx.AsyncClient) -> None:
    """Under one key five triggers get one answer; another input under it is a 409."""
    execution_id = await create(api, NEEDS_DAY)
    path, key = f"/workflow/trigger/{execution_id}", {"Idempotency-Key": "k"} | HURRY
    body = {"input": {"day": "x"}}
    answers = await asyncio.gather(*(api.post(path, json=body, headers=key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    answer = await api.post(path, json={"input": {"day": "y"}}, headers=key)
    problem(answer, 409, "idempotency-conflict")
    problem(await api.post(path, json=body, headers=HURRY), 409, "wrong-state")


async def test_copies_carry_one_command_id(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """What a repetition appends is the same bytes: the fold knows it for a copy."""
    execution_id = await create(api)
    path, key = f"/workflow/trigger/{execution_id}", {"Idempotency-Key": "k"} | HURRY
    for _ in range(3):
        await api.post(path, headers=key)
    triggers = [e for e in await events_of(settings, redis, execution_id) if isinstance(e, wire.Triggered)]
    assert len(triggers) >= 1
    assert all(trigger == triggers[0] for trigger in triggers)


async def test_the_creation_travels_ahead(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """A command to an execution that is not folded yet brings its creation along, in case the log has not got it."""
    execution_id = await create(api)
    await api.post(f"/workflows/{execution_id}/cancel", json={"reason": "no need"}, headers=HURRY)
    kinds = [type(event) for event in await events_of(settings, redis, execution_id)]
    assert kinds[-3:] == [wire.Document, wire.Created, wire.Cancelled]


async def test_input_of_the_trigger(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """The trigger's input replaces the creation's, with defaults filled in; without one they are filled in there."""
    execution_id = await create(api, {"workflow": NEEDS_DAY, "input": {"day": "x"}})
    await api.post(f"/workflow/trigger/{execution_id}", json={"input": {"day": "y"}}, headers=HURRY)
    assert (await events_of(settings, redis, execution_id))[-1].input == b'{"day":"y","limit":10}'
    kept = await create(api, {"workflow": NEEDS_DAY, "input": {"day": "x"}})
    await api.post(f"/workflow/trigger/{kept}", headers=HURRY)
    assert (await events_of(settings, redis, kept))[-1].input is None


async def test_cancel_twice(api: httpx.AsyncClient) -> None:
    """Cancelling twice gives the same answer, with any reason; under one key another reason is a 409."""
    execution_id = await create(api)
    path, key = f"/workflows/{execution_id}/cancel", {"Idempotency-Key": "k"} | HURRY
    first = await api.post(path, json={"reason": "a"}, headers=key)
    second = await api.post(path, headers=HURRY)
    assert first.status_code == second.status_code == 202
    assert first.json()["status"] == second.json()["status"] == "CANCELLED"
    problem(await api.post(path, json={"reason": "b"}, headers=key), 409, "idempotency-conflict")


async def test_wrong_reason(api: httpx.AsyncClient) -> None:
    """A reason is a text of at most 1,000 characters."""
    execution_id = await create(api)
    for reason in (7, {}, False, "x" * 1001):
        answer = await api.post(f"/workflows/{execution_id}/cancel", json={"reason": reason})
        problem(answer, 422, "invalid-parameters")
