"""A batch from the request to the end of its executions, on both logs."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest
from wf_testservers.cluster import wait_for_end

BACKFILL: dict[str, Any] = {
    "name": "backfill",
    "input": {
        "type": "object",
        "required": ["day"],
        "properties": {"day": {"type": "integer"}, "step": {"type": "integer", "default": 1}},
    },
    "nodes": {"next": {"task": "core.echo", "params": {"value": "${{ input.day + input.step }}"}}},
    "output": "${{ nodes.next.output }}",
}


def batch(label: str, *days: Any) -> dict[str, Any]:
    """A batch that starts at once."""
    return {"workflow": BACKFILL, "inputs": [{"day": day} for day in days], "labels": {"test": label}, "trigger": True}


@pytest.mark.timeout(60)
async def test_one_batch_five_times_in_parallel(engine):
    """The same batch five times at once under one key: the same ids, each execution once, each to its end."""
    label = secrets.token_hex(4)
    key = {"Idempotency-Key": label}
    answers = await asyncio.gather(
        *(engine.client.post("/workflow/batch", json=batch(label, *range(100)), headers=key) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {201}
    ids, *others = [[item["execution_id"] for item in answer.json()["executions"]] for answer in answers]
    assert others == [ids] * 4
    ended = await wait_for_end(engine.client, ids, 30)
    assert [(ended[i]["status"], ended[i]["output"]) for i in ids] == [("COMPLETED", day + 1) for day in range(100)]
    items = (await engine.get("/workflows", label=f"test={label}", limit=1000))["items"]
    assert sorted(item["execution_id"] for item in items) == sorted(ids)
    events = (await engine.get(f"/workflows/{ids[50]}/events"))["items"]
    assert [event["kind"] for event in events].count("node.completed") == 1


@pytest.mark.timeout(60)
async def test_a_bad_input_among_a_hundred(engine):
    """One wrong input keeps the other ninety-nine out; without it the same key creates them."""
    label = secrets.token_hex(4)
    days = list(range(99))
    key = {"Idempotency-Key": label}
    answer = await engine.client.post("/workflow/batch", json=batch(label, *days[:17], "x", *days[17:]), headers=key)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/inputs/17/day"]
    assert (await engine.get("/workflows", label=f"test={label}"))["items"] == []
    created = await engine.client.post("/workflow/batch", json=batch(label, *days), headers=key)
    ids = [item["execution_id"] for item in created.json()["executions"]]
    ended = await wait_for_end(engine.client, ids, 30)
    assert [ended[i]["output"] for i in ids] == [day + 1 for day in days]
