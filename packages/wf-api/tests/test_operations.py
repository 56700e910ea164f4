"""Health, readiness, numbers, schema, and the headers of every answer."""

from __future__ import annotations

import httpx

from .conftest import DOCUMENT, HURRY


async def test_health_and_readiness(api: httpx.AsyncClient) -> None:
    """/healthz says that the process runs, /readyz that Redis and the log answer."""
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    assert (await api.get("/readyz")).json() == {"status": "ready", "checks": {"redis": "ok", "log": "ok"}}


async def test_metrics(api: httpx.AsyncClient) -> None:
    """/metrics counts requests by route, not by address, and commands by answer."""
    await api.post("/workflow", json=DOCUMENT, headers=HURRY)
    await api.get("/workflows/nonsense")
    await api.get("/nothing/here")
    text = (await api.get("/metrics")).text
    assert 'wf_api_requests_total{method="POST",route="/workflow",status="201"} 1' in text
    assert 'wf_api_requests_total{method="GET",route="/workflows/{execution_id}",status="404"} 1' in text
    assert 'wf_api_commands_total{answer="OK",verb="create"} 1' in text
    assert "nonsense" not in text
    assert "/nothing" not in text


async def test_schema(api: httpx.AsyncClient) -> None:
    """/schema/workflow.json is the document's JSON Schema, for editors."""
    answer = await api.get("/schema/workflow.json")
    assert answer.headers["content-type"] == "application/schema+json"
    assert "nodes" in answer.json()["properties"]


async def test_headers(api: httpx.AsyncClient) -> None:
    """No answer is cached or guessed at, errors neither; nothing names the server's software."""
    for path in ("/healthz", "/nothing"):
        headers = (await api.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
