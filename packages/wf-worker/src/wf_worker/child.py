"""A child process, forked by the fork server: the only place where user code runs.

A runner imports every task, reports the catalogue, and runs async tasks on its loop and plain ones in threads. A
process child imports a task on first use and runs one attempt at a time in its main thread.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Sequence

import structlog

from wf_core import logging as wf_logging
from wf_core.loops import new_event_loop
from wf_core.plugins.observers import Observers
from wf_worker import lifeline
from wf_worker.crew import Crew, Work
from wf_worker.frames import Cancel, Configure, Done, Loaded, Loading, Run, Started, ToChild
from wf_worker.invoke import Context, Runner
from wf_worker.link import Link
from wf_worker.loading import TaskLoader
from wf_worker.teller import Teller, capture

log = structlog.get_logger(__name__)


class RunnerChild:
    """Runs async tasks on a loop in the main thread, and plain ones in a thread each.

    The loop reads the attempts that it runs, so that no thread hands them over. What it holds up when a task blocks it
    are async attempts alone: the crew reads all else, and the teller sends what had ended before.
    """

    def __init__(self, link: Link, urgent: Link, runner: Runner, teller: Teller) -> None:
        self._link = link
        self._teller = teller
        self._runner = runner
        self._loop = new_event_loop()
        self._crew = Crew(urgent, self._take)
        self._contexts: dict[int, Context] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._flushing = False

    def start(self) -> None:
        """Begins to read what is urgent."""
        self._crew.start()

    def serve(self, came: list[ToChild]) -> None:
        """Runs the loop for ever, beginning with frames that came already."""
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._hear, came)
        self._loop.add_reader(self._link.fileno(), self._read)
        self._loop.run_forever()

    # --- on the loop

    def _read(self) -> None:
        try:
            frames = self._link.receive()
        except Exception as error:
            if not isinstance(error, EOFError):
                log.exception("the child cannot read its supervisor")
            lifeline.end_group()
            return
        self._hear(frames)

    def _hear(self, frames: list[ToChild]) -> None:
        for frame in frames:
            if isinstance(frame, Run):
                context = self._begin(frame)
                if self._runner.is_async(frame.task):
                    self._start(frame, context)
                else:  # it was sent for what the task had been before it was loaded anew
                    self._crew.run(functools.partial(self._run_in_thread, frame, context))
            elif isinstance(frame, Cancel) and (task := self._tasks.get(frame.id)):
                self._contexts[frame.id].cancel()
                self._cancel_soon(task)

    def _start(self, run: Run, context: Context) -> None:
        task = self._loop.create_task(self._run_async(run, context), name=f"{run.execution}/{run.node}")
        self._tasks[run.id] = task
        if context.cancelled:  # it came by the crew, and its cancel may have been read here first
            self._cancel_soon(task)

    def _cancel_soon(self, task: asyncio.Task[None]) -> None:
        """Later than its first step: a task that is cancelled before that never runs, and would not say so."""
        self._loop.call_soon(_cancel_once, task)

    async def _run_async(self, run: Run, context: Context) -> None:
        done = await self._runner.run_async(run, context)
        del self._tasks[run.id]
        self._finish(run, done)
        if done.error is None:
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Sends at once what is alone, and together what ends in one pass of the loop."""
        if not self._tasks:
            self._link.flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
            self._teller.soon()

    def _flush(self) -> None:
        self._flushing = False
        self._link.flush()

    # --- in any thread

    def _take(self, frame: ToChild) -> Work | None:
        if isinstance(frame, Run):
            context = self._begin(frame)
            if not self._runner.is_async(frame.task):
                return functools.partial(self._run_in_thread, frame, context)
            self._loop.call_soon_threadsafe(self._start, frame, context)
        elif isinstance(frame, Cancel) and (known := self._contexts.get(frame.id)):
            known.cancel()
        return None

    def _begin(self, run: Run) -> Context:
        self._teller.begin(run)
        context = self._contexts[run.id] = Context(run, self._teller.alive)
        return context

    def _run_in_thread(self, run: Run, context: Context) -> None:
        self._finish(run, self._runner.run_sync(run, context))
        self._link.flush()

    def _finish(self, run: Run, done: Done) -> None:
        del self._contexts[run.id]
        self._teller.end(run, tell=done.error is not None)
        if done.error is None:
            self._link.post(done)
        else:
            self._link.send(done)


def _cancel_once(task: asyncio.Task[None]) -> None:
    if not task.cancelling():
        task.cancel()


class ProcessChild:
    """Runs one attempt at a time in the main thread, where signals arrive."""

    def __init__(self, link: Link, urgent: Link, runner: Runner, teller: Teller) -> None:
        self._link = link
        self._teller = teller
        self._runner = runner
        self._crew = Crew(urgent, self._take)
        self._context: tuple[int, Context] | None = None
        self._cancelled = -1

    def serve(self, came: list[ToChild]) -> None:
        """Runs attempts until the supervisor goes, beginning with frames that came already."""
        self._crew.start()
        frames = deque(came)
        while True:
            while not frames:
                frames.extend(self._link.receive())
            frame = frames.popleft()
            if isinstance(frame, Run):
                self._run(frame)

    def _run(self, run: Run) -> None:
        self._teller.begin(run)
        context = Context(run, self._teller.alive)
        self._context = (run.id, context)
        if self._cancelled == run.id:  # its cancel was read first
            context.cancel()
        done = self._runner.run_sync(run, context, functools.partial(self._link.send, Started(id=run.id)))
        self._teller.end(run, tell=done.error is not None)
        self._link.send(done)

    def _take(self, frame: ToChild) -> None:
        if isinstance(frame, Cancel):
            self._cancelled = frame.id
            if self._context is not None and self._context[0] == frame.id:
                self._context[1].cancel()


def main(kind: str, sockets: Sequence[int], lifeline_fd: int) -> None:
    """Serves as `runner` or `process` until the supervisor goes; then ends the whole process group.

    `sockets`: the descriptors of what comes in its turn and of what is urgent.
    """
    lifeline.tie(lifeline_fd)
    link, urgent = map(Link, sockets)
    try:
        _serve(kind, link, urgent)
    except EOFError:
        lifeline.end_group()


def _serve(kind: str, link: Link, urgent: Link) -> None:
    came: list[ToChild] = []
    while not came:
        came = link.receive()
    first, *rest = came
    if not isinstance(first, Configure):
        raise EOFError("what comes first is no configuration: the supervisor speaks something else")  # noqa: TRY004 - it may as well be gone
    wf_logging.configure(first, "worker")
    structlog.contextvars.bind_contextvars(worker=first.worker)
    teller = Teller(link.send, alone=kind == "process", flush=link.flush)
    capture(teller)
    loader = TaskLoader(first.paths, first.skip, lambda name: link.send(Loading(task=name)))
    runner = Runner(loader, first.allow, first.max_payload_bytes)
    if kind == "process":
        ProcessChild(link, urgent, runner, teller).serve(rest)
    else:
        _serve_runner(RunnerChild(link, urgent, runner, teller), link, first, loader, rest)


def _serve_runner(
    child: RunnerChild, link: Link, configure: Configure, loader: TaskLoader, came: list[ToChild]
) -> None:
    child.start()
    catalogue = loader.catalogue(configure.allow)
    link.send(Loaded(catalogue=catalogue.encode()))
    telling = (configure.worker, list(catalogue.tasks))
    threading.Thread(target=_tell_observers, args=telling, daemon=True).start()
    child.serve(came)


def _tell_observers(worker_id: str, tasks: list[str]) -> None:
    """Calls `wf_worker_started` of the observers that are installed: here, since they are others' code."""
    observers = Observers()
    observers.load()
    observers.call("wf_worker_started", worker_id=worker_id, tasks=tasks)
