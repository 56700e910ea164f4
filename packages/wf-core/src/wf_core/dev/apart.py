"""A service of `wf dev` in a process of its own: it starts while the others do, and works while they do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from wf_core.dev import processes
from wf_core.errors import SetupError, UnavailableError
from wf_core.plugins import drivers, groups
from wf_core.run_service import EXIT_UNAVAILABLE, run_service
from wf_core.services import Service
from wf_core.settings import Settings


class Apart:
    """The service as those see it that run beside it; implements `wf_core.services.Service`."""

    def __init__(self, name: str, process: BaseProcess, hears: Connection) -> None:
        self.url = ""
        """Where it listens; known after `start`."""
        self._name = name
        self._process = process
        self._hears = hears

    async def start(self) -> None:
        """Waits until it has started. Raises SetupError or UnavailableError when it ends before."""
        await _readable(self._hears.fileno())
        try:
            self.url = self._hears.recv()
        except EOFError:
            await asyncio.to_thread(self._process.join)
            error = UnavailableError if self._process.exitcode == EXIT_UNAVAILABLE else SetupError
            raise error(f"the {self._name} did not start; the log says why") from None

    async def run(self, stop: asyncio.Event) -> None:
        """Returns when it was stopped, or ended by itself."""
        parts = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(_readable(self._process.sentinel))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await asyncio.to_thread(processes.stop, self._process)


@contextmanager
def apart(name: str, settings: Settings) -> Iterator[Apart]:
    """Starts the service `name`, which must have a `url`. To be called while this process has one thread."""
    process, hears = processes.start(_serve, name, settings)
    try:
        yield Apart(name, process, hears)
    finally:
        processes.stop(process)
        hears.close()


def _serve(says: Connection, name: str, settings: Settings) -> None:
    factory: Callable[[Settings], Any] = drivers.load(groups.SERVICES, name)
    sys.exit(run_service(lambda chosen: _Telling(factory(chosen), says), name, settings))


class _Telling:
    """A service that tells where it listens when it has started."""

    def __init__(self, service: Any, says: Connection) -> None:
        self._service = service
        self._says = says

    async def start(self) -> None:
        await self._service.start()
        self._says.send(self._service.url)

    async def run(self, stop: asyncio.Event) -> None:
        service: Service = self._service
        await service.run(stop)


async def _readable(fd: int) -> None:
    """Returns when there is something to read, or the other end is closed."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
