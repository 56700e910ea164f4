"""Runs attempts in children: which child, how long, and how each one ends. No user code runs in this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from wf_core.catalogue import Catalogue
from wf_core.failures import refusal
from wf_core.states import AttemptStatus
from wf_core.suggest import did_you_mean
from wf_core.wire import Failure, TaskMessage
from wf_worker.attempts import Attempt, Ended, ended_early, outcome_of
from wf_worker.children import Child
from wf_worker.forks import Forks, Kind
from wf_worker.frames import Configure, Done, FromChild, News, Run, Started
from wf_worker.loading import LOAD_SECONDS
from wf_worker.runners import Runners
from wf_worker.tails import extended

log = structlog.get_logger(__name__)

GRACE_SECONDS = 6.0
"""How long a cancelled or timed out attempt may take to end by itself; `shell.run` gives its command 5 s."""
_WARM_PROCESSES = 4
_SPAWN_PAUSE = 0.5
_BURIAL_SECONDS = 0.1
"""How long the news of a lost attempt may wait for the exit code of its process."""


@dataclass(slots=True)
class Executors:
    """Starts, times and ends attempts.

    `on_end` hears once how each attempt ended, `on_free` that a slot came free; `now_ms` tells Redis' time.
    """

    configure: Configure
    now_ms: Callable[[], int]
    on_end: Callable[[Attempt, Ended], None]
    on_free: Callable[[], None]
    grace: float = GRACE_SECONDS
    forks: Forks = field(default_factory=Forks)
    runners: Runners = field(init=False)
    _attempts: dict[int, Attempt] = field(default_factory=dict)
    _tokens: dict[str, Attempt] = field(default_factory=dict)
    _children: set[Child] = field(default_factory=set)
    _idle: list[Child] = field(default_factory=list)
    _waiting: list[Attempt] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _ids: itertools.count[int] = field(default_factory=itertools.count)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.runners = Runners(self._spawn_runner, self._frame, self._runner_ready)
        self._settled.set()

    @property
    def catalogue(self) -> Catalogue:
        """What can run here."""
        return self.runners.catalogue

    @property
    def slots(self) -> int:
        """How many attempts run at once."""
        return self.configure.slots

    @property
    def free(self) -> int:
        """Slots that nothing holds."""
        return self.slots - len(self._attempts)

    def running(self) -> list[str]:
        """Tokens whose end was not reported yet."""
        return list(self._tokens)

    def runs(self, token: str) -> bool:
        """Whether the end of this token was not reported yet."""
        return token in self._tokens

    def progress(self) -> dict[str, bytes]:
        """The newest progress in JSON bytes, by token, of what runs and gave any."""
        return {name: attempt.progress for name, attempt in self._tokens.items() if attempt.progress is not None}

    async def start(self) -> None:
        """Loads the tasks. Raises SetupError when no child comes up."""
        await self.runners.start()

    def run(self, token: str, message: TaskMessage) -> None:
        """Begins an attempt; the caller saw a free slot."""
        info = self.catalogue.tasks.get(message.task)
        attempt = Attempt(
            id=next(self._ids),
            token=token,
            message=message,
            # What was lost may have killed its child, and everything else in it: now it is alone.
            executor="process" if message.lost else info.executor if info else "async",
            package=info.shipped_by if info else "",
            timeout_ms=message.timeout_ms or (info.timeout_ms if info else None),
            started_at=self.now_ms(),
        )
        self._attempts[attempt.id] = self._tokens[token] = attempt
        self._settled.clear()
        if info is None:
            self._end(attempt, Ended(AttemptStatus.FAILED, error=self._unknown(message.task)))
            self._free(attempt)
        elif attempt.executor == "process":
            self._start_process(attempt)
        else:
            self._start_in_runner(attempt)

    def cancel(self, token: str) -> bool:
        """Ends an attempt that is not wanted any more; nothing is reported. False when it does not run here."""
        attempt = self._tokens.get(token)
        if attempt is None:
            return False
        if not attempt.ending:
            self._stop(attempt, "cancel")
        return True

    async def idle(self) -> None:
        """Returns when every attempt was reported."""
        await self._settled.wait()

    def hand_back(self) -> None:
        """Ends the children of what still runs; each attempt is reported as lost to the drain."""
        for attempt in list(self._attempts.values()):
            attempt.ending = attempt.ending or "drain"
            if attempt.child is None:
                self._conclude(attempt)
        for child in {attempt.child for attempt in self._attempts.values()} - {None}:
            assert child is not None  # noqa: S101 - taken out in the line above
            child.kill()

    def reload(self) -> None:
        """Fresh children for new attempts; the present ones end with what they run."""
        for child in self._idle:
            child.kill()
        for child in self._children:
            child.retired = child.kind == "process"
        self.runners.reload()

    async def close(self) -> None:
        """Ends all children."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        children = list(self._children)
        for child in children:
            child.retired = True
            child.kill()
        await asyncio.gather(*(child.wait() for child in children))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.forks.close()

    # --- children

    async def _spawn(self, kind: Kind, on_frame: Callable[[Child, FromChild], None], configure: Configure) -> Child:
        child = Child(kind, on_frame)
        child.on_gone = self._gone
        self._children.add(child)
        try:
            await child.spawn(self.forks, configure)
        except BaseException:
            if child.pid:
                child.kill()
            self._background(self._bury(child))
            raise
        return child

    async def _spawn_runner(self, on_frame: Callable[[Child, FromChild], None], skip: dict[str, str]) -> Child:
        return await self._spawn("runner", on_frame, _with_skip(self.configure, skip))

    def _gone(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
        if child.kind == "runner":
            self.runners.lost(child)
        self._background(self._bury(child))

    async def _bury(self, child: Child) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BURIAL_SECONDS):
                await child.wait()
        for attempt in [attempt for attempt in self._attempts.values() if attempt.child is child]:
            self._conclude(attempt, child.epitaph)
        code = await child.wait()
        self._children.discard(child)
        if not child.retired:
            log.warning("a child ended", child=child.pid, kind=child.kind, exit_code=code)

    def _frame(self, child: Child, frame: FromChild) -> None:
        if isinstance(frame, Started):
            self._started(frame)
        elif isinstance(frame, Done):
            self._done(child, frame)
        elif isinstance(frame, News):
            self._hear(frame)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- beginning

    def _start_in_runner(self, attempt: Attempt) -> None:
        child = self.runners.current
        if child is None:
            self._waiting.append(attempt)
            return
        self._time(attempt)
        self._send(attempt, child)

    def _runner_ready(self) -> None:
        for child in [c for c in self._children if c.kind == "runner" and c.retired]:
            self._retire(child)
        waiting, self._waiting = self._waiting, []
        for attempt in waiting:
            if attempt.id in self._attempts:
                self._start_in_runner(attempt)

    def _start_process(self, attempt: Attempt) -> None:
        if self._idle:
            self._send_process(attempt, self._idle.pop())
        else:
            self._background(self._spawn_for(attempt))

    async def _spawn_for(self, attempt: Attempt) -> None:
        try:
            child = await self._spawn("process", self._frame, self.configure)
        except Exception as error:  # noqa: BLE001 - as for want of threads; the attempt must not wait for ever
            log.error("no process can be started", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(_SPAWN_PAUSE)
            self._conclude(attempt, f"no process could be started for it: {type(error).__name__}: {error}")
            return
        if attempt.id in self._attempts:
            self._send_process(attempt, child)
        else:
            self._release(child)

    def _send_process(self, attempt: Attempt, child: Child) -> None:
        self._after(attempt, LOAD_SECONDS, lambda: self._stop(attempt, "loading"))
        self._send(attempt, child)

    def _send(self, attempt: Attempt, child: Child) -> None:
        message = attempt.message
        attempt.child = child
        attempt.started_at = self.now_ms()
        child.send(
            Run(
                id=attempt.id,
                execution=message.execution,
                node=message.node,
                attempt=message.attempt,
                task=message.task,
                params=message.params,
            ),
            urgent=attempt.executor == "thread",
        )
        if child.gone:  # between its start and now
            self._conclude(attempt, child.epitaph)

    def _started(self, frame: Started) -> None:
        attempt = self._attempts.get(frame.id)
        if attempt is not None and not attempt.ending:
            attempt.started_at = self.now_ms()
            self._time(attempt)

    def _time(self, attempt: Attempt) -> None:
        self._after(attempt, None, lambda: None)
        if attempt.timeout_ms is not None:
            self._after(attempt, attempt.timeout_ms / 1000, lambda: self._stop(attempt, "timeout"))
        if attempt.message.heartbeat_ms is not None:
            attempt.heard_at = asyncio.get_running_loop().time()
            self._listen(attempt, attempt.message.heartbeat_ms / 1000)

    def _listen(self, attempt: Attempt, longest: float) -> None:
        """Ends the attempt if it was silent for `longest` seconds; otherwise looks again when it may have been."""
        loop = asyncio.get_running_loop()
        silent = loop.time() - attempt.heard_at
        if silent < longest:
            attempt.silence = loop.call_later(longest - silent, self._listen, attempt, longest)
        else:
            attempt.silent_seconds = silent
            self._stop(attempt, "silent")

    def _hear(self, news: News) -> None:
        """An attempt called `ctx.heartbeat`, logged or printed."""
        attempt = self._attempts.get(news.id)
        if attempt is None or attempt.reported:
            return
        attempt.tail = extended(attempt.tail, news.said)
        if news.alive:
            attempt.heard_at = asyncio.get_running_loop().time()
        if news.progress is not None:
            attempt.progress = news.progress

    def _after(self, attempt: Attempt, seconds: float | None, action: Callable[[], None]) -> None:
        """Sets the attempt's one timer anew; None only clears it."""
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, action)

    # --- ending

    def _stop(self, attempt: Attempt, why: Literal["timeout", "silent", "cancel", "loading"]) -> None:
        """Asks the attempt's code to end; what does not react within the grace time loses its child."""
        attempt.ending = why
        _hush(attempt)
        child = attempt.child
        if child is None:
            self._conclude(attempt)
            return
        child.cancel(attempt.id)
        if attempt.executor == "thread":
            self._after(attempt, None, lambda: None)
            self._end(attempt, ended_early(attempt))
            return
        if attempt.executor == "process":
            child.signal(signal.SIGTERM)
        self._after(attempt, self.grace, lambda: self._give_up(attempt, child))

    def _give_up(self, attempt: Attempt, child: Child) -> None:
        log.warning("an attempt does not end; its child is replaced", token=attempt.token, child=child.pid)
        child.kill(f"another attempt in it, {attempt.token}, did not end when it was told to ({attempt.ending})")

    def _done(self, child: Child, done: Done) -> None:
        attempt = self._attempts.get(done.id)
        if attempt is None:
            return
        ended = ended_early(attempt) if attempt.ending else outcome_of(done)
        self._end(attempt, ended)
        self._free(attempt)
        if child.kind == "process":
            child.retired = child.retired or bool(attempt.ending)
            self._release(child)
        else:
            self._retire(child)

    def _conclude(self, attempt: Attempt, detail: str = "") -> None:
        """Ends an attempt whose child is gone, or never came; `detail` says how."""
        self._end(attempt, ended_early(attempt, detail))
        self._free(attempt)

    def _end(self, attempt: Attempt, ended: Ended) -> None:
        if not attempt.reported:
            attempt.reported = True
            self._tokens.pop(attempt.token, None)
            self.on_end(attempt, ended)
            if not self._tokens:
                self._settled.set()

    def _free(self, attempt: Attempt) -> None:
        self._after(attempt, None, lambda: None)
        _hush(attempt)
        if self._attempts.pop(attempt.id, None) is not None:
            self.on_free()

    def _release(self, child: Child) -> None:
        """A process child has nothing to do: keep it warm, or end it."""
        if child.retired or child.gone or len(self._idle) >= min(_WARM_PROCESSES, self.slots):
            child.retired = True
            child.kill()
        else:
            self._idle.append(child)

    def _retire(self, child: Child) -> None:
        """Ends a runner that was replaced, once it runs nothing."""
        if child.retired and not any(attempt.child is child for attempt in self._attempts.values()):
            child.kill()

    def _unknown(self, name: str) -> Failure:
        if name in self.catalogue.broken:
            return refusal("PluginError", f"task {name} does not load on this worker: {self.catalogue.broken[name]}")
        if name in self.catalogue.refused:
            text = (
                f"task {name} runs code of the document's author and APP_WORKER_ALLOW does not name it on this worker"
            )
            return refusal("TaskNotAllowedError", text)
        hint = did_you_mean(name, self.catalogue.tasks)
        return refusal("UnknownTaskError", f"this worker has no task {name!r}{hint}")


def _hush(attempt: Attempt) -> None:
    """Nobody listens for its silence any more."""
    if attempt.silence is not None:
        attempt.silence.cancel()
        attempt.silence = None


def _with_skip(configure: Configure, skip: dict[str, str]) -> Configure:
    return Configure(**{name: getattr(configure, name) for name in configure.__struct_fields__} | {"skip": skip})
