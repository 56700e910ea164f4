"""Supervised tasks: none runs unwatched, and one that fails is known at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

CANCEL_AGAIN = 1.0


class Crew:
    """Tasks that are watched together and ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs `work` as a task. It may end; an exception fails the crew."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def watch(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set. Raises the first exception of a task."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([stopping, self._failed], return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
        finally:
            stopping.cancel()

    async def end(self) -> None:
        """Cancels what still runs and waits for it.

        Again and again: before Python 3.12 `asyncio.wait_for`, which the Redis client awaits, may swallow a cancel.
        """
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=CANCEL_AGAIN)
        with contextlib.suppress(asyncio.InvalidStateError):
            self._failed.exception()  # told, or too late to matter

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)
