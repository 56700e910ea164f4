"""One connection for all callers: replies find whoever asked, whatever the others do and whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, ExecAbortError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from wf_core.store.client import dedicated
from wf_core.store.connections import PROMPT
from wf_core.store.shared import SharedClient

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def own_connections(redis: Redis, name: str) -> int:
    """How many connections to the server carry this name."""
    return sum(one["name"] == name for one in await redis.client_list())


@pytest.fixture
async def named(redis: Redis) -> AsyncIterator[SharedClient]:
    """A client whose connections can be told from those of others."""
    pool = redis.connection_pool
    kwargs = {**pool.connection_kwargs, "client_name": "mine"}
    client = SharedClient.from_pool(BlockingConnectionPool(connection_class=pool.connection_class, **kwargs))
    yield client
    await client.aclose()


@asynccontextmanager
async def stranger(answer: Answer, **options: Any) -> AsyncIterator[SharedClient]:
    """A client of a server that answers as it likes; one try a command."""
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = {"retry": Retry(NoBackoff(), 0), "driver_info": None, "protocol": 2, **options}
        kind = PROMPT[Connection]
        client = SharedClient.from_pool(BlockingConnectionPool(connection_class=kind, port=port, **options))
        yield client
        await client.aclose()


async def ask_all(client: Redis, namespace: str, callers: int) -> list[Any]:
    return await asyncio.gather(*(client.echo(f"{namespace} {n}") for n in range(callers)), return_exceptions=True)


async def test_each_caller_gets_its_own_reply(redis: Redis, named: SharedClient, namespace: str):
    """A hundred callers at once on one connection: replies come in the order of the commands."""
    assert await ask_all(named, namespace, 100) == [f"{namespace} {n}".encode() for n in range(100)]
    assert await own_connections(redis, "mine") == 1


async def test_who_gives_up_disturbs_nobody(named: SharedClient, namespace: str):
    """The reply to a caller that was cancelled is dropped; those behind it get theirs."""
    tasks = [asyncio.create_task(named.echo(f"{namespace} {n}")) for n in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[1::2] == [f"{namespace} {n}".encode() for n in range(1, 50, 2)]
    assert all(isinstance(one, asyncio.CancelledError) for one in found[::2])


async def test_the_first_caller_may_be_cancelled_while_it_connects(named: SharedClient, namespace: str):
    """The connection is for all who wait for it."""
    first = asyncio.create_task(named.echo("nobody"))
    second = asyncio.create_task(named.echo(namespace))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == namespace.encode()


async def test_a_connection_that_was_closed_is_replaced(redis: Redis, named: SharedClient, namespace: str):
    """Commands that were on their way are sent again on a new one."""
    old = await named.client_id()
    await redis.client_pause(10_000, all=False)
    asked = [asyncio.create_task(named.set(f"{namespace}:{n}", n)) for n in range(3)]
    await asyncio.sleep(0)  # they are sent, and Redis answers none of them
    await redis.client_kill_filter(_id=old)
    await redis.client_unpause()
    assert await asyncio.gather(*asked) == [True, True, True]
    assert await named.client_id() != old


async def test_a_server_that_stops_answering_fails_all_who_wait():
    """After the patience of the one that waits longest, and with the connection: nothing hangs."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with stranger(mute, socket_timeout=0.1) as client:
        found = await ask_all(client, "x", 3)
    assert [type(one) for one in found] == [RedisTimeoutError] * 3


@pytest.mark.parametrize(("answer", "found"), [(b"+one\r\n+too many\r\n", bytes), (b"what?\r\n", RedisConnectionError)])
async def test_a_server_that_talks_nonsense_is_left(answer: bytes, found: type):
    """What nobody asked for, or what is no reply at all: the next command has another connection."""
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(100)
        writer.write(answer)
        await reader.read()
        writer.close()

    async with stranger(talk) as client:
        replies = [(await ask_all(client, "x", 1))[0] for _ in range(2)]
    assert [type(one) for one in replies] == [found, found]
    assert connections == 2


async def test_a_read_that_was_given_up_holds_up_nobody(redis: Redis, namespace: str):
    """A client for commands that block closes its connection: the next command does not wait behind the last one."""
    client = dedicated(redis, socket_timeout=None)
    client.set_response_callback("XREAD", lambda reply, **_: reply)
    read = ("XREAD", "BLOCK", 60_000, "STREAMS", f"{namespace}:none", "$")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.execute_command(*read)
    async with asyncio.timeout(5):
        assert await client.echo("next") == b"next"
    await client.aclose()


async def test_a_pipeline_says_which_command_failed(redis: Redis, namespace: str):
    """The others were carried out."""
    await redis.set(f"{namespace}:text", "x")
    pipe = redis.pipeline(transaction=False)
    pipe.hget(f"{namespace}:text", "field")
    pipe.get(f"{namespace}:text")
    with pytest.raises(ResponseError, match=r"Command # 1 .*WRONGTYPE"):
        await pipe.execute()
    pipe.hget(f"{namespace}:text", "field")
    pipe.get(f"{namespace}:text")
    error, text = await pipe.execute(raise_on_error=False)
    assert (type(error), text) == (ResponseError, b"x")
    assert await pipe.execute() == []


async def test_a_transaction_is_carried_out_whole_or_not_at_all(redis: Redis, namespace: str):
    """A command that Redis does not take makes it refuse the rest, and is what the caller is told."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.set(f"{namespace}:a", 1)
        pipe.hgetall(f"{namespace}:b")
        assert await pipe.execute() == [True, {}]
    pipe = redis.pipeline(transaction=True)
    pipe.set(f"{namespace}:a", 2)
    pipe.execute_command("NONSENSE")
    with pytest.raises(ResponseError, match="NONSENSE") as raised:
        await pipe.execute()
    assert not isinstance(raised.value, ExecAbortError)
    assert await redis.get(f"{namespace}:a") == b"1"


async def test_what_cannot_be_sent_is_refused(redis: Redis, namespace: str):
    """And leaves the connection as it is."""
    with pytest.raises(DataError, match="SET takes text"):
        await redis.execute_command("SET", f"{namespace}:x", None)
    assert await redis.execute_command("CONFIG GET", "appendonly") == {"appendonly": "yes"}


async def test_a_closed_client_opens_nothing(named: SharedClient):
    """Neither for those who wait nor for who comes later."""
    await named.ping()
    waiting = asyncio.create_task(named.execute_command("BLPOP", "none", 0))
    await asyncio.sleep(0.01)
    await named.aclose()
    with pytest.raises(RedisConnectionError):
        await waiting
    with pytest.raises(RedisConnectionError, match="was closed"):
        await named.ping()
