"""The way of a call to a server and back, with everything that can happen to it and to its caller meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.faults import NETWORK

if TYPE_CHECKING:
    from simulation.loop import Process
    from simulation.world import World

_WITHOUT_COPIES = {kind: chance for kind, chance in NETWORK.items() if kind != "late copy"}
_HOP = 0.0006
"""Longest usual way of a packet in seconds."""


class Server:
    """Something that answers calls, and is away at times. `epoch` counts the times when all connections broke."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.away_until = 0.0
        self.epoch = 0

    @property
    def is_away(self) -> bool:
        """Whether it answers nobody now."""
        return self.world.loop.now < self.away_until

    def go_away(self, seconds: float) -> None:
        """Answers nobody for so long; whoever waits for an answer sees its connection break."""
        self.away_until = max(self.away_until, self.world.loop.now + seconds)
        self.epoch += 1

    def failure(self, *, timed_out: bool) -> Exception:
        """What its client raises."""
        raise NotImplementedError

    def call(
        self,
        process: Process,
        what: str,
        execute: Callable[[], Any],
        *,
        weight: float = 0.1,
        copies: bool = False,
    ) -> asyncio.Future[Any]:
        """Executes on this server, once or twice or never; the future of the answer, or of `failure`."""
        call = _Call(self, process, what, execute)
        if process.killed:  # it died earlier in this very callback
            return call.future
        if process.name == "api":  # it makes few calls
            weight *= 3
        fault = self.world.faults.of_call(weight, NETWORK if copies else _WITHOUT_COPIES)
        call.send(fault)
        return call.future


class _Call:
    __slots__ = ("epoch", "execute", "future", "process", "server", "what")

    def __init__(self, server: Server, process: Process, what: str, execute: Callable[[], Any]) -> None:
        self.server = server
        self.process = process
        self.what = what
        self.execute = execute
        self.future: asyncio.Future[Any] = server.world.loop.create_future()
        self.epoch = server.epoch

    def send(self, fault: str) -> None:
        world = self.server.world
        later, draw = world.loop.later, world.random.random
        if not fault:
            later(draw() * _HOP, self._arrive, "")
            return
        world.note(self.process, self.what, fault)
        match fault:
            case "request lost":
                self._fail_later()
            case "killed before a call":
                world.kill(self.process)
            case "paused before a call":
                later(draw() * _HOP, self._arrive, "")
                world.pause(self.process)
            case "slow":
                later(draw() ** 3 * 3.0, self._arrive, fault)
            case "late copy":
                later(world.random.choice((0.05, 0.5, 3.0, 12.0)), self._copy)
                self._fail_later()
            case _:
                later(draw() * _HOP, self._arrive, fault)

    def _arrive(self, fault: str) -> None:
        server, world = self.server, self.server.world
        if server.is_away or server.epoch != self.epoch:
            self._fail_later()
            return
        try:
            answer, error = self.execute(), None
            if fault == "sent twice":  # the client's own retry after a lost reply
                answer = self.execute()
        except world.answers as raised:
            answer, error = None, raised
        world.note(self.process, self.what, error or answer)
        match fault:
            case "reply lost":
                self._fail_later()
            case "killed after a call":
                world.kill(self.process)
            case _:
                if fault == "paused after a call":
                    world.pause(self.process)
                delay = world.random.random() ** 3 * 3.0 if fault == "slow" else world.random.random() * _HOP
                world.loop.later(delay, self._answer, answer, error)

    def _copy(self) -> None:
        if not self.server.is_away and self.epoch == self.server.epoch:
            self.server.world.note(self.process, self.what, "a late copy arrives")
            self.execute()

    def _answer(self, answer: Any, error: Exception | None) -> None:
        if self.future.done():
            return
        if self.epoch != self.server.epoch:
            self.future.set_exception(self.server.failure(timed_out=False))
        elif error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(answer)

    def _fail_later(self) -> None:
        world = self.server.world
        timed_out = world.random.random() < 0.15
        delay = 5.0 if timed_out else world.random.random() * 0.1
        world.loop.later(delay, self._fail, timed_out)

    def _fail(self, timed_out: bool) -> None:
        if not self.future.done():
            world = self.server.world
            world.note(self.process, self.what, "no answer")
            self.future.set_exception(self.server.failure(timed_out=timed_out))
