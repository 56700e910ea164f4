"""GET /workflows, …/nodes, /tasks, /workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from .conftest import DOCUMENT, ECHO, problem
from .test_control import create


async def names(api: httpx.AsyncClient, query: str) -> list[str]:
    """The names that a list shows, in order."""
    answer = await api.get(f"/workflows?{query}")
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


async def test_filters(api: httpx.AsyncClient) -> None:
    """Lists are filtered by status, name, labels, time and text; all filters must hold."""
    for name, labels in (("one", {"team": "blue"}), ("two", {"team": "blue", "env": "a=b"}), ("three", {})):
        await create(api, DOCUMENT | {"name": name, "labels": labels})
    assert await names(api, "") == ["three", "two", "one"]
    assert await names(api, "status=PENDING") == ["three", "two", "one"]
    assert await names(api, "status=RUNNING,FAILED") == []
    assert await names(api, "status=RUNNING&status=PENDING&limit=1") == ["three"]
    assert await names(api, "name=two") == ["two"]
    assert await names(api, "label=team=blue") == ["two", "one"]
    assert await names(api, "label=team=blue&label=env=a=b") == ["two"]
    assert await names(api, "q=THRE") == ["three"]
    assert await names(api, "since=1h") == ["three", "two", "one"]
    assert await names(api, "since=2099-01-01T00:00:00Z") == []


async def test_cursor(api: httpx.AsyncClient) -> None:
    """A cursor leads through all executions, each once, newest first."""
    created = [await create(api) for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    for _ in range(10):
        page = (await api.get(f"/workflows?limit=3{cursor}")).json()
        assert len(page["items"]) <= 3
        seen += [item["execution_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == created[::-1]


async def test_summaries_carry_no_data(api: httpx.AsyncClient) -> None:
    """A list shows summaries: no input, output or nodes; what has no value is null."""
    await create(api)
    (item,) = (await api.get("/workflows")).json()["items"]
    assert not {"input", "output", "nodes"} & item.keys()
    assert item["started_at"] is None
    assert item["created_at"].endswith("Z")


async def test_nodes_of_an_execution(api: httpx.AsyncClient) -> None:
    """Nodes are listed in pages, with filters, and shown one by one."""
    execution_id = await create(api)
    at = f"/workflows/{execution_id}"
    page = (await api.get(f"{at}/nodes?limit=1")).json()
    rest = (await api.get(f"{at}/nodes?limit=1&cursor={page['next_cursor']}")).json()
    assert [item["node"] for item in page["items"] + rest["items"]] == ["a", "b"]
    assert rest["next_cursor"] is None
    assert page["items"][0]["status"] == "PENDING"
    assert (await api.get(f"{at}/nodes?status=FAILED")).json()["items"] == []
    node = (await api.get(f"{at}/nodes/a")).json()
    assert (node["task"], node["queue"], node["kind"], node["history"]) == ("core.echo", "default", "task", [])
    problem(await api.get(f"{at}/nodes/zz"), 404, "unknown-node")
    problem(await api.get(f"{at}/nodes?cursor=x"), 422, "invalid-parameters")
    assert (await api.get(at)).json()["nodes"].keys() == {"a", "b"}
    assert "nodes" not in (await api.get(f"{at}?nodes=false")).json()


async def test_odd_node_ids(api: httpx.AsyncClient) -> None:
    """A node's path stands percent-encoded in its address."""
    execution_id = await create(api, {"name": "odd", "nodes": {"ä b?%&+": {"task": "core.echo"}}})
    answer = await api.get(f"/workflows/{execution_id}/nodes/%C3%A4%20b%3F%25%26%2B")
    assert answer.json()["node"] == "ä b?%&+"


async def test_results_and_definition(api: httpx.AsyncClient) -> None:
    """Results are there from the start, empty; the definition is the document."""
    execution_id = await create(api)
    results = (await api.get(f"/workflows/{execution_id}/results")).json()
    assert results == {"execution_id": execution_id, "status": "PENDING", "output": None, "results": {}}
    definition = (await api.get(f"/workflows/{execution_id}/definition")).json()
    assert definition["name"] == "pair"
    assert definition["nodes"].keys() == {"a", "b"}


async def test_tasks_and_workers(api: httpx.AsyncClient, publish: Callable[..., Awaitable[None]]) -> None:
    """The catalogue shows what live workers can run, and who they are."""
    assert (await api.get("/tasks")).json() == {"items": [], "next_cursor": None}
    await publish(ECHO)
    (task,) = (await api.get("/tasks")).json()["items"]
    assert (task["name"], task["package"], task["queues"], task["workers"]) == (
        "core.echo",
        "wf-tasks-builtin",
        ["default"],
        ["w1"],
    )
    (worker,) = (await api.get("/workers")).json()["items"]
    assert (worker["id"], worker["alive"], worker["slots"], worker["free"]) == ("w1", True, 4, 3)
