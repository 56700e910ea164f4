"""A child process as its supervisor sees it: spawn, frames, signals, death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Literal, cast

import structlog

from wf_worker.frames import Configure, FromChild, Splitter, ToChild, from_child, pack

log = structlog.get_logger(__name__)

Kind = Literal["runner", "process"]
_STDERR = 2


class Lifeline:
    """A pipe whose writing end only this process holds: the kernel ends the children's groups when it closes."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()

    def close(self) -> None:
        """Ends every child that is left."""
        os.close(self._writing)
        os.close(self.reading)


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
        self._process: asyncio.subprocess.Process | None = None

    async def spawn(self, lifeline: Lifeline, configure: Configure) -> None:
        """Starts the process, in a session of its own, and configures it."""
        ours, theirs = socket.socketpair()
        try:
            fds = (theirs.fileno(), lifeline.reading)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-u", "-m", "wf_worker.child", self.kind, *map(str, fds)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=_STDERR,
                pass_fds=fds,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
        self.send(configure)

    def send(self, frame: ToChild) -> None:
        """Sends a frame; to a child that is gone, nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(frame))

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the child and to all processes that it started in its group."""
        if self.pid and not self.gone:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self, why: str = "") -> None:
        """Ends the child at once; `on_gone` follows. `why` is told with what is lost in it."""
        self.killed_for = self.killed_for or why
        self.signal(signal.SIGKILL)
        if self._transport is not None:
            self._transport.abort()

    async def wait(self) -> int:
        """Its exit code (negative: the signal that ended it), once it is dead."""
        return await self._process.wait() if self._process is not None else 0

    @property
    def epitaph(self) -> str:
        """How its process ended, for people; "" while that is not known."""
        code = self._process.returncode if self._process is not None else None
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
        self.on_gone(self)
