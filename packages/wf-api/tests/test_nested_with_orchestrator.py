"""Commands, nested nodes and `why` while an orchestrator folds; this test plays the worker."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import httpx

from .conftest import problem, until
from .test_with_orchestrator import finish, folding, orchestrator, reaches

__all__ = ["finish", "folding", "orchestrator"]  # fixtures

ORDERS: dict[str, Any] = {
    "name": "orders",
    "nodes": {
        "price": {
            "kind": "map",
            "items": "${{ input.orders }}",
            "as": "order",
            "nodes": {
                "one": {"task": "core.echo", "params": {"value": "${{ order }}"}, "retry": {"max_retries": 0}},
                "check": {"kind": "approval", "depends_on": ["one"], "schema": {"type": "boolean"}},
            },
        },
        "go": {"kind": "wait", "signal": "go", "depends_on": ["price"]},
        "last": {"task": "core.echo", "depends_on": ["go"], "retry": {"max_retries": 0}},
    },
    "output": {"prices": "${{ nodes.price.output }}", "signal": "${{ nodes.go.output }}"},
    "finally": {"clean": {"task": "core.noop", "retry": {"max_retries": 0}}},
}


async def started(api: httpx.AsyncClient, document: dict[str, Any], **given: Any) -> str:
    """A new execution that runs."""
    body = {"workflow": document, "input": given}
    answer = await api.post("/workflow", params={"trigger": "true", "allow_unknown": "true"}, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["execution_id"])


async def asked(api: httpx.AsyncClient, execution_id: str, path: str, status: str, **body: Any) -> None:
    """A command that is applied, and leads to this status."""
    answer = await api.post(f"/workflows/{execution_id}/{path}", json=body)
    assert (answer.status_code, answer.json().get("status")) == (200, status), answer.text


async def node_is(api: httpx.AsyncClient, execution_id: str, node: str, status: str) -> dict[str, Any]:
    """A node once it has this status."""

    async def look() -> dict[str, Any]:
        shown: dict[str, Any] = (await api.get(f"/workflows/{execution_id}/nodes/{quote(node, safe='')}")).json()
        return shown

    return await until(look, lambda shown: shown.get("status") == status, f"{node} is {status}")


async def sentences(api: httpx.AsyncClient, execution_id: str, node: str | None = None) -> list[str]:
    """What `why` says."""
    answer = await api.get(f"/workflows/{execution_id}/why", params={"node": node} if node else {})
    assert answer.status_code == 200, answer.text
    return [cause["sentence"] for cause in answer.json()["causes"]]


async def test_a_life_with_commands(api: httpx.AsyncClient, finish: Any) -> None:
    """Through a map with approvals, a pause, a signal and `finally`, with what reads and `why` say on the way."""
    execution_id = await started(api, ORDERS, orders=[7, 8])
    await node_is(api, execution_id, "price[1]/one", "QUEUED")
    assert (await sentences(api, execution_id))[0].startswith("price waits for its items: 0 of 2 have ended")
    for number in (0, 1):
        await finish(execution_id, f"price[{number}]/one", 7 + number)
    asks = await node_is(api, execution_id, "price[1]/check", "WAITING")
    assert asks["kind"] == "approval"
    shown = (await api.get(f"/workflows/{execution_id}")).json()
    assert shown["nodes"]["price"]["progress"] == {"total": 2, "opened": 2, "ended": 0, "failed": 0, "pass": None}
    assert shown["counts"] == {"PENDING": 3, "WAITING": 3, "COMPLETED": 2}

    path = f"/workflows/{execution_id}/approvals/price%5B0%5D%2Fcheck"
    problem(await api.post(path, json={"answer": "yes"}), 422, "invalid-answer")
    await asked(api, execution_id, "pause", "PAUSED", reason="lunch")
    await asked(api, execution_id, "pause", "PAUSED")
    assert "'lunch'" in (await sentences(api, execution_id))[0]
    for number in (0, 1):
        await asked(api, execution_id, f"approvals/price%5B{number}%5D%2Fcheck", "PAUSED", answer=True)
    problem(await api.post(path, json={"answer": True}), 409, "wrong-state")
    await asked(api, execution_id, "signals/go", "PAUSED", payload={"by": "ann"})
    await asked(api, execution_id, "resume", "RUNNING")

    await node_is(api, execution_id, "last", "QUEUED")
    assert (await node_is(api, execution_id, "go", "COMPLETED"))["output"] == {"by": "ann"}
    await finish(execution_id, "last", error="broken")
    await node_is(api, execution_id, "clean", "QUEUED")
    shown = (await api.get(f"/workflows/{execution_id}")).json()
    assert (shown["status"], shown["ending"]) == ("RUNNING", "FAILED")
    await finish(execution_id, "clean")
    await reaches(api, execution_id, "FAILED")
    assert "at 'last', attempt 1: ValueError: broken." in (await sentences(api, execution_id))[0]
    problem(await api.post(f"/workflows/{execution_id}/signals/go", json={}), 409, "wrong-state")


async def test_retry(api: httpx.AsyncClient, finish: Any) -> None:
    """A failed item of a map is tried again, and what has completed is kept; then once more, from a node."""
    price = ORDERS["nodes"]["price"]
    document = {"name": "retried", "nodes": {"price": {**price, "nodes": {"one": price["nodes"]["one"]}}}}
    execution_id = await started(api, document, orders=[7, 8])
    await node_is(api, execution_id, "price[1]/one", "QUEUED")
    await finish(execution_id, "price[0]/one", 7)
    await finish(execution_id, "price[1]/one", error="broken")
    await reaches(api, execution_id, "FAILED")
    causes = (await api.get(f"/workflows/{execution_id}/why")).json()["causes"]
    assert [cause["node"] for cause in causes] == [None, "price", "price[1]/one"]
    assert "which began at price[1]/one" in causes[1]["sentence"]

    await asked(api, execution_id, "retry", "RUNNING")
    await finish(execution_id, "price[1]/one", 8, attempt=2)
    assert (await reaches(api, execution_id, "COMPLETED"))["output"] == [7, 8]
    assert len((await node_is(api, execution_id, "price[1]/one", "COMPLETED"))["history"]) == 2

    problem(await api.post(f"/workflows/{execution_id}/retry", json={}), 409, "wrong-state")
    await asked(api, execution_id, "retry", "RUNNING", **{"from": ["price"]})
    await asked(api, execution_id, "cancel", "CANCELLED")
    assert "was cancelled" in (await sentences(api, execution_id))[0]


async def test_one_answer_counts(api: httpx.AsyncClient) -> None:
    """Of several answers to one approval at once the first one counts; the others learn that it came first."""
    document = {"name": "asks", "nodes": {"ask": {"kind": "approval"}, "more": {"kind": "approval"}}}
    execution_id = await started(api, document)
    await node_is(api, execution_id, "ask", "WAITING")
    path = f"/workflows/{execution_id}/approvals/ask"
    answers = await asyncio.gather(*(api.post(path, json={"answer": number}) for number in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    given = next(number for number, answer in enumerate(answers) if answer.status_code == 200)
    assert (await node_is(api, execution_id, "ask", "COMPLETED"))["output"] == given
    more = f"/workflows/{execution_id}/approvals/more"
    same = await asyncio.gather(
        *(api.post(more, json={"answer": 1}, headers={"Idempotency-Key": "k"}) for _ in range(4))
    )
    assert {answer.status_code for answer in same} == {200}
    await reaches(api, execution_id, "COMPLETED")
    again = await api.post(more, json={"answer": 1}, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["status"]) == (200, "COMPLETED")
