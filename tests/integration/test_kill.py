"""Separate processes on real servers: a worker and an orchestrator are killed while 200 workflows run."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from oracle import assert_ended_once
from wf_testservers.cluster import Cluster, wait_for_end

WORKFLOWS = 200


def chain(length: int) -> dict[str, Any]:
    """Nodes in a row, each naming the one before."""
    nodes: dict[str, Any] = {"n0": {"task": "core.echo", "params": {"value": 0}}}
    for n in range(1, length):
        nodes[f"n{n}"] = {"task": "core.echo", "params": {"value": f"${{{{ nodes.n{n - 1}.output + 1 }}}}"}}
    return {"name": "chain", "nodes": nodes, "output": f"${{{{ nodes.n{length - 1}.output }}}}"}


def diamond() -> dict[str, Any]:
    """One, two, one; the sides take a moment."""
    return {
        "name": "diamond",
        "nodes": {
            "a": {"task": "core.echo", "params": {"value": 20}},
            "b": {"task": "core.sleep", "params": {"seconds": 0.2, "value": "${{ nodes.a.output + 1 }}"}},
            "c": {"task": "core.sleep", "params": {"seconds": 0.3, "value": "${{ nodes.a.output + 2 }}"}},
            "d": {"task": "core.echo", "params": {"value": "${{ nodes.b.output + nodes.c.output }}"}},
        },
        "output": "${{ nodes.d.output }}",
    }


def fan(width: int) -> dict[str, Any]:
    """One root, many leaves, one join."""
    nodes: dict[str, Any] = {"root": {"task": "core.noop"}}
    for n in range(width):
        nodes[f"leaf{n}"] = {"task": "core.echo", "depends_on": ["root"], "params": {"value": n}}
    total = " + ".join(f"nodes.leaf{n}.output" for n in range(width))
    nodes["join"] = {"task": "core.echo", "params": {"value": f"${{{{ {total} }}}}"}}
    return {"name": "fan", "nodes": nodes, "output": "${{ nodes.join.output }}"}


def flaky() -> dict[str, Any]:
    """Fails twice, then succeeds."""
    return {
        "name": "flaky",
        "defaults": {"retry": {"delay": "100ms", "max_retries": 3}},
        "nodes": {"f": {"task": "core.fail", "params": {"times": 2, "value": "late"}}},
        "output": "${{ nodes.f.output }}",
    }


SHAPES: list[tuple[dict[str, Any], Any]] = [(chain(8), 7), (diamond(), 43), (fan(12), 66), (flaky(), "late")]


@pytest.mark.timeout(240)
async def test_200_workflows_complete_although_a_worker_and_an_orchestrator_are_killed(cluster: Cluster):
    """Every workflow completes with the right output, every node exactly once, losses are listed as the platform's."""
    cluster.start("api")
    orchestrators = [cluster.start("orchestrator") for _ in range(2)]
    workers = [cluster.start("worker", "--slots", "16") for _ in range(3)]
    await cluster.ready(workers=3)
    async with httpx.AsyncClient(base_url=cluster.url, timeout=30) as client:

        async def submit(n: int) -> str:
            answer = await client.post("/workflow?trigger=true", json=SHAPES[n % len(SHAPES)][0])
            answer.raise_for_status()
            found: str = answer.json()["execution_id"]
            return found

        ids: list[str] = []
        for start in range(0, WORKFLOWS, 10):
            ids += await asyncio.gather(*(submit(n) for n in range(start, start + 10)))
            if start == WORKFLOWS // 2:
                workers[0].kill()
                orchestrators[0].kill()
        ended = await wait_for_end(client, ids, 120)

        assert Counter(view["status"] for view in ended.values()) == {"COMPLETED": WORKFLOWS}, cluster.logs()
        lost = 0
        for n, execution_id in enumerate(ids):
            document, expected = SHAPES[n % len(SHAPES)]
            assert ended[execution_id]["output"] == expected
            assert ended[execution_id]["counts"] == {"COMPLETED": len(document["nodes"])}
            lost += await _check_history(client, execution_id, document)
        assert lost > 0, "the killed worker held nothing: the test proves nothing"


async def _check_history(client: httpx.AsyncClient, execution_id: str, document: dict[str, Any]) -> int:
    """Each node has one terminal transition; the number of attempts that were lost to the platform."""
    await assert_ended_once(client, execution_id, document["nodes"])
    lost = 0
    for item in (await client.get(f"/workflows/{execution_id}/nodes")).json()["items"]:
        if item["attempts"] == 1 or (item["task"] == "core.fail" and item["attempts"] == 3):
            continue
        node = (await client.get(f"/workflows/{execution_id}/nodes/{item['node']}")).json()
        losses = [a for a in node["history"] if a["class"] == "platform"]
        assert all(a["status"] == "LOST" for a in losses)
        assert len(losses) == item["attempts"] - (3 if item["task"] == "core.fail" else 1)
        lost += len(losses)
    return lost
