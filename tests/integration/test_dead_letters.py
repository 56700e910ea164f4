"""What nobody can read is laid aside, and a person mends it: on both logs, through the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from wf_testservers.cluster import Cluster, wait_for_end

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.open import open_log
from wf_core.broker.protocol import Log, TopicPartition
from wf_core.ids import partition_of
from wf_core.settings import Settings
from wf_core.store.client import connect

NAP = {
    "name": "nap",
    "nodes": {"a": {"task": "core.sleep", "params": {"seconds": 60, "value": 1}}},
    "output": "${{ nodes.a.output }}",
}


@pytest_asyncio.fixture
async def log(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Log, Settings]]:
    """The log of the cluster that runs, and its settings."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    redis = connect(settings)
    for kind in ("api", "orchestrator", "worker"):
        cluster.start(kind)
    await cluster.ready(workers=1)
    found = open_log(settings, redis)
    await found.start()
    yield found, settings
    await found.close()
    await redis.aclose()


def wf(cluster: Cluster, *arguments: str, code: int = 0) -> str:
    """What the command prints, with the exit code that is expected."""
    done = subprocess.run(
        [sys.executable, "-m", "wf_core.cli", *arguments],
        env={**os.environ, "WF_SERVER": cluster.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


async def letters(client: httpx.AsyncClient, number: int) -> list[dict[str, Any]]:
    """The dead letters, oldest first, once there are so many."""
    page = await until(client, "/dead-letters", lambda page: len(page["items"]) >= number)
    found: list[dict[str, Any]] = page["items"][::-1]
    return found


async def until(client: httpx.AsyncClient, path: str, holds: Callable[[Any], bool]) -> Any:
    """The JSON behind `path` once `holds` of it."""
    for _ in range(600):
        if holds(value := (await client.get(path)).json()):
            return value
        await asyncio.sleep(0.05)
    raise AssertionError(f"{path} stays as it is: {value}")


@pytest.mark.timeout(180)
async def test_records_that_nobody_can_read_are_mended_by_hand(
    cluster: Cluster, log: tuple[Log, Settings], tmp_path: Path
):
    """Garbage in the events and in a task topic appears with the reason, is edited, sent, and takes effect."""
    broker, settings = log
    async with httpx.AsyncClient(base_url=cluster.url, timeout=30) as client:
        answer = await client.post("/workflow?trigger=true", json=NAP)
        execution_id = answer.raise_for_status().json()["execution_id"]
        await until(client, f"/workflows/{execution_id}/nodes/a", lambda node: node["status"] == "RUNNING")
        home = partition_of(execution_id)
        broken = {
            "kind": "result",
            "execution": execution_id,
            "ts": 1,
            "source": "hand",
            "node": "a",
            "attempt": 1,
            "worker": "hand",
            "started_at": 1,
            "ended_at": "soon",
            "output": b"42",
        }
        events = TopicPartition(topics.events(settings.namespace), home)
        await broker.append(events, [msgspec.msgpack.encode(broken)])
        (event,) = await letters(client, 1)
        assert "ended_at" in event["reason"]
        wf(cluster, "dlq", "send", str(event["id"]), code=2)

        (tmp_path / "letter.json").write_text(wf(cluster, "dlq", "show", str(event["id"]), "-o", "json"))
        letter = json.loads((tmp_path / "letter.json").read_text())
        letter["record"]["ended_at"] = 2
        (tmp_path / "letter.json").write_text(json.dumps(letter))
        assert "sent to" in wf(cluster, "dlq", "send", str(event["id"]), "--record", str(tmp_path / "letter.json"))
        view = (await wait_for_end(client, [execution_id], 30))[execution_id]
        assert (view["status"], view["output"]) == ("COMPLETED", 42)

        message = wire.TaskMessage(
            execution=execution_id, node="a", attempt=1, task="core.echo", params=b"{}", workflow="nap", queued_at=1
        )
        halved = msgspec.to_builtins(message) | {"attempt": "one"}
        tasks = TopicPartition(topics.tasks(settings.namespace, "default"), 3)
        await broker.append(tasks, [msgspec.msgpack.encode(halved)])
        _, task = await letters(client, 2)
        assert (task["topic"], task["partition"]) == (tasks.topic, 3)
        (tmp_path / "record.json").write_text(json.dumps(task["record"] | {"attempt": 1, "params": {}}))
        wf(cluster, "dlq", "send", str(task["id"]), "--record", str(tmp_path / "record.json"))
        await broker.append(tasks, [b"\x00 nothing"])
        *_, last = await letters(client, 3)  # the worker passed the one that was sent, which was stale
        assert "discarded" in wf(cluster, "dlq", "discard", str(last["id"]))
        listed = wf(cluster, "dlq", "ls")
        assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
            [str(last["id"]), "discarded"],
            [str(task["id"]), "sent"],
            [str(event["id"]), "sent"],
        ]
        assert "GET /dead-letters lists them" in wf(cluster, "dlq", "show", "99", code=3)
    assert all(process.alive for process in cluster.processes), cluster.logs()
