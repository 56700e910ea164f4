"""What the parts of the Kafka driver share: options of aiokafka's clients, and a client replaced when it fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from wf_core.broker.protocol import LogUnavailableError
from wf_core.settings import Settings

log = structlog.get_logger(__name__)

REQUEST_SECONDS = 3.0
"""Longest wait for one answer of a broker: a link that is half open is noticed only by this."""
CALL_SECONDS = 2 * REQUEST_SECONDS
"""Longest wait of a caller: a broker that does not answer, and one that does."""
RETRY_SECONDS = 0.05
"""How soon a broker is asked again."""
AWAY = (KafkaError, OSError, TimeoutError, RuntimeError)
"""What aiokafka raises when no broker answers; RuntimeError is uvloop's, for a connection that was reset meanwhile."""


def options(settings: Settings) -> dict[str, Any]:
    """Options of every client. Defaults that bite: requests that wait 40 s, metadata that is believed for 5 min.

    A broker that hangs says to nobody that it leads no more, and whoever asks it again waits again. Metadata that is
    fresh anyway names the new leader; asked for on errors only, it would take several such turns (8 s in place of 2).
    Brokers are tried in the order given, and each that hangs costs `REQUEST_SECONDS`: every client has its own order.
    """
    servers = settings.kafka_bootstrap_servers.split(",")
    return {
        "bootstrap_servers": random.sample(servers, len(servers)),
        "request_timeout_ms": int(REQUEST_SECONDS * 1000),
        "retry_backoff_ms": int(RETRY_SECONDS * 1000),
        "metadata_max_age_ms": 2000,
    }


class Connections(AIOKafkaClient):  # type: ignore[misc]  # aiokafka ships no types
    """aiokafka's connections, which do not expect uvloop's RuntimeError for one that was reset meanwhile."""

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        """The broker's answer. Raises KafkaError."""
        try:
            return await super().send(*args, **kwargs)
        except RuntimeError as error:
            raise KafkaConnectionError(str(error)) from error

    async def _metadata_update(self, *args: Any) -> bool:
        """False when it failed: an error would end its task, and nobody would ever learn again who leads what."""
        try:
            return bool(await super()._metadata_update(*args))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is asked again
            log.warning("kafka's metadata is asked for again", error=f"{type(error).__name__}: {error}")
            return False


def unavailable(settings: Settings, error: BaseException) -> LogUnavailableError:
    """The error for callers, naming the brokers."""
    reason = str(error) or type(error).__name__
    return LogUnavailableError(f"Kafka at {settings.kafka_bootstrap_servers} did not answer: {reason}")


class Client(Protocol):
    """What a client can do: aiokafka's consumer, our sender and our fetcher."""

    async def start(self) -> None:
        """Connects."""

    async def stop(self) -> None:
        """Disconnects."""


C = TypeVar("C", bound=Client)


class Replaceable(Generic[C]):
    """Makes a client when it is needed and another one after it was retired.

    aiokafka's fetcher dies for good on an unexpected error, and a client may hold on to what no longer is.
    """

    def __init__(self, settings: Settings, make: Callable[[], C]) -> None:
        self._settings = settings
        self._make = make
        self._client: asyncio.Task[C] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._answered_at = 0.0

    @asynccontextmanager
    async def use(self) -> AsyncIterator[C]:
        """The connected client for one call of at most `CALL_SECONDS`. Raises LogUnavailableError when that fails.

        One broker of several may be away, and calls to the others must not suffer: the client is retired only when no
        call at all was answered while this one waited.
        """
        client = await self.get()
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield client
        except AWAY as error:
            if self._answered_at < begun:
                self.retire(client)
            raise unavailable(self._settings, error) from error
        self._answered_at = clock()

    async def get(self) -> C:
        """The connected client. Raises LogUnavailableError when no broker answers.

        A caller that is cancelled does not stop the start: aiokafka would leave a connection open.
        """
        if (connected := self._connected()) is not None:
            return connected
        if self._client is None:
            self._client = asyncio.create_task(self._start(), name="start a kafka client")
        starting = self._client
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await asyncio.shield(starting)
        except AWAY as error:
            if starting.done() and self._client is starting:
                self._client = None
            raise unavailable(self._settings, error) from error

    def retire(self, client: C) -> None:
        """Stops `client`, which failed, in the background; the next `get` makes another one."""
        if self._connected() is not client:
            return  # another start is under way, or has failed: that is the next `get`'s business
        self._client = None
        stopping = asyncio.create_task(_stop(client), name="stop a kafka client")
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    async def close(self) -> None:
        """Stops the client and waits for those that were retired."""
        if self._client is not None:
            with suppress(*AWAY):
                self.retire(await self._client)
            self._client = None
        if self._stopping:
            await asyncio.wait(self._stopping)

    def _connected(self) -> C | None:
        task = self._client
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    async def _start(self) -> C:
        client = self._make()
        try:
            await client.start()
        except BaseException:
            await _stop(client)
            raise
        return client


async def _stop(client: Any) -> None:
    """Stops for certain: aiokafka's `stop` gives up half-way when a fetch is on its way: it awaits a cancelled task."""
    try:
        async with asyncio.timeout(2 * CALL_SECONDS):
            await client.stop()
    except (*AWAY, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        log.debug("a kafka client did not stop by itself", error=f"{type(error).__name__}: {error}")
        await client._client.close()  # noqa: SLF001 - the consumer shows its connections to nobody
