"""Keeps one runner child alive, and finds out which task ends it when it dies at an import."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from wf_core.catalogue import Catalogue, decode
from wf_core.errors import SetupError
from wf_worker.children import Child
from wf_worker.frames import FromChild, Loaded, Loading
from wf_worker.loading import LOAD_SECONDS

log = structlog.get_logger(__name__)

_MOST_FAILURES = 5
_PAUSE = 0.2

Spawn = Callable[[Callable[[Child, FromChild], None], dict[str, str]], Awaitable[Child]]


class Runners:
    """The runner that takes new attempts, and its successors.

    `spawn(on_frame, skip)` starts a child, `on_frame` hears what runners say about attempts, `on_ready` that a new one
    may be used. One whose import of a task ends it, or takes too long, is started again without that task.
    """

    def __init__(
        self, spawn: Spawn, on_frame: Callable[[Child, FromChild], None], on_ready: Callable[[], None]
    ) -> None:
        self.current: Child | None = None
        self.catalogue = Catalogue()
        self._spawn = spawn
        self._on_frame = on_frame
        self._on_ready = on_ready
        self._skip: dict[str, str] = {}
        self._needed = asyncio.Event()
        self._news: asyncio.Queue[Loading | Loaded | None] = asyncio.Queue()

    async def start(self) -> None:
        """Loads the first runner. Raises SetupError when it does not come up."""
        self.current = await self._load()

    async def keep(self) -> None:
        """Replaces the runner whenever it is gone or a new one is asked for. Raises SetupError when that fails."""
        while True:
            await self._needed.wait()
            self._needed.clear()
            fresh = await self._load()
            if fresh.gone:
                self._needed.set()
                continue
            if self.current is not None:
                self.current.retired = True
            self.current = fresh
            self._on_ready()

    def reload(self) -> None:
        """Asks for a new runner with fresh imports; the old one goes on until then."""
        self._skip.clear()
        self._needed.set()

    def lost(self, child: Child) -> None:
        """A runner is gone."""
        if child is self.current:
            self.current = None
            self._needed.set()
        self._news.put_nowait(None)

    async def _load(self) -> Child:
        for attempt in range(_MOST_FAILURES + 1):
            while True:
                blamed = len(self._skip)
                child = await self._try_load()
                if child is not None:
                    return child
                if len(self._skip) == blamed:
                    break
            await asyncio.sleep(_PAUSE * 2**attempt)
        raise SetupError("a runner process does not come up; its last words are in the log above")

    async def _try_load(self) -> Child | None:
        """A child that has loaded its tasks; None when it did not, with the task that is to blame in `_skip`."""
        while not self._news.empty():
            self._news.get_nowait()
        loading = ""
        try:
            child = await self._spawn(self._frame, dict(self._skip))
        except OSError as error:  # no memory or no process left, for a moment
            log.error("a runner cannot be started", error=str(error))
            return None
        while True:
            try:
                news = await asyncio.wait_for(self._news.get(), LOAD_SECONDS)
            except TimeoutError:
                child.kill()
                self._blame(loading, f"its import took longer than {LOAD_SECONDS:g} s")
                return None
            if isinstance(news, Loaded):
                self.catalogue = decode(news.catalogue)
                self._say(child)
                return child
            if isinstance(news, Loading):
                loading = news.task
            elif child.gone:
                self._blame(loading, f"its import ended the process (exit code {await child.wait()})")
                return None

    def _blame(self, task: str, reason: str) -> None:
        log.error("a runner did not load", task=task, reason=reason)
        if task:
            self._skip[task] = f"{task}: {reason}"

    def _say(self, child: Child) -> None:
        log.info("tasks loaded", child=child.pid, tasks=len(self.catalogue.tasks), catalogue=self.catalogue.hash)
        for name, reason in self.catalogue.broken.items():
            log.error("task left out", task=name, error=reason)

    def _frame(self, child: Child, frame: FromChild) -> None:
        if isinstance(frame, Loading | Loaded):
            self._news.put_nowait(frame)
        else:
            self._on_frame(child, frame)
