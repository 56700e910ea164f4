"""The fork server as its supervisor sees it: started, asked for children, and started again when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal, Self

import structlog

from wf_core.collector import set_apart
from wf_worker import forkserver
from wf_worker.forkserver import ENDED, FORKED, KINDS, REPLY

log = structlog.get_logger(__name__)

Kind = Literal["runner", "process"]
FORK_SECONDS = 30.0
"""Longest wait for a child, that of a new fork server included."""
_STDERR = 2
_REQUESTS = {name: code for code, name in KINDS.items()}


class Lifeline:
    """A pipe whose writing end only this process holds: the kernel ends the children's groups when it closes."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()

    def close(self) -> None:
        """Ends every child that is left."""
        os.close(self._writing)
        os.close(self.reading)


@dataclass(frozen=True, slots=True)
class Forked:
    """A process: its pid, and its exit code once it is dead (negative: a signal; None: nobody knows)."""

    pid: int
    ended: asyncio.Future[int | None]


class Forks:
    """Asks the fork server for children. One that is gone is started again with the next request."""

    def __init__(self) -> None:
        self._lifeline: Lifeline | None = None
        self._control: socket.socket | None = None
        self._server = 0
        self._process: asyncio.subprocess.Process | None = None
        self._read = bytearray()
        self._asked: deque[asyncio.Future[Forked]] = deque()
        self._living: dict[int, Forked] = {}
        self._listens = False
        self._starting = asyncio.Lock()

    @classmethod
    def early(cls) -> Self:
        """With a server that is forked from this process, whose pages it shares: before there are threads and a loop.

        Where there are threads already, or forks without an exec are not safe, it starts as a program later.
        """
        it = cls()
        if sys.platform == "linux" and threading.active_count() == 1:
            it._fork_server()
        return it

    @property
    def server(self) -> int:
        """The pid of the server that was started last; 0 when none was."""
        return self._process.pid if self._process is not None else self._server

    async def fork(self, kind: Kind, link: socket.socket, urgent: socket.socket) -> Forked:
        """A child that holds the two sockets. Raises OSError when none can be made."""
        try:
            asked = await self._ask(kind, link, urgent)
        except (BrokenPipeError, ConnectionResetError):  # it is gone, and we had not heard
            self._lost()
            asked = await self._ask(kind, link, urgent)
        try:
            return await asyncio.wait_for(asked, FORK_SECONDS)
        except TimeoutError:
            if asked in self._asked:  # it still answers nobody: the next child brings another one
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.server, signal.SIGKILL)
                self._lost()
            raise

    async def close(self) -> None:
        """Ends the server and every child that is left."""
        if self._lifeline is not None:
            self._lifeline.close()
        self._lost()
        if self._process is not None:
            await self._process.wait()
        if self._server:
            await asyncio.to_thread(_reap, self._server)

    # --- the server's process

    def _fork_server(self) -> None:
        lifeline = self._lifeline = Lifeline()
        ours, theirs = socket.socketpair()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        forkserver.import_child()
        set_apart()  # a collection in either process would otherwise touch, and so copy, each page
        self._server = os.fork()
        if not self._server:
            try:
                forkserver.settle(theirs.fileno(), lifeline.reading)
                forkserver.main(theirs.detach(), lifeline.reading)
            finally:
                os._exit(1)
        theirs.close()
        ours.setblocking(False)
        self._control = ours

    async def _start_server(self) -> None:
        ours, theirs = socket.socketpair()
        self._lifeline = self._lifeline or Lifeline()
        fds = (theirs.fileno(), self._lifeline.reading)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-u", "-m", "wf_worker.forkserver", *map(str, fds)),
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
        ours.setblocking(False)
        self._control = ours

    async def _ask(self, kind: Kind, link: socket.socket, urgent: socket.socket) -> asyncio.Future[Forked]:
        loop = asyncio.get_running_loop()
        async with self._starting:
            if self._control is None:
                await self._start_server()
        assert self._control is not None  # noqa: S101 - it was started above
        if not self._listens:
            loop.add_reader(self._control.fileno(), self._readable)
            self._listens = True
        socket.send_fds(self._control, [_REQUESTS[kind]], [link.fileno(), urgent.fileno()])
        asked: asyncio.Future[Forked] = loop.create_future()
        self._asked.append(asked)
        return asked

    def _readable(self) -> None:
        assert self._control is not None  # noqa: S101 - it is not listened to otherwise
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            log.warning("the fork server is gone; the next child brings a new one")
            self._lost()
            return
        self._read += data
        while len(self._read) >= REPLY.size:
            self._hear(*REPLY.unpack_from(self._read))
            del self._read[: REPLY.size]

    def _hear(self, what: bytes, pid: int, code: int) -> None:
        if what == ENDED:
            if forked := self._living.pop(pid, None):
                _settle(forked, code)
        elif what == FORKED:
            asked = self._asked.popleft()
            if pid < 0:
                _refuse(asked, OSError(-pid, os.strerror(-pid)))
                return
            forked = self._living[pid] = Forked(pid, asyncio.get_running_loop().create_future())
            if not asked.done():  # else nobody waits any more: its sockets are closed, and so it ends
                asked.set_result(forked)

    def _lost(self) -> None:
        """The server is gone, or is to go: of what it forked nobody will know how it ended."""
        if self._control is not None:
            if self._listens:
                asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
        self._control, self._listens = None, False
        self._read.clear()
        for asked in self._asked:
            _refuse(asked, ConnectionResetError("the fork server is gone"))
        for forked in self._living.values():
            _settle(forked, None)
        self._asked.clear()
        self._living.clear()


def _refuse(asked: asyncio.Future[Forked], error: OSError) -> None:
    if not asked.done():
        asked.set_exception(error)


def _settle(forked: Forked, code: int | None) -> None:
    if not forked.ended.done():
        forked.ended.set_result(code)


def _reap(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
