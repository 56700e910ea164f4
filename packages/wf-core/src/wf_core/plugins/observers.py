"""Calls observers of the group `wf.observers`, isolated from each other and from us."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Self

import pluggy
import structlog

from wf_core.errors import PluginError
from wf_core.plugins import drivers, groups
from wf_core.plugins.hookspecs import PROJECT, Change, ObserverSpec

log = structlog.get_logger(__name__)


class Observers:
    """A bounded queue of changes and the task that hands them out. What does not fit is counted and dropped."""

    def __init__(self, *, limit: int = 10_000) -> None:
        self.dropped = 0
        self.errors = 0
        self._queue: asyncio.Queue[tuple[str, Change]] = asyncio.Queue(limit)
        self._managers: dict[str, pluggy.PluginManager] = {}
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Imports the installed observers; one that is broken is reported and left out."""
        for name, plugin in drivers.installed(groups.OBSERVERS).items():
            try:
                manager = pluggy.PluginManager(PROJECT)
                manager.add_hookspecs(ObserverSpec)
                manager.register(drivers.load(groups.OBSERVERS, name), name)
                manager.check_pending()
            except (PluginError, pluggy.PluginValidationError) as error:
                log.error("observer left out", observer=name, package=plugin.package, error=str(error))
                continue
            self._managers[name] = manager

    @property
    def active(self) -> bool:
        """Whether anyone listens."""
        return bool(self._managers)

    def publish(self, hook: str, changes: list[Change]) -> None:
        """Queues changes for the hook; never waits."""
        if not self._managers:
            return
        for change in changes:
            try:
                self._queue.put_nowait((hook, change))
            except asyncio.QueueFull:
                self.dropped += 1

    def call(self, hook: str, **arguments: Any) -> None:
        """Calls `hook` of every observer; one that raises is logged and counted."""
        for name, manager in self._managers.items():
            try:
                getattr(manager.hook, hook)(**arguments)
            except Exception as error:  # noqa: BLE001 - an observer must not hurt us
                self.errors += 1
                log.error("observer failed", observer=name, hook=hook, error=f"{type(error).__name__}: {error}")

    async def __aenter__(self) -> Self:
        self.load()
        if self._managers:
            self._task = asyncio.create_task(self._run(), name="observers")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), 5)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            first = await self._queue.get()
            batch = [first, *self._drain(500)]
            for hook in dict.fromkeys(name for name, _ in batch):
                changes = [change for name, change in batch if name == hook]
                await asyncio.to_thread(self.call, hook, changes=changes)
            for _ in batch:
                self._queue.task_done()

    def _drain(self, most: int) -> Iterator[tuple[str, Change]]:
        for _ in range(most):
            try:
                yield self._queue.get_nowait()
            except asyncio.QueueEmpty:
                return
