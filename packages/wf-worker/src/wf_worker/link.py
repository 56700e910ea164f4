"""A socket to the supervisor, as a child holds it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

from wf_worker.frames import FromChild, Splitter, ToChild, pack, to_child

_CHUNK = 64 * 1024
"""Bytes asked for at once; the C library would map and unmap pages for each longer buffer."""


class Link:
    """Frames in both directions. Any thread may send; whoever reads does so alone."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._splitter = Splitter()
        self._sending = threading.Lock()
        self._posted = bytearray()

    def fileno(self) -> int:
        """The descriptor, for a loop that waits for it."""
        return self._socket.fileno()

    def receive(self) -> list[ToChild]:
        """Waits for bytes and returns the frames that they complete. Raises EOFError when the supervisor is gone.

        A loop that watches the descriptor (uvloop's) may have made it one that does not wait: then there may be none.
        """
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            raise EOFError("the supervisor is gone")
        return [to_child(body) for body in self._splitter.feed(data)]

    def send(self, frame: FromChild) -> None:
        """Sends a frame, behind all that was posted; to a supervisor that is gone, nothing (who reads hears of it)."""
        data = pack(frame)
        with self._sending:
            self._posted += data
            self._write()

    def post(self, frame: FromChild) -> None:
        """Keeps a frame for the next `send` or `flush`: many that come at once are sent at once."""
        data = pack(frame)
        with self._sending:
            self._posted += data

    def flush(self) -> None:
        """Sends what was posted."""
        if self._posted:
            with self._sending:
                self._write()

    def _write(self) -> None:
        data, self._posted = self._posted, bytearray()
        with contextlib.suppress(OSError), memoryview(data) as rest:
            sent = 0
            while sent < len(rest):
                try:
                    sent += self._socket.send(rest[sent:])
                except BlockingIOError:
                    self._wait_writable()

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        poll.poll()
