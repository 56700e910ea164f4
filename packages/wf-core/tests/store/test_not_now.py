"""A Redis that answers but cannot write or serve: one kind of error, nothing half-written, and it is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from wf_testservers import RedisServer, start_redis
from wf_testservers.redis import start_replica, wait_until

from wf_core.errors import SetupError, UnavailableError
from wf_core.settings import Settings
from wf_core.store.client import check_redis, connect, redis_errors, wait_for_redis
from wf_core.store.keys import PartitionKeys
from wf_core.store.ops import Op
from wf_core.store.scripts import Scripts

KEYS = PartitionKeys.of("t", 0)
Heal = Callable[[], None]


def settings_for(server: RedisServer, **fields: Any) -> Settings:
    return Settings(_env_file=None, redis_url=server.url, **fields)


@pytest.fixture
def server(tmp_path: Path):
    with start_redis(tmp_path / "own") as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    client = connect(settings_for(server))
    yield client
    await client.aclose()


def no_replicas(server: RedisServer) -> Heal:
    server.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    return lambda: server.ask("CONFIG", "SET", "min-replicas-to-write", 0)


def out_of_memory(server: RedisServer) -> Heal:
    server.ask("CONFIG", "SET", "maxmemory", 1)
    return lambda: server.ask("CONFIG", "SET", "maxmemory", 0)


def no_snapshot(server: RedisServer) -> Heal:
    (server.directory / "dump.rdb").mkdir()  # cannot be replaced by a file
    server.ask("CONFIG", "SET", "save", "3600 1")
    server.ask("BGSAVE")
    wait_until(lambda: "rdb_last_bgsave_status:err" in _persistence(server), "failed snapshot")
    return lambda: server.ask("CONFIG", "SET", "save", "")


def a_replica(server: RedisServer) -> Heal:
    server.ask("REPLICAOF", server.host, 1)
    return lambda: server.ask("REPLICAOF", "NO", "ONE")


def a_replica_without_its_master(server: RedisServer) -> Heal:
    server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
    return a_replica(server)


def a_long_script(server: RedisServer) -> Heal:
    server.ask("CONFIG", "SET", "lua-time-limit", 50)
    loop = socket.create_connection((server.host, server.port))
    loop.sendall(b'EVAL "while true do end" 0\r\n')

    def busy() -> bool:
        with socket.create_connection((server.host, server.port), 5) as other:
            other.sendall(b"PING\r\n")
            return other.recv(100).startswith(b"-BUSY")

    wait_until(busy, "busy Redis")

    def heal() -> None:
        server.ask("SCRIPT", "KILL")
        wait_until(lambda: not busy(), "end of the script")
        loop.close()

    return heal


def _persistence(server: RedisServer) -> str:
    with contextlib.closing(socket.create_connection((server.host, server.port), 5)) as asked:
        asked.sendall(b"INFO persistence\r\n")
        return asked.recv(10_000).decode()


CONDITIONS = [no_replicas, out_of_memory, no_snapshot, a_replica, a_replica_without_its_master, a_long_script]


@pytest.mark.parametrize("condition", CONDITIONS)
async def test_what_cannot_be_written_now_is_one_kind_of_error(
    condition: Callable[[RedisServer], Heal], server: RedisServer, client: Redis
):
    """Commands, scripts and pipelines raise one of `redis_errors`, write nothing, and work again once it is over."""
    scripts = Scripts(client)
    assert await scripts.lease(KEYS, "owner", 60_000)
    heal = await asyncio.to_thread(condition, server)
    writes: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.hset("h", "a", "b"),
        lambda: _apply(scripts, 0, ("HSET", KEYS.in_flight, "t", 1)),
        lambda: client.pipeline(transaction=False).hset("h", "a", "b").get("x").execute(),
    ]
    for write in writes:
        with pytest.raises(redis_errors):
            await write()
    heal()
    assert not await client.exists("h", KEYS.in_flight)
    assert await client.hget(KEYS.meta, "off") is None
    assert await _apply(scripts, 0, ("HSET", KEYS.in_flight, "t", 1)) == "OK"


FIRST: dict[str, Op] = {
    "HSET": ("HSET", KEYS.in_flight, "new", 1),
    "HDEL": ("HDEL", KEYS.in_flight, "old"),
    "DEL": ("DEL", KEYS.messages),
    "ZREM": ("ZREM", KEYS.timers, "old"),
    "SETRANGE": ("SETRANGE", KEYS.nodes("x"), 0, b"0123456789"),
    "XADD": ("XADD", KEYS.history("x"), "9-0", "kind", "a"),
    "XADD again": ("XADD", KEYS.history("x"), "1-0", "kind", "a"),
}


@pytest.mark.parametrize("first", FIRST)
async def test_out_of_memory_leaves_nothing_half_written(first: str, server: RedisServer, client: Redis):
    """APPLY at the limit of memory writes all or nothing, whatever its first operation is."""
    scripts = Scripts(client)
    assert await scripts.lease(KEYS, "owner", 60_000)
    before: list[Op] = [("HSET", KEYS.in_flight, "old", 1), ("HSET", KEYS.messages, "old", b"m")]
    before += [("ZADD", KEYS.timers, 1, "old"), ("XADD", KEYS.history("x"), "5-0", "kind", "before")]
    assert await _apply(scripts, 0, *before) == "OK"
    stood = await _everything(client)
    heal = out_of_memory(server)
    batch = (FIRST[first], ("HSET", KEYS.execution("x"), "status", "RUNNING"), ("SADD", KEYS.queues, "q"))
    try:
        written = await _apply(scripts, 1, *batch)
    except redis_errors:
        assert await _everything(client) == stood
    else:
        assert written == "OK"
    heal()
    assert await _apply(scripts, 1, *batch) in ("OK", "DUP")
    assert await client.hget(KEYS.meta, "off") == b"2"
    assert await client.hget(KEYS.execution("x"), "status") == b"RUNNING"
    assert await client.sismember(KEYS.queues, "q")
    assert await client.xlen(KEYS.history("x")) == (2 if first.startswith("XADD") else 1)


@pytest.mark.parametrize("condition", [no_snapshot, a_long_script])
async def test_a_start_waits_for_a_server_that_cannot_serve_yet(
    condition: Callable[[RedisServer], Heal], server: RedisServer, client: Redis
):
    """At start such a reply is waited out within `connect_seconds`: it says nothing against the settings."""
    heal = await asyncio.to_thread(condition, server)
    with pytest.raises(UnavailableError, match="did not answer"):
        await wait_for_redis(client, settings_for(server, connect_seconds=0.3))
    waiting = asyncio.create_task(wait_for_redis(client, settings_for(server, connect_seconds=20)))
    await asyncio.sleep(0)
    heal()
    await waiting


async def test_a_pipeline_with_an_error_reply_leaves_its_connection_in_order(server: RedisServer, client: Redis):
    """The replies after an error are read, too: the next command gets its own."""
    await client.set("x", "1")
    heal = no_replicas(server)
    for _ in range(3):
        with pytest.raises(redis_errors):
            await client.pipeline(transaction=False).get("x").set("x", "2").get("x").execute()
        assert await client.get("x") == b"1"
    heal()


async def test_a_replica_is_not_started_on(server: RedisServer, tmp_path: Path):
    """A server that takes no writes is named as such at start: it may become a master, so this is no wrong setting."""
    with start_replica(server, tmp_path / "replica") as replica:
        client = connect(settings_for(replica))
        with pytest.raises(UnavailableError, match="is a replica"):
            await check_redis(client)
        replica.promote()
        assert await check_redis(client) == []
        await client.aclose()


async def test_a_wrong_password_is_still_refused_at_once(server: RedisServer):
    """What only an operator can mend is not waited for."""
    server.ask("CONFIG", "SET", "requirepass", "secret")
    client = connect(settings_for(server))
    with pytest.raises(SetupError, match="refuses us"):
        await wait_for_redis(client, settings_for(server))
    await client.aclose()


async def _apply(scripts: Scripts, previous: int, *ops: Op) -> str:
    return await scripts.apply(KEYS, "owner", previous, previous + 1, f"b{previous}", ops, seq=0, ts=0)


async def _everything(client: Redis) -> dict[bytes, bytes | None]:
    return {key: await client.dump(key) async for key in client.scan_iter()}
