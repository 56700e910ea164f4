"""A child process as its supervisor sees it: spawn, frames, signals, death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import cast

import structlog

from wf_worker.forks import Forked, Forks, Kind
from wf_worker.frames import Cancel, Configure, FromChild, Splitter, ToChild, from_child, pack

log = structlog.get_logger(__name__)


class Child(asyncio.Protocol):
    """One child. `on_frame` hears what it says, `on_gone` once that it died or was killed."""

    def __init__(self, kind: Kind, on_frame: Callable[[Child, FromChild], None]) -> None:
        self.kind = kind
        self.gone = False
        self.retired = False
        """Takes no new attempts; ends with the last one that it runs."""
        self.killed_for = ""
        """Why its supervisor killed it while it may have run attempts; for people."""
        self.pid = 0
        self.on_gone: Callable[[Child], None] = lambda _child: None
        self._on_frame = on_frame
        self._splitter = Splitter()
        self._transport: asyncio.Transport | None = None
        self._urgent: asyncio.Transport | None = None
        self._forked: Forked | None = None

    async def spawn(self, forks: Forks, configure: Configure) -> None:
        """Starts the process, in a session of its own, and configures it. Raises OSError when there can be none."""
        ours, theirs = socket.socketpair()
        ours_urgent, theirs_urgent = socket.socketpair()
        try:
            self._forked = await forks.fork(self.kind, theirs, theirs_urgent)
        except BaseException:
            ours.close()
            ours_urgent.close()
            raise
        finally:
            theirs.close()
            theirs_urgent.close()
        self.pid = self._forked.pid
        loop = asyncio.get_running_loop()
        self._urgent, _ = await loop.create_unix_connection(asyncio.Protocol, sock=ours_urgent)
        await loop.create_unix_connection(lambda: self, sock=ours)
        self.send(configure)

    def send(self, frame: ToChild, *, urgent: bool = False) -> None:
        """Sends a frame; to a child that is gone, nothing. `urgent`: nothing that runs in the child may hold it up."""
        transport = self._urgent if urgent else self._transport
        if transport is not None and not transport.is_closing():
            transport.write(pack(frame))

    def cancel(self, run_id: int) -> None:
        """Asks the code of an attempt to end."""
        frame = Cancel(id=run_id)
        self.send(frame, urgent=True)
        # In its turn too: the loop may not have read the attempt yet, and only the loop can cancel a task.
        self.send(frame)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the child and to all processes that it started in its group."""
        if self.pid and not self.gone:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self, why: str = "") -> None:
        """Ends the child at once; `on_gone` follows. `why` is told with what is lost in it."""
        self.killed_for = self.killed_for or why
        self.signal(signal.SIGKILL)
        for transport in (self._transport, self._urgent):
            if transport is not None:
                transport.abort()

    async def wait(self) -> int | None:
        """Its exit code (negative: the signal that ended it) once it is dead; None when nobody knows."""
        return await asyncio.shield(self._forked.ended) if self._forked is not None else None

    @property
    def epitaph(self) -> str:
        """How its process ended, for people; "" while that is not known."""
        code = self._forked.ended.result() if self._forked is not None and self._forked.ended.done() else None
        if self.killed_for:
            return f"its process was ended by the worker: {self.killed_for}"
        if code is None:
            return ""
        if code >= 0:
            return f"its process ended with exit code {code}"
        name = ""
        with contextlib.suppress(ValueError):
            name = f" ({signal.Signals(-code).name})"
        hint = ", as the kernel does when memory runs out" if code == -signal.SIGKILL else ""
        return f"its process was ended by signal {-code}{name}{hint}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport. Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """Hands on the frames in `data`. Called by the loop."""
        try:
            for body in self._splitter.feed(data):
                self._on_frame(self, from_child(body))
        except Exception:
            log.exception("a child says what nobody understands; it is replaced", child=self.pid)
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The child is gone, or as good as: what is left of its group is killed. Called by the loop."""
        self.signal(signal.SIGKILL)
        self.gone = True
        if self._urgent is not None:
            self._urgent.abort()
        self.on_gone(self)
