"""The client that is replaced when it fails; needs no broker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from wf_core.broker.kafka_client import Connections, Replaceable, options
from wf_core.broker.protocol import LogUnavailableError
from wf_core.settings import Settings


class Client:
    """Starts, or not."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self._client = self

    async def start(self) -> None:
        if self.error:
            raise self.error

    async def stop(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""


async def test_a_client_is_retired_although_its_successor_failed():
    """Those who still used the old client learn that the log is away, not why its successor did not start."""
    errors = iter([None, KafkaConnectionError("refused")])
    clients: Replaceable[Client] = Replaceable(Settings(), lambda: Client(next(errors)))
    old = await clients.get()
    clients.retire(old)
    getting = asyncio.create_task(clients.get())  # a caller that does not wait for the answer
    await asyncio.sleep(0)
    getting.cancel()
    await asyncio.wait({getting})
    starting = clients._client
    assert starting is not None
    with pytest.raises(KafkaConnectionError):
        await starting
    clients.retire(old)
    await clients.close()


async def test_a_client_that_answers_nobody_is_replaced():
    """A call that fails alone says that the client may be dead."""
    clients: Replaceable[Client] = Replaceable(Settings(), lambda: Client(None))
    old = await clients.get()
    with pytest.raises(LogUnavailableError, match="no leader"):
        await fail(clients)
    assert await clients.get() is not old
    await clients.close()


async def test_a_client_that_answers_others_is_kept():
    """One broker of several is away: calls to the others go on undisturbed, and are not sent to a new client."""
    clients: Replaceable[Client] = Replaceable(Settings(), lambda: Client(None))
    old = await clients.get()
    gone = asyncio.Event()
    failing = asyncio.create_task(fail(clients, gone))
    await asyncio.sleep(0)
    async with clients.use() as client:
        assert client is old
    gone.set()
    with pytest.raises(LogUnavailableError):
        await failing
    assert await clients.get() is old
    await clients.close()


async def fail(clients: Replaceable[Client], when: asyncio.Event | None = None) -> None:
    async with clients.use():
        if when is not None:
            await when.wait()
        raise KafkaConnectionError("no leader")


async def test_metadata_is_asked_for_again_whatever_went_wrong(monkeypatch):
    """For a connection that was reset uvloop raises RuntimeError: nobody may wait for an answer for ever."""
    outcomes = iter([RuntimeError("handler is closed"), True, ValueError("no such message"), True])

    async def update(*_: object) -> object:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(AIOKafkaClient, "_metadata_update", update)
    connections = Connections(**options(Settings()))
    connections._sync_task = asyncio.create_task(connections._md_synchronizer())
    async with asyncio.timeout(5):
        assert [await connections.force_metadata_update() for _ in range(4)] == [False, True, False, True]
        await connections.close()


async def test_a_connection_that_was_reset_is_an_error_that_passes(monkeypatch):
    """Sender and fetcher try again what is a KafkaError."""

    async def send(*_: object) -> None:
        raise RuntimeError("handler is closed")

    monkeypatch.setattr(AIOKafkaClient, "send", send)
    with pytest.raises(KafkaConnectionError, match="handler is closed") as caught:
        await Connections(**options(Settings())).send(1, None)
    assert caught.value.retriable


def test_every_client_asks_the_brokers_in_an_order_of_its_own():
    """A broker that hangs must not be the first for everybody."""
    servers = [f"kafka-{n}:9092" for n in range(3)]
    settings = Settings(kafka_bootstrap_servers=",".join(servers))
    orders = [options(settings)["bootstrap_servers"] for _ in range(100)]
    assert {order[0] for order in orders} == set(servers)
    assert all(sorted(order) == servers for order in orders)
