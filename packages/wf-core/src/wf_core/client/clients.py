"""The two drivers of the flows: one blocks, one awaits."""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import httpx

from wf_core.client.batches import BatchOperations as Operations
from wf_core.client.flows import Call, Delivery, Flow, Lost, Pause, Reply

P = ParamSpec("P")
T = TypeVar("T")

_DEFAULT_SERVER = "http://127.0.0.1:8080"


def _blocking(operation: Callable[Concatenate[Operations, P], Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    @functools.wraps(operation)
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.drive(operation(client.operations, *args, **kwargs))

    return method


def _awaiting(
    operation: Callable[Concatenate[Operations, P], Flow[T]],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    @functools.wraps(operation)
    async def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.drive(operation(client.operations, *args, **kwargs))

    return method


class _Connection:
    """What both clients know: where the server is, how to build a request, how to read a response."""

    def __init__(self, server: str, api_key: str | None, delivery: Delivery) -> None:
        self.server = server.rstrip("/")
        self.operations = Operations(delivery)
        self.headers: Mapping[str, str] = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    @staticmethod
    def reply(response: httpx.Response) -> Reply:
        asked = response.headers.get("Retry-After", "")
        return Reply(response.status_code, response.content, float(asked) if asked.isdecimal() else None)

    def lost(self, error: httpx.HTTPError | httpx.InvalidURL) -> Lost:
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol)
        return Lost(self.server, str(error) or type(error).__name__, sent=not unsent)


def _send_arguments(call: Call) -> tuple[str, str, dict[str, object]]:
    extra: dict[str, object] = {} if call.timeout is None else {"timeout": call.timeout}
    return call.method, call.path, {"params": dict(call.query), "content": call.body, "headers": call.headers, **extra}


def _trust(server: str) -> ssl.SSLContext | bool:
    # Loading the certificates takes 20 ms, which a plain http:// address can do without.
    return True if server.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Client(_Connection):
    """A blocking client. `timeout` (seconds) bounds each request; close it, or use it in a `with`."""

    def __init__(
        self,
        server: str = _DEFAULT_SERVER,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        delivery: Delivery | None = None,
    ) -> None:
        super().__init__(server, api_key, delivery or Delivery())
        self._http = httpx.Client(
            base_url=self.server, headers=self.headers, timeout=timeout, verify=_trust(server), trust_env=False
        )

    def drive(self, flow: Flow[T]) -> T:
        """Runs a flow to its end."""
        answer: Reply | Lost | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                answer = None
            else:
                answer = self._exchange(step)

    def _exchange(self, call: Call) -> Reply | Lost:
        method, path, extra = _send_arguments(call)
        try:
            return self.reply(self._http.request(method, path, **extra))  # type: ignore[arg-type]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self.lost(error)

    def close(self) -> None:
        """Gives the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    submit = _blocking(Operations.submit)
    trigger = _blocking(Operations.trigger)
    cancel = _blocking(Operations.cancel)
    pause = _blocking(Operations.pause)
    resume = _blocking(Operations.resume)
    retry = _blocking(Operations.retry)
    signal = _blocking(Operations.signal)
    approve = _blocking(Operations.approve)
    why = _blocking(Operations.why)
    get = _blocking(Operations.get)
    results = _blocking(Operations.results)
    definition = _blocking(Operations.definition)
    nodes = _blocking(Operations.nodes)
    all_nodes = _blocking(Operations.all_nodes)
    node = _blocking(Operations.node)
    events = _blocking(Operations.events)
    list = _blocking(Operations.list)
    wait = _blocking(Operations.wait)
    run = _blocking(Operations.run)
    validate = _blocking(Operations.validate)
    tasks = _blocking(Operations.tasks)
    workers = _blocking(Operations.workers)
    dead_letters = _blocking(Operations.dead_letters)
    dead_letter = _blocking(Operations.dead_letter)
    send_dead_letter = _blocking(Operations.send_dead_letter)
    discard_dead_letter = _blocking(Operations.discard_dead_letter)
    definitions = _blocking(Operations.definitions)
    registered = _blocking(Operations.registered)
    register = _blocking(Operations.register)
    unregister = _blocking(Operations.unregister)
    submit_registered = _blocking(Operations.submit_registered)
    submit_batch = _blocking(Operations.submit_batch)
    submit_many = _blocking(Operations.submit_many)
    ready = _blocking(Operations.ready)


class AsyncClient(_Connection):
    """The same operations, awaited. Close it with `aclose()`, or use it in an `async with`."""

    def __init__(
        self,
        server: str = _DEFAULT_SERVER,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        delivery: Delivery | None = None,
    ) -> None:
        super().__init__(server, api_key, delivery or Delivery())
        self._http = httpx.AsyncClient(
            base_url=self.server, headers=self.headers, timeout=timeout, verify=_trust(server), trust_env=False
        )

    async def drive(self, flow: Flow[T]) -> T:
        """Runs a flow to its end."""
        answer: Reply | Lost | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                answer = None
            else:
                answer = await self._exchange(step)

    async def _exchange(self, call: Call) -> Reply | Lost:
        method, path, extra = _send_arguments(call)
        try:
            return self.reply(await self._http.request(method, path, **extra))  # type: ignore[arg-type]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self.lost(error)

    async def aclose(self) -> None:
        """Gives the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        await self.aclose()

    submit = _awaiting(Operations.submit)
    trigger = _awaiting(Operations.trigger)
    cancel = _awaiting(Operations.cancel)
    pause = _awaiting(Operations.pause)
    resume = _awaiting(Operations.resume)
    retry = _awaiting(Operations.retry)
    signal = _awaiting(Operations.signal)
    approve = _awaiting(Operations.approve)
    why = _awaiting(Operations.why)
    get = _awaiting(Operations.get)
    results = _awaiting(Operations.results)
    definition = _awaiting(Operations.definition)
    nodes = _awaiting(Operations.nodes)
    all_nodes = _awaiting(Operations.all_nodes)
    node = _awaiting(Operations.node)
    events = _awaiting(Operations.events)
    list = _awaiting(Operations.list)
    wait = _awaiting(Operations.wait)
    run = _awaiting(Operations.run)
    validate = _awaiting(Operations.validate)
    tasks = _awaiting(Operations.tasks)
    workers = _awaiting(Operations.workers)
    dead_letters = _awaiting(Operations.dead_letters)
    dead_letter = _awaiting(Operations.dead_letter)
    send_dead_letter = _awaiting(Operations.send_dead_letter)
    discard_dead_letter = _awaiting(Operations.discard_dead_letter)
    definitions = _awaiting(Operations.definitions)
    registered = _awaiting(Operations.registered)
    register = _awaiting(Operations.register)
    unregister = _awaiting(Operations.unregister)
    submit_registered = _awaiting(Operations.submit_registered)
    submit_batch = _awaiting(Operations.submit_batch)
    submit_many = _awaiting(Operations.submit_many)
    ready = _awaiting(Operations.ready)
