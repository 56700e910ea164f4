"""A child process, `python -m wf_worker.child runner|process SOCKET LIFELINE`: the only place where user code runs.

A runner imports every task, reports the catalogue, and runs async tasks on its loop and plain ones in threads. A
process child imports a task on first use and runs one attempt at a time in its main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from wf_core import logging as wf_logging
from wf_core.plugins.observers import Observers
from wf_core.settings import Settings
from wf_worker import lifeline
from wf_worker.frames import (
    Cancel,
    Configure,
    Done,
    FromChild,
    Loaded,
    Loading,
    Run,
    Splitter,
    Started,
    ToChild,
    pack,
    to_child,
)
from wf_worker.invoke import Context, Runner
from wf_worker.loading import TaskLoader
from wf_worker.teller import Teller, capture

_CHUNK = 256 * 1024

log = structlog.get_logger(__name__)


class Link:
    """The socket to the supervisor. Any thread may send; one reads."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._sending = threading.Lock()

    def send(self, frame: FromChild) -> None:
        """Sends a frame; a supervisor that is gone ends this process through the reader."""
        data = pack(frame)
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(data)

    def frames(self) -> Iterator[ToChild]:
        """The supervisor's frames, until it goes."""
        splitter = Splitter()
        with contextlib.suppress(OSError):
            while data := self._socket.recv(_CHUNK):
                yield from map(to_child, splitter.feed(data))


class RunnerChild:
    """Runs async tasks on a loop in the main thread, and plain ones in a thread each."""

    def __init__(self, link: Link, slots: int, runner: Runner, teller: Teller) -> None:
        self._link = link
        self._teller = teller
        self._runner = runner
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="task")
        self._contexts: dict[int, Context] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def receive(self, frame: ToChild) -> None:
        """Takes a frame in the reader's thread; a blocked loop holds up neither threads nor their cancels."""
        if isinstance(frame, Run):
            context = self._contexts[frame.id] = _begin(frame, self._teller)
            if self._is_async(frame.task):
                self._loop.call_soon_threadsafe(self._start, frame, context)
            else:
                self._threads.submit(self._run_sync, frame, context)
        elif isinstance(frame, Cancel) and (known := self._contexts.get(frame.id)):
            known.cancel()
            self._loop.call_soon_threadsafe(self._cancel, frame.id)

    def serve(self) -> None:
        """Runs the loop for ever."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _is_async(self, name: str) -> bool:
        with contextlib.suppress(Exception):  # what is wrong with it is said when it runs
            return self._runner.task(name).executor == "async"
        return False

    def _start(self, run: Run, context: Context) -> None:
        self._tasks[run.id] = self._loop.create_task(self._run_async(run, context), name=f"{run.execution}/{run.node}")

    def _cancel(self, run_id: int) -> None:
        if task := self._tasks.get(run_id):
            task.cancel()

    async def _run_async(self, run: Run, context: Context) -> None:
        done = await self._runner.run_async(run, context)
        self._tasks.pop(run.id, None)
        self._finish(run, done)

    def _run_sync(self, run: Run, context: Context) -> None:
        self._finish(run, self._runner.run_sync(run, context))

    def _finish(self, run: Run, done: Done) -> None:
        self._contexts.pop(done.id, None)
        self._teller.end(run, tell=done.error is not None)
        self._link.send(done)


class ProcessChild:
    """Runs one attempt at a time in the main thread, where signals arrive."""

    def __init__(self, link: Link, runner: Runner, teller: Teller) -> None:
        self._link = link
        self._teller = teller
        self._runner = runner
        self._runs: queue.SimpleQueue[tuple[Run, Context]] = queue.SimpleQueue()
        self._context: Context | None = None

    def receive(self, frame: ToChild) -> None:
        """Takes a frame in the reader's thread."""
        if isinstance(frame, Run):
            self._context = _begin(frame, self._teller)
            self._runs.put((frame, self._context))
        elif isinstance(frame, Cancel) and self._context is not None:
            self._context.cancel()

    def serve(self) -> None:
        """Runs attempts for ever."""
        while True:
            run, context = self._runs.get()
            begin = functools.partial(self._link.send, Started(id=run.id))
            done = self._runner.run_sync(run, context, begin)
            self._teller.end(run, tell=done.error is not None)
            self._link.send(done)


def _begin(run: Run, teller: Teller) -> Context:
    teller.begin(run)
    return Context(run, functools.partial(teller.alive, run.id))


def main(arguments: list[str]) -> None:
    """Serves until the supervisor goes; then ends the whole process group."""
    kind, socket_fd, lifeline_fd = arguments
    lifeline.tie(int(lifeline_fd))
    link = Link(int(socket_fd))
    frames = link.frames()
    first = next(frames, None)
    if not isinstance(first, Configure):
        lifeline.end_group()
        return
    settings: dict[str, Any] = {"log_level": first.log_level, "log_format": first.log_format}
    wf_logging.configure(Settings.model_construct(**settings), "worker")
    structlog.contextvars.bind_contextvars(worker=first.worker)
    teller = Teller(link.send, alone=kind == "process")
    capture(teller)
    loader = TaskLoader(first.paths, first.skip, lambda name: link.send(Loading(task=name)))
    runner = Runner(loader, first.allow, first.max_payload_bytes)
    child: RunnerChild | ProcessChild
    child = RunnerChild(link, first.slots, runner, teller) if kind == "runner" else ProcessChild(link, runner, teller)
    reader = threading.Thread(target=_read, args=(frames, child.receive), name="frames", daemon=True)
    reader.start()
    if kind == "runner":
        catalogue = loader.catalogue(first.allow)
        link.send(Loaded(catalogue=catalogue.encode()))
        started = threading.Thread(target=_tell_observers, args=(first.worker, list(catalogue.tasks)), daemon=True)
        started.start()
    child.serve()


def _tell_observers(worker_id: str, tasks: list[str]) -> None:
    """Calls `wf_worker_started` of the observers that are installed: here, since they are others' code."""
    observers = Observers()
    observers.load()
    observers.call("wf_worker_started", worker_id=worker_id, tasks=tasks)


def _read(frames: Iterator[ToChild], receive: Callable[[ToChild], None]) -> None:
    try:
        for frame in frames:
            receive(frame)
    except Exception:
        log.exception("the child cannot read its supervisor")
    lifeline.end_group()


if __name__ == "__main__":
    main(sys.argv[1:])
