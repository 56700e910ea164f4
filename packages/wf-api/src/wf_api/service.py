"""Wiring: the clients of Redis and the log, the application, and the HTTP server on the loop that it is started in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis

from wf_api.app import create_app
from wf_api.auth import check_exposure
from wf_api.context import ApiContext
from wf_core.broker.open import ensure_installation, open_log
from wf_core.errors import SetupError
from wf_core.settings import Settings
from wf_core.store.client import check_redis, connect, redis_errors, wait_for_redis
from wf_core.store.clock import Clock
from wf_core.store.scripts import Scripts

log = structlog.get_logger(__name__)

CLOCK_SECONDS = 5.0
DRAIN_SECONDS = 10


class ApiService:
    """The API as a service of the group `wf.services`. `insecure` allows other machines without a key."""

    def __init__(self, settings: Settings, *, insecure: bool = False) -> None:
        self.url = ""
        """Where it listens; set by `start`."""
        self._settings = settings
        self._insecure = insecure
        self._stack = contextlib.AsyncExitStack()
        self._context: ApiContext | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects and listens. Raises SetupError or UnavailableError, having released what it took."""
        check_exposure(self._settings, insecure=self._insecure)
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set, then finishes the requests that run. Raises when the server ends by itself."""
        assert self._serving is not None  # noqa: S101 - the caller's order: start, then run
        stopped = asyncio.create_task(stop.wait(), name="api stop")
        try:
            await asyncio.wait({stopped, self._serving}, return_when=asyncio.FIRST_COMPLETED)
            if self._serving.done():
                await self._serving
                raise SetupError("the HTTP server ended by itself; the log says why")
        finally:
            stopped.cancel()
            await self._stack.aclose()

    async def _start(self) -> None:
        settings = self._settings
        redis = connect(settings)
        self._stack.push_async_callback(redis.aclose)
        await wait_for_redis(redis, settings)
        for warning in await check_redis(redis, allow_volatile=settings.redis_allow_volatile):
            log.warning(warning)
        clock = Clock()
        await clock.sync(redis)
        broker = open_log(settings, redis)
        self._stack.push_async_callback(broker.close)
        await broker.start()
        scripts = Scripts(redis)
        installation = await ensure_installation(broker, scripts, settings)
        context = ApiContext.create(
            settings, redis=redis, log=broker, scripts=scripts, clock=clock, partitions=installation.partitions
        )
        self._context = context
        self._stack.push_async_callback(context.close)
        syncing = asyncio.create_task(_keep_time(clock, redis), name="api clock")
        self._stack.push_async_callback(_end, syncing)
        await self._listen(create_app(context))

    async def _listen(self, app: FastAPI) -> None:
        listener = _bind(self._settings.api_host, self._settings.api_port)
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        server = _Server(config)
        self._serving = asyncio.create_task(server.serve([listener]), name="api server")
        self._stack.push_async_callback(self._drain, server)
        listening = asyncio.create_task(server.listening.wait(), name="api listening")
        await asyncio.wait({listening, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._serving.done():
            await self._serving
            raise SetupError("the HTTP server did not start; the log says why")
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("the API listens", url=self.url)

    async def _drain(self, server: uvicorn.Server) -> None:
        server.should_exit = True
        if self._context is not None:
            self._context.closing.set()
        assert self._serving is not None  # noqa: S101 - set just before this callback was
        await asyncio.wait({self._serving}, timeout=DRAIN_SECONDS + 5)


class _Server(uvicorn.Server):
    """Leaves signals to the process, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        remedy = "set APP_API_HOST and APP_API_PORT (0 takes any free port)"
        raise SetupError(f"the API cannot listen on {host} port {port}: {error.strerror}; {remedy}") from error
    return listener


async def _keep_time(clock: Clock, redis: Redis) -> None:
    while True:
        await asyncio.sleep(CLOCK_SECONDS)
        with contextlib.suppress(*redis_errors):
            await clock.sync(redis)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
