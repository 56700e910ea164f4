"""Loops and maps inside each other go on although the processes that run them are killed; `retry` resumes a pass."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from wf_testservers.cluster import Cluster, wait_for_end

PASSES = 1000


def long_loop() -> dict[str, Any]:
    """A thousand passes, each one counting on."""
    step = {"task": "core.echo", "params": {"value": "${{ last == null ? 1 : last + 1 }}"}}
    loop = {"kind": "loop", "until": "last == 1000", "max_iterations": PASSES, "keep_last": 3, "nodes": {"step": step}}
    return {"name": "long-loop", "nodes": {"count": loop}}


def nested() -> dict[str, Any]:
    """A loop in a map in a loop: 4 × 5 × 6 tasks."""
    task = {"task": "core.sleep", "params": {"seconds": 0.02, "value": "${{ item + iteration }}"}}
    inner = {"kind": "loop", "until": "iteration == 5", "max_iterations": 9, "nodes": {"leaf": task}}
    middle = {"kind": "map", "items": [10, 20, 30, 40, 50], "nodes": {"inner": inner}}
    outer = {"kind": "loop", "until": "iteration == 3", "max_iterations": 9, "nodes": {"middle": middle}}
    return {"name": "nested", "nodes": {"outer": outer}}


@pytest.mark.timeout(240)
async def test_loops_and_maps_outlive_their_processes(cluster: Cluster):
    """One of two orchestrators and one of two workers are killed in the middle of both."""
    cluster.start("api")
    orchestrators = [cluster.start("orchestrator") for _ in range(2)]
    workers = [cluster.start("worker", "--slots", "8") for _ in range(2)]
    await cluster.ready(workers=2)
    async with httpx.AsyncClient(base_url=cluster.url, timeout=30) as client:
        ids = [await _submit(client, document) for document in (long_loop(), nested(), nested())]
        await _until_tasks_completed(client, ids[1], 30)
        workers[0].kill()
        orchestrators[0].kill()
        ended = await wait_for_end(client, ids, 150)
    assert [ended[i]["status"] for i in ids] == ["COMPLETED"] * 3, cluster.logs()
    assert ended[ids[0]]["output"] == PASSES
    assert ended[ids[0]]["counts"] == {"COMPLETED": 1 + 3}
    for execution_id in ids[1:]:
        assert ended[execution_id]["output"] == [15, 25, 35, 45, 55]
        assert ended[execution_id]["counts"] == {"COMPLETED": 1 + 4 + 4 * 5 + 4 * 5 * 6}


async def test_retry_resumes_the_failed_pass(engine: Any, tmp_path: Any):
    """The passes before it keep their results; the failed one, and those after it, run."""
    flag = tmp_path / "mended"
    step = {
        "task": "shell.run",
        "params": {"command": f"test ${{{{ iteration }}}} -ne 2 -o -e {flag}"},
        "retry": {"max_retries": 0},
    }
    loop = {"kind": "loop", "until": "iteration == 3", "max_iterations": 9, "nodes": {"step": step}}
    execution_id = await engine.submit({"name": "mended", "nodes": {"poll": loop}})
    failed = (await wait_for_end(engine.client, [execution_id], 30))[execution_id]
    assert (failed["status"], failed["error"]["node"]) == ("FAILED", "poll#2/step")
    flag.touch()
    answer = await engine.client.post(f"/workflows/{execution_id}/retry", json={})
    assert answer.status_code == 200, answer.text
    ended = (await wait_for_end(engine.client, [execution_id], 30))[execution_id]
    assert ended["status"] == "COMPLETED", ended
    attempts = {
        item["node"]: item["attempts"]
        for item in (await engine.get(f"/workflows/{execution_id}/nodes", under="poll"))["items"]
    }
    assert attempts == {"poll#0/step": 1, "poll#1/step": 1, "poll#2/step": 2, "poll#3/step": 1}


async def _submit(client: httpx.AsyncClient, document: dict[str, Any]) -> str:
    answer = await client.post("/workflow?trigger=true", json=document)
    answer.raise_for_status()
    found: str = answer.json()["execution_id"]
    return found


async def _until_tasks_completed(client: httpx.AsyncClient, execution_id: str, count: int) -> None:
    for _ in range(1200):
        view = (await client.get(f"/workflows/{execution_id}")).json()
        if view["counts"].get("COMPLETED", 0) >= count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not {count} tasks completed: {view['counts']}")
