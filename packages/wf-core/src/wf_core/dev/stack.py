"""The services of `wf dev`, found in the group `wf.services`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from wf_core.errors import SetupError
from wf_core.plugins import drivers, groups
from wf_core.services import Service
from wf_core.settings import Settings

PACKAGES = {"worker": "wf-worker", "orchestrator": "wf-orchestrator", "api": "wf-api"}
"""The services in the order in which they are imported, and stop: the API hears of everything that ends before it."""
_LOOK_SECONDS = 0.5

Factory = Callable[[Settings], Service]

log = structlog.get_logger(__name__)


def check_services() -> None:
    """Raises SetupError that names every package that is missing. Imports none."""
    present = drivers.installed(groups.SERVICES)
    missing = [package for name, package in PACKAGES.items() if name not in present]
    if missing:
        raise SetupError(f"wf dev needs packages that are not installed: pip install {' '.join(missing)}")


def early() -> dict[str, Factory]:
    """What makes the services that want to do something while this process has one thread and no loop: to fork."""
    return {"worker": drivers.load(groups.SERVICES, "worker").early()}


class Stack:
    """All services as one.

    `factories` make those that are imported already; `ready` is called with the API's URL, `gone` says that Redis has
    ended.
    """

    def __init__(
        self,
        settings: Settings,
        factories: Mapping[str, Factory],
        ready: Callable[[str], None],
        gone: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._factories = factories
        self._ready = ready
        self._gone = gone
        self._services: dict[str, Any] = {}

    async def start(self) -> None:
        """Starts the services; those that had started are stopped when one cannot.

        The worker comes first: its children import the tasks while this process still imports the orchestrator.
        """
        importing = asyncio.Lock()
        bringing = [asyncio.create_task(self._bring_up(name, importing), name=name) for name in PACKAGES]
        try:
            await asyncio.gather(*bringing)
        except BaseException:
            await _cancel(bringing)
            await _stop(list(self._services.values()))
            raise

    async def _bring_up(self, name: str, importing: asyncio.Lock) -> None:
        service = (self._factories.get(name) or await self._import(name, importing))(self._settings)
        await service.start()
        self._services[name] = service

    async def _import(self, name: str, importing: asyncio.Lock) -> Factory:
        # One import at a time: modules that import each other must not be imported by two threads at once.
        async with importing:
            factory: Factory = await asyncio.to_thread(drivers.load, groups.SERVICES, name)
        return factory

    async def run(self, stop: asyncio.Event) -> None:
        """Runs them until `stop` is set or one of them ends; then stops the worker first and the API last."""
        stops = {name: asyncio.Event() for name in PACKAGES}
        tasks = {name: asyncio.create_task(self._services[name].run(stops[name]), name=name) for name in PACKAGES}
        guards = [asyncio.create_task(stop.wait()), asyncio.create_task(self._redis_gone())]
        self._ready(self._services["api"].url)
        try:
            await asyncio.wait([*tasks.values(), *guards], return_when=asyncio.FIRST_COMPLETED)
            for name in PACKAGES:
                stops[name].set()
                await asyncio.wait([tasks[name]])
        finally:
            await _cancel([*guards, *tasks.values()])
        self._judge(tasks, stop)

    async def _redis_gone(self) -> None:
        while not self._gone():  # noqa: ASYNC110 - a child process of `subprocess` sets no event when it ends
            await asyncio.sleep(_LOOK_SECONDS)

    def _judge(self, tasks: dict[str, asyncio.Task[None]], stop: asyncio.Event) -> None:
        """Raises when they did not end because somebody asked for it."""
        for name, task in tasks.items():
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("service failed", service=name, error=f"{type(error).__name__}: {error}")
                raise error
        if not stop.is_set():
            raise SetupError("redis-server ended" if self._gone() else "a service ended by itself")


async def _stop(started: Sequence[Service]) -> None:
    stop = asyncio.Event()
    stop.set()
    await asyncio.gather(*(service.run(stop) for service in started), return_exceptions=True)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
