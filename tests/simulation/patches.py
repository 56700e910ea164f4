"""Puts the world under the services: their clients, clocks and chance come from the simulation while it runs.

Everything else of a service, its wiring included, is what runs in production.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any
from unittest import mock

import structlog

import wf_orchestrator.plans
import wf_orchestrator.service
import wf_worker.service
from simulation.executors import Executors
from simulation.log import Log
from simulation.loop import PROCESS
from simulation.redis import Client
from wf_core.plugins import drivers
from wf_core.plugins.observers import Observers
from wf_core.store.clock import Clock
from wf_orchestrator.policy_book import PolicyBook

if TYPE_CHECKING:
    from simulation.world import World


class Stage:
    """Where the world of the moment stands, for everything that the services reach by a global name."""

    def __init__(self) -> None:
        self.world: World

    def connect(self, *_: Any, **_options: Any) -> Client:
        """A client of the process that calls."""
        return Client(self.world.redis, PROCESS.get())

    def open_log(self, *_: Any) -> Log:
        """The log of the process that calls."""
        return Log(self.world.log, PROCESS.get())

    def clock(self, *_: Any) -> Clock:
        """A clock on virtual time, over a wall clock that may be wrong."""
        skew = PROCESS.get().skew
        return Clock(self.monotonic, lambda: self.world.wall + skew)

    def executors(self, *arguments: Any, **options: Any) -> Executors:
        """Attempts without children."""
        return Executors(self.world, *arguments, **options)

    def worker_id(self) -> str:
        """A name that no process had before."""
        return f"{PROCESS.get().name}.{self.world.serial()}"

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self.world.loop.now

    def wall(self) -> float:
        """The wall clock of the process that calls."""
        return self.world.wall + PROCESS.get().skew

    def urandom(self, count: int) -> bytes:
        """Chance, by the seed."""
        return self.world.random.randbytes(count)


STAGE = Stage()


class _Listener:
    """A logger that hears only what is logged with a traceback: a mistake of ours that a loop's edge caught."""

    def __init__(self, *_: Any, **_options: Any) -> None:
        """As structlog makes it."""

    def bind(self, **_: Any) -> _Listener:
        """Itself."""
        return self

    def exception(self, event: str, **_: Any) -> None:
        """Something failed that should not."""
        STAGE.world.failed(event, sys.exc_info()[1])

    def info(self, event: str, *, exc_info: bool = False, **_: Any) -> None:
        """Nothing, unless it comes with a traceback."""
        if exc_info:
            self.exception(event)

    debug = warning = error = critical = info


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """While this lasts the services run on the stage."""
    structlog.configure(wrapper_class=_Listener, cache_logger_on_first_use=False)
    with contextlib.ExitStack() as stack:
        for target, name, value in _replaced():
            stack.enter_context(mock.patch.object(target, name, value))
        yield
    structlog.reset_defaults()


def _replaced() -> Iterator[tuple[Any, str, Any]]:
    for service in (wf_orchestrator.service, wf_worker.service):
        yield service, "connect", STAGE.connect
        yield service, "open_log", STAGE.open_log
        yield service, "Clock", STAGE.clock
    yield wf_worker.service, "Executors", STAGE.executors
    yield wf_worker.service, "new_worker_id", STAGE.worker_id
    yield time, "monotonic", STAGE.monotonic
    yield time, "time", STAGE.wall
    yield os, "urandom", STAGE.urandom
    yield random, "_urandom", STAGE.urandom
    yield os, "getpid", lambda: 1
    # Slow, and the same for every process: what is installed, and how a document compiles.
    yield metadata, "version", functools.cache(metadata.version)
    yield drivers, "installed", functools.cache(drivers.installed)
    yield Observers, "load", lambda _: None  # they decide nothing
    yield PolicyBook, "load", functools.cache(PolicyBook.load)
    yield wf_orchestrator.plans, "_load", functools.cache(wf_orchestrator.plans._load)
