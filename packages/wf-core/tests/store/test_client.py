"""The client of Redis: it connects in every way, waits within bounds, and refuses a server that would lose data."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis
from wf_testservers import start_redis
from wf_testservers.process import free_port

from wf_core.errors import SetupError, UnavailableError
from wf_core.settings import Settings
from wf_core.store.client import check_redis, connect, describe, redis_errors, wait_for_redis
from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Scripts


def settings_for(**fields: object) -> Settings:
    return Settings(_env_file=None, **{"redis_url": None, "redis_socket": None, "redis_password": None, **fields})


async def test_host_url_and_socket_connect(tmp_path: Path):
    """Host and port, a URL, or a Unix socket; with a password or without."""
    socket = tmp_path / "redis.sock"
    with start_redis(tmp_path / "data", ["--unixsocket", str(socket)]) as server:
        opener = connect(settings_for(redis_host=server.host, redis_port=server.port))
        await opener.config_set("requirepass", "secret")
        await opener.aclose()
        url = f"redis://:secret@{server.host}:{server.port}/1"
        for settings in (
            settings_for(redis_host=server.host, redis_port=server.port, redis_password="secret"),
            settings_for(redis_url=url),
            settings_for(redis_url=f"unix://:secret@{socket}"),
            settings_for(redis_socket=str(socket), redis_password="secret"),
        ):
            client = connect(settings)
            await wait_for_redis(client, settings)
            assert await client.echo("é") == "é".encode()
            await client.aclose()
        wrong = settings_for(redis_host=server.host, redis_port=server.port, redis_password="wrong")
        client = connect(wrong)
        began = time.monotonic()
        with pytest.raises(SetupError, match="refuses us"):
            await wait_for_redis(client, wrong)
        assert time.monotonic() - began < 5
        await client.aclose()


def test_messages_name_the_server_and_no_password():
    """A URL's password stays out of logs."""
    assert describe(settings_for(redis_url="rediss://me:secret@db:1/2")) == "rediss://db:1/2"
    assert describe(settings_for(redis_url="redis://db:1")) == "redis://db:1"
    assert describe(settings_for(redis_host="db", redis_port=7)) == "db:7"
    assert describe(settings_for(redis_socket="/run/redis.sock")) == "/run/redis.sock"


async def test_a_server_that_is_away_is_waited_for_within_bounds():
    """Redis away at start: a bounded retry, then an error that says where and what to do."""
    settings = settings_for(redis_host="127.0.0.1", redis_port=free_port(), connect_seconds=0.5)
    client = connect(settings)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+ did not answer within 0\.5 s"):
        await wait_for_redis(client, settings)
    assert time.monotonic() - began < 3
    with pytest.raises(redis_errors):
        await client.get("x")
    await client.aclose()


async def test_a_server_that_says_nothing():
    """An address that takes connections and never answers: the error says what happened, too."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = settings_for(redis_host="127.0.0.1", redis_port=port, connect_seconds=0.2)
        client = connect(settings)
        with pytest.raises(UnavailableError, match=r"within 0\.2 s \(\w*Timeout"):
            await wait_for_redis(client, settings)
        await client.aclose()


async def test_a_good_server_passes(redis: Redis):
    """An append-only file and no eviction: nothing to say."""
    assert await check_redis(redis) == []


async def test_a_server_without_a_file_is_refused_unless_allowed(tmp_path: Path):
    """Without an append-only file a restart loses what happened since the last snapshot."""
    with start_redis(tmp_path, ["--appendonly", "no"]) as server:
        client = connect(settings_for(redis_host=server.host, redis_port=server.port))
        with pytest.raises(SetupError, match="appendonly yes"):
            await check_redis(client)
        assert "append-only" in (await check_redis(client, allow_volatile=True))[0]
        await client.aclose()


async def test_a_server_that_evicts_is_refused(tmp_path: Path):
    """maxmemory-policy other than noeviction would lose workflow state."""
    with start_redis(tmp_path, ["--maxmemory-policy", "allkeys-lru"]) as server:
        client = connect(settings_for(redis_host=server.host, redis_port=server.port))
        with pytest.raises(SetupError, match="noeviction"):
            await check_redis(client, allow_volatile=True)
        await client.aclose()


async def test_a_restart_of_redis_goes_unnoticed(tmp_path: Path):
    """The client connects again by itself, and scripts are sent again."""
    with start_redis(tmp_path) as server:
        client = connect(settings_for(redis_host=server.host, redis_port=server.port))
        scripts, keys = Scripts(client), PartitionKeys.of("t", 0)
        assert await scripts.lease(keys, "a", 60_000) is not None
        server.restart()
        assert await scripts.lease(keys, "a", 60_000) is not None
        await client.aclose()


async def test_a_cancel_is_never_lost(redis: Redis) -> None:
    """A task that does nothing but talk to Redis ends at its first cancel, wherever it stands."""

    async def talk() -> None:
        while True:
            await redis.ping()

    for n in range(100):
        task = asyncio.create_task(talk())
        await asyncio.sleep(0.001 + n / 100_000)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert done, f"cancel number {n} was lost"
        assert task.cancelled()
