"""Who may call, and where the API may listen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from wf_api.auth import is_loopback
from wf_api.service import ApiService
from wf_core.errors import SetupError
from wf_core.settings import Settings

from .conftest import DOCUMENT, problem, serving

KEY = "correct horse"


async def test_key(settings: Settings, redis: Redis) -> None:
    """With APP_API_KEY each address but /healthz wants it; a wrong one gets a 401 and nothing runs."""
    async with serving(settings.model_copy(update={"api_key": SecretStr(KEY)})) as service:  # noqa: SIM117 - the url
        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as api:
            assert (await api.get("/healthz")).status_code == 200
            for path in ("/workflows", "/readyz", "/metrics", "/openapi.json", "/nothing"):
                answer = await api.get(path)
                problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
            for wrong in ("Bearer wrong", f"Basic {KEY}", "Bearer", b"Bearer \xff"):
                problem(await api.get("/workflows", headers={"Authorization": wrong}), 401, "unauthorized")
            right = {"Authorization": f"bearer {KEY}"}
            assert (await api.get("/workflows", headers=right)).status_code == 200
            assert (await api.get("/openapi.json", headers=right)).json()["security"] == [{"key": []}]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
async def test_other_machines_need_a_key(settings: Settings, host: str) -> None:
    """An address that other machines reach is refused without a key, before anything is connected."""
    with pytest.raises(SetupError, match="APP_API_KEY"):
        await ApiService(settings.model_copy(update={"api_host": host})).start()


async def test_insecure_is_said_aloud(settings: Settings, redis: Redis) -> None:
    """`--insecure` lets other machines in without a key, by any name, and pages of other sites still not."""
    everywhere = settings.model_copy(update={"api_host": "0.0.0.0"})
    async with serving(everywhere, insecure=True) as service, httpx.AsyncClient(trust_env=False) as api:
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        assert (await api.get(f"{url}/workflows", headers={"Host": "wf.example"})).status_code == 200
        foreign = {"Host": "wf.example", "Origin": "http://evil.example"}
        problem(await api.get(f"{url}/workflows", headers=foreign), 403, "foreign-site")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},  # its name resolves to this machine
        {"Host": "localhost.evil.example:8080"},
        {"Host": "[evil"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},  # an image, or a link
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_web_pages_may_not_use_an_api_without_key(
    api: httpx.AsyncClient, stored: Callable[[], Awaitable[dict[str, Any]]], headers: dict[str, str]
) -> None:
    """A page of another site, even one whose name leads here, gets a 403 and nothing runs."""
    before = await stored()
    problem(await api.post("/workflow", json=DOCUMENT, headers=headers), 403, "foreign-site")
    problem(await api.get("/workflows", headers=headers), 403, "foreign-site")
    assert await stored() == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost"},
        {"Host": "LocalHost:1"},
        {"Host": "[::1]:8080"},
        {"Host": "localhost:8080", "Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},  # an address that somebody typed
    ],
)
async def test_this_machine_needs_no_key(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """By each of its names, with any port, and from its own pages."""
    assert (await api.post("/workflow", json=DOCUMENT, headers=headers)).status_code == 201


async def test_with_a_key_names_do_not_matter(settings: Settings, redis: Redis) -> None:
    """The key is what a page of another site lacks."""
    foreign = {
        "Authorization": f"Bearer {KEY}",
        "Host": "wf.example",
        "Origin": "http://wf.example",
        "Sec-Fetch-Site": "cross-site",
    }
    async with serving(settings.model_copy(update={"api_key": SecretStr(KEY)})) as service:  # noqa: SIM117 - the url
        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as api:
            assert (await api.get("/workflows", headers=foreign)).status_code == 200


async def test_an_empty_key_is_none(settings: Settings) -> None:
    """An empty APP_API_KEY is refused: it would let everybody in."""
    with pytest.raises(SetupError, match="empty"):
        await ApiService(settings.model_copy(update={"api_key": SecretStr("")})).start()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("x", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    """Loopback is what only this machine reaches."""
    assert is_loopback(host) is expected


async def test_a_taken_port(settings: Settings, redis: Redis) -> None:
    """A port that is taken is a clear error that names the remedy."""
    async with serving(settings) as service:
        taken = settings.model_copy(update={"api_port": int(service.url.rpartition(":")[2])})
        with pytest.raises(SetupError, match="APP_API_PORT"):
            await ApiService(taken).start()


async def test_command(settings: Settings, redis: Redis) -> None:
    """`wf api` serves until SIGTERM, then ends with 0."""
    environment = os.environ | {
        "APP_REDIS_HOST": settings.redis_host,
        "APP_REDIS_PORT": str(settings.redis_port),
        "APP_BROKER": "redis",
        "APP_NAMESPACE": settings.namespace,
        "APP_PARTITIONS": "4",
        "APP_LOG_FORMAT": "json",
    }
    process = await _command(environment, "--port", "0")
    assert process.stderr is not None
    async with asyncio.timeout(30):
        lines = [line async for line in _until(process.stderr, b"the API listens")]
    assert lines
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        await process.communicate()
    assert process.returncode == 0


async def test_command_that_may_not_listen(settings: Settings) -> None:
    """`wf api --host 0.0.0.0` without a key says why and ends with 2."""
    environment = {name: value for name, value in os.environ.items() if name != "APP_API_KEY"}
    process = await _command(environment, "--host", "0.0.0.0")
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"--insecure" in errors


async def test_command_with_wrong_settings() -> None:
    """A wrong APP_ variable is named, its value is not, and the exit code is 2."""
    process = await _command(os.environ | {"APP_REDIS_PORT": "not-a-port-secret"})
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"APP_REDIS_PORT" in errors
    assert b"not-a-port-secret" not in errors


async def _command(environment: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    code = "from wf_api.commands import api; api()"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, env=environment, stderr=asyncio.subprocess.PIPE
    )


async def _until(stream: asyncio.StreamReader, text: bytes):
    async for line in stream:
        if text in line:
            yield line
            return
