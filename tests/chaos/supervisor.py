"""Starts again what ended, as an init system would, and wakes up what a fail point paused."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from wf_testservers.cluster import Cluster, EngineProcess
from wf_testservers.process import stat

from chaos.journal import Journal
from chaos.logs import last_words
from chaos.waiting import until
from wf_core.run_service import EXIT_UNAVAILABLE

LONGEST_RESTART = 2.0
LONGEST_STOP = 30.0
"""A worker drains for 10 s; a server that is away may take another 10."""
_LOOK_SECONDS = 0.1
_AWAY_SECONDS = 45.0
"""A server may take so long to start; a service gives up after 30 s."""


@dataclass
class _Watched:
    process: EngineProcess
    may_die: bool
    """It has fail points, which kill."""
    killed: bool = False
    stop_by: float | None = None
    start_at: float | None = None
    wake_at: float | None = None


class Supervisor:
    """Watches the processes of a cluster. Faults are told to it, so that it knows an accident from a fault."""

    def __init__(self, cluster: Cluster, journal: Journal, chance: random.Random) -> None:
        self._journal = journal
        self._chance = chance
        self._watched = [_Watched(p, may_die=False) for p in cluster.processes]

    def expect_deaths(self, names: set[str]) -> None:
        """These processes have fail points that kill them."""
        for w in self._watched:
            w.may_die = w.process.name in names

    def running(self, kind: str) -> list[EngineProcess]:
        """The processes of a kind that run, are not paused and were not told to stop."""
        return [
            w.process
            for w in self._watched
            if w.process.kind == kind and w.process.alive and w.stop_by is None and not w.process.process.paused
        ]

    def kill(self, process: EngineProcess) -> None:
        """SIGKILL."""
        self._of(process).killed = True
        process.kill()

    def terminate(self, process: EngineProcess) -> None:
        """SIGTERM; it must leave within LONGEST_STOP."""
        self._of(process).stop_by = time.monotonic() + LONGEST_STOP
        process.process.terminate()

    def pause(self, process: EngineProcess, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after `seconds`."""
        self._of(process).wake_at = time.monotonic() + seconds
        process.process.pause()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Judges what ended, and starts, wakes and ends what is due."""
        for w in self._watched:
            self._look(w)

    async def settled(self, seconds: float) -> None:
        """Waits until every process runs and none is paused. Raises TimeoutError."""
        await until(lambda: all(map(_is_well, self._watched)), seconds)

    def wake(self) -> None:
        """SIGCONT to what is paused."""
        for w in self._watched:
            if w.wake_at is not None:
                w.wake_at = 0.0

    def _of(self, process: EngineProcess) -> _Watched:
        return next(w for w in self._watched if w.process is process)

    def _look(self, w: _Watched) -> None:
        now = time.monotonic()
        if not w.process.alive:
            self._ended(w, now)
        elif w.process.process.paused:
            if w.wake_at is None:  # a fail point did it
                w.wake_at = now + self._chance.uniform(0.5, 8)
                self._journal.deaths["paused by a fail point"] += 1
            if now >= w.wake_at:
                w.wake_at = None
                w.process.process.resume()
        elif w.stop_by is not None and now > w.stop_by:
            self._journal.violation(f"{w.process.name} was still there {LONGEST_STOP:g} s after SIGTERM")
            self.kill(w.process)

    def _ended(self, w: _Watched, now: float) -> None:
        if w.start_at is None:
            self._judge(w)
            w.start_at = now + self._chance.uniform(0, LONGEST_RESTART)
        if now >= w.start_at:
            w.killed, w.stop_by, w.start_at, w.wake_at = False, None, None, None
            w.process.restart()

    def _judge(self, w: _Watched) -> None:
        code = w.process.process.exit_code
        self._journal.say(f"{w.process.name} ended with exit code {code}")
        if code == -signal.SIGKILL and (w.killed or w.may_die):
            self._journal.deaths["killed" if w.killed else "killed by a fail point"] += 1
        elif code in (0, -signal.SIGTERM) and w.stop_by is not None:  # before it is up, SIGTERM just ends it
            self._journal.deaths["stopped in order"] += 1
        elif code == EXIT_UNAVAILABLE and time.monotonic() - self._journal.disturbed < _AWAY_SECONDS:
            self._journal.deaths["could not reach its servers"] += 1
        else:
            words = last_words(w.process)
            self._journal.violation(f"{w.process.name} ended by itself with exit code {code}: {words}")


def _is_well(w: _Watched) -> bool:
    return w.process.alive and w.stop_by is None and not w.process.process.paused


def pause_child(pid: int) -> None:
    """SIGSTOP to any process."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)


def wake_child(pid: int, parent: int) -> None:
    """SIGCONT to a child that is still its parent's."""
    if stat(pid)[1] == parent:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
