"""Runs a task's coroutine in virtual time: `asyncio.sleep(86400)` takes no time at all."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StuckError(Exception):
    """A coroutine waits for what nothing will ever do."""


class _Selector(selectors.DefaultSelector):
    """Skips a wait that only a timer could end; waits in real time while files, sockets or threads are awaited."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if (ready := super().select(0)) or timeout == 0:
            return ready
        if len(self.get_map()) > 1 or self.loop.threads:  # one is the loop's own, by which threads wake it
            before = time.monotonic()
            ready = super().select(timeout)
            self.loop.pass_time(time.monotonic() - before)
        elif timeout is None:
            self.loop.stop()
        else:
            self.loop.pass_time(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and jumps to the next timer whenever nothing else is awaited."""

    def __init__(self) -> None:
        self.threads = 0
        self._elapsed = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Seconds that passed on this loop."""
        return self._elapsed

    def pass_time(self, seconds: float) -> None:
        """Moves the clock on."""
        self._elapsed += seconds

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As usual; until the call ends, time is real."""
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """As usual: it waits for threads."""
        self.threads += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self.threads -= 1

    def _thread_ended(self, _future: asyncio.Future[Any]) -> None:
        self.threads -= 1


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The coroutine's result and the seconds that it took. Raises what it raises, StuckError when it never ends."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        try:
            result = runner.run(coroutine)
        except RuntimeError as error:
            if str(error).startswith("Event loop stopped before"):
                raise StuckError("it waits for what nothing will ever do") from None
            raise
        return result, loop.time()


def off_the_loop(function: Callable[[], T]) -> T:
    """Calls `function`; in a thread of its own when an event loop runs in this one, as in an async test."""
    if not _loop_runs():
        return function()
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it belongs
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(call,))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
