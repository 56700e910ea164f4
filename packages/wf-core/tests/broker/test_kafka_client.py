"""The client that is replaced when it fails; needs no broker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from wf_core.broker.kafka_client import Replaceable
from wf_core.settings import Settings


class Client:
    """Starts, or not."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.client = self._client = self

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
