"""An event loop on virtual time that runs many processes and can kill or stop each of them between any two callbacks.

Whose a callback is says its context: everything that a process starts inherits `PROCESS`. When nothing is ready, time
jumps to the next timer. Nothing here depends on real time or on addresses in memory, so a seed repeats exactly.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any

Callback = Callable[..., object]


class Process:
    """A simulated process. Killed, its callbacks never run again; stopped, they wait for `Loop.resume`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False
        self.stopped = False
        self.skew = 0.0
        """Seconds by which its wall clock is wrong."""
        self.held: list[Handle] = []


OUTSIDE = Process("world")
"""What is no process: the servers, the network, whoever injects faults."""
PROCESS: ContextVar[Process] = ContextVar("process", default=OUTSIDE)


class Handle:
    """A callback that is due, or will be. Has what asyncio asks of a `TimerHandle`."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_when", "process")

    def __init__(self, callback: Callback, args: tuple[Any, ...], context: Context, when: float) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._when = when
        self.process = context.get(PROCESS, OUTSIDE)

    def cancel(self) -> None:
        """It will not run."""
        self._cancelled = True
        self._args = ()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def when(self) -> float:
        """The time at which it is due."""
        return self._when

    def run(self) -> None:
        """Runs it in its context."""
        self._context.run(self._callback, *self._args)


class _Numbered:
    """Hashes by the order of creation: sets of tasks then have the same order in every run."""

    _loop: Any

    def __hash__(self) -> int:
        return self.number


class Future(_Numbered, asyncio.Future[Any]):
    """A future of this loop."""

    def __init__(self, loop: Loop) -> None:
        self.number = next(loop.numbers)
        super().__init__(loop=loop)


class Task(_Numbered, asyncio.Task[Any]):
    """A task of this loop."""

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: Loop, name: str | None, context: Context | None) -> None:
        self.number = next(loop.numbers)
        super().__init__(coro, loop=loop, name=name, context=context)


class Loop(asyncio.AbstractEventLoop):
    """The part of an event loop that tasks, futures, locks and timeouts need. `errors` holds what callbacks raised."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.now = 0.0
        self.errors: list[tuple[str, BaseException | None]] = []
        self.tasks: list[Task] = []
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._serial = itertools.count()
        self.outside = contextvars.copy_context()
        """The context of callbacks that belong to no process."""

    # --- what asyncio asks for

    def time(self) -> float:
        """Virtual seconds."""
        return self.now

    def call_soon(self, callback: Callback, *args: Any, context: Context | None = None) -> Any:
        """Runs the callback after those that are ready."""
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context, self.now)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callback, *args: Any, context: Context | None = None) -> Any:
        """Runs the callback `delay` seconds from now."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callback, *args: Any, context: Context | None = None) -> Any:
        """Runs the callback at `when`."""
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        heapq.heappush(self._timers, (when, next(self._serial), handle))
        return handle

    def create_future(self) -> Any:
        """A new future."""
        return Future(self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        """A new task."""
        task = Task(coro, self, name, context)
        self.tasks.append(task)
        if len(self.tasks) > 2000:
            self.tasks = [one for one in self.tasks if not one.done()]
        return task

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Runs the function at once: threads have no place in a simulation."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits it
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """Always, as far as tasks can tell."""
        return True

    def is_closed(self) -> bool:
        """Never."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keeps what nobody caught; an answer that came too late for whoever asked is no error."""
        if "never retrieved" in context.get("message", ""):
            return
        self.errors.append((context.get("message", ""), context.get("exception")))

    # --- what the world asks for

    def later(self, delay: float, callback: Callback, *args: Any) -> None:
        """Runs the callback on behalf of no process: a packet under way arrives even when its sender is dead."""
        self.call_at(self.now + delay, callback, *args, context=self.outside)

    def start(self, process: Process, coro: Coroutine[Any, Any, Any]) -> Task:
        """Runs the coroutine as the main task of a process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        task: Task = self.create_task(coro, name=process.name, context=context)
        return task

    def resume(self, process: Process) -> None:
        """Lets a stopped process go on with all that became due meanwhile."""
        process.stopped = False
        self._ready.extend(process.held)
        process.held = []

    def run_until(self, task: asyncio.Future[Any]) -> Any:
        """Runs until the task is done; its result. Raises RuntimeError when nothing is left to do."""
        ready, timers = self._ready, self._timers
        asyncio._set_running_loop(self)
        try:
            while not task.done():
                if not ready:
                    if not timers:
                        raise RuntimeError("nothing is left to do")
                    when, _, handle = heapq.heappop(timers)
                    if handle._cancelled:
                        continue
                    self.now = max(self.now, when)
                    ready.append(handle)
                handle = ready.popleft()
                process = handle.process
                if handle._cancelled or process.killed:
                    continue
                if process.stopped:
                    process.held.append(handle)
                    continue
                handle.run()
        finally:
            asyncio._set_running_loop(None)
        return task.result()

    def abandon(self) -> None:
        """Closes what is left unfinished, quietly: a killed process runs no `finally`, but Python's memory must end."""
        self._ready.clear()
        self._timers.clear()
        for task in self.tasks:
            if task.done():
                continue
            task._log_destroy_pending = False
            coro = task.get_coro()
            for _ in range(20):
                try:
                    coro.close()
                    break
                except RuntimeError:  # its `finally` awaits something
                    continue
                except BaseException:  # noqa: BLE001, S112 - whatever it raises, nobody listens any more
                    continue
        self.tasks.clear()
        self._ready.clear()
        self._timers.clear()
