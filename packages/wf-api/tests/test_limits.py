"""Nothing hangs and nothing grows without bound."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from wf_testservers import start_redis

from wf_api import body, edge
from wf_api.cached import Cached
from wf_api.lane import Lane
from wf_api.recent import Recent
from wf_api.service import ApiService
from wf_core.settings import Settings

from .conftest import DOCUMENT, HURRY, problem, serving


async def test_a_body_that_does_not_come(
    service: ApiService, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that is not complete in time is a 408."""
    monkeypatch.setattr(body, "READ_SECONDS", 0.2)
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /workflow HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    async with asyncio.timeout(5):
        answer = await reader.readline()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert (await api.get("/healthz")).status_code == 200


async def test_too_many_requests(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound of requests that run at once the answer is a 503."""
    monkeypatch.setattr(edge, "MOST_REQUESTS", 0)
    answer = await api.get("/healthz")
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]


async def test_too_many_streams(service: ApiService, api: httpx.AsyncClient) -> None:
    """Above the bound of streams a new one is a 503; pages are still served."""
    execution_id = (await api.post("/workflow", json=DOCUMENT, headers=HURRY)).json()["execution_id"]
    assert service._context is not None
    while not service._context.streams.locked():
        await service._context.streams.acquire()
    at = f"/workflows/{execution_id}/events"
    problem(await api.get(at, headers={"Accept": "text/event-stream"}), 503, "unavailable")
    assert (await api.get(at)).status_code == 200


async def test_a_redis_that_says_nothing(settings: Settings, tmp_path: Path) -> None:
    """A Redis that accepts connections and answers nothing is a 503 within seconds, too."""
    with start_redis(tmp_path / "redis") as server:
        pid = server.process.pid
        own = settings.model_copy(update={"redis_port": server.port})
        async with serving(own) as service, httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as api:
            assert (await api.get("/workflows")).status_code == 200
            os.kill(pid, signal.SIGSTOP)
            try:
                begun = time.monotonic()
                answers = await asyncio.gather(
                    api.get("/workflows"), api.get("/readyz"), api.get("/tasks"), api.post("/workflow", json=DOCUMENT)
                )
                assert time.monotonic() - begun < 10
            finally:
                os.kill(pid, signal.SIGCONT)
            for answer in answers:
                problem(answer, 503, "unavailable")


async def test_a_cached_value_is_fetched_once_for_all() -> None:
    """Those who ask while a value is fetched share the answer, a failure too; the next one asks again."""
    asked = 0

    async def fetch() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        if asked == 1:
            raise OSError("away")
        return asked

    cached = Cached(fetch, 60)
    first = await asyncio.gather(*(cached.get() for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in first] == [OSError] * 5
    assert await asyncio.gather(*(cached.get() for _ in range(5))) == [2] * 5
    assert await cached.get() == 2
    await cached.close()


async def test_a_lane_takes_together_what_waits() -> None:
    """What is asked together travels together: what shares a key apart, and what was given up never."""
    sent: list[list[str]] = []
    gate = asyncio.Event()

    async def send(items: Sequence[str]) -> list[str]:
        sent.append(list(items))
        await gate.wait()
        if "bad" in items:
            raise OSError("away")
        return [item.upper() for item in items]

    lane: Lane[str, str] = Lane(list, 6, send)
    asked = [asyncio.create_task(lane.ask(item)) for item in ("a", "b", "c", "bc", "given up", "defghi", "bad")]
    await asyncio.sleep(0)
    asked[4].cancel()
    await asyncio.sleep(0)
    gate.set()
    replies = await asyncio.gather(*asked, return_exceptions=True)
    assert sent == [["a", "b", "c"], ["bc"], ["defghi"], ["bad"]]
    assert replies[:4] + replies[5:6] == ["A", "B", "C", "BC", "DEFGHI"]
    assert [type(reply) for reply in (replies[4], replies[6])] == [asyncio.CancelledError, OSError]
    assert await lane.ask("again") == "AGAIN"
    await lane.close()


def test_recent_forgets_what_was_not_used() -> None:
    """A bounded memory lets go of what nobody used for longest."""
    recent: Recent[int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)
