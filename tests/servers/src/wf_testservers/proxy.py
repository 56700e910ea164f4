"""A bad network between a client and a server: a TCP proxy that delays, swallows, resets and refuses as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from wf_testservers.process import ServerError, free_port

_CHUNK = 65536
_QUEUED = 256
_SECONDS = 10.0
# With this linger option a closed socket sends RST, as the network of a peer that is gone would.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards `port` to `upstream` from a thread of its own; every method may be called at any time, from any thread.

    A connection that lost bytes never goes on: `heal` resets it, as no TCP connection has a hole in its middle.
    """

    def __init__(self, upstream: tuple[str, int], port: int | None = None) -> None:
        self.upstream = upstream
        self.port = free_port() if port is None else port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._network = _Network()

    def delay(self, seconds: float) -> None:
        """What arrives from now on is passed on so much later, each way."""
        self._do(lambda: setattr(self._network, "delay", seconds))

    def drop(self, after: int = 0) -> None:
        """Resets every connection once it passed `after` more bytes; 0 resets them now. New ones are left alone."""

        def drop() -> None:
            for connection in list(self._connections):
                connection.reset_after(after)

        self._do(drop)

    def loss(self, probability: float, seed: int | None = None) -> None:
        """Resets a connection with this probability at each chunk (64 KiB at most) that passes, a part of it sent."""

        def lose() -> None:
            self._network.loss, self._network.random = probability, random.Random(seed)

        self._do(lose)

    def half_open(self, *, up: bool = True, down: bool = True) -> None:
        """Swallows what goes up to the server, down to the client, or both; nothing is closed, new clients connect."""

        def swallow() -> None:
            self._network.swallow = {"up": up, "down": down}

        self._do(swallow)

    def refuse(self) -> None:
        """New connections are refused; those that are open stay."""
        self._run(self._close_server())

    def heal(self) -> None:
        """Passes everything on again, at once. Connections that lost bytes are reset."""

        async def heal() -> None:
            self._network.heal()
            for connection in list(self._connections):
                if connection.torn:
                    connection.reset()
            if self._server is None:
                await self._listen()

        self._run(heal())

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def start(self) -> None:
        """Listens. The server need not be there yet: a client that connects before it is reset."""
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        """Resets what is open and ends the thread."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _end(self) -> None:
        await self._close_server()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.sleep(0)  # a handler that is cancelled before it began would leave its connection open
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._network, (reader, writer))
        self._connections.add(connection)
        # Only `stop` cancels, and asyncio's streams of Python 3.11 print a traceback for a handler that was cancelled.
        with contextlib.suppress(asyncio.CancelledError):
            await connection.run(self.upstream)
        self._connections.discard(connection)

    def _do(self, act: Callable[[], None]) -> None:
        async def run() -> None:
            act()

        self._run(run())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs in the proxy's thread and waits, so that what was switched counts when the method returns."""
        if not self._thread.is_alive():
            work.close()
            raise ServerError(f"the proxy at port {self.port} does not run")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)


class _Network:
    """How the network is at the moment."""

    def __init__(self) -> None:
        self.healed = asyncio.Event()
        self.random = random.Random()
        self._set()

    def heal(self) -> None:
        self._set()
        self.healed.set()
        self.healed = asyncio.Event()

    async def wait_until(self, due: float) -> None:
        """Until it is `due`, or the network healed."""
        wait = due - asyncio.get_running_loop().time()
        if wait > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.healed.wait(), wait)

    def _set(self) -> None:
        self.delay = 0.0
        self.loss = 0.0
        self.swallow = {"up": False, "down": False}


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Line = asyncio.Queue[tuple[float, bytes]]


class _Connection:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, network: _Network, client: _Streams) -> None:
        self._network = network
        self._client = client
        self._writers = [client[1]]
        self._tasks: list[asyncio.Task[None]] = []
        self._torn: set[str] = set()
        self._left: int | None = None

    @property
    def torn(self) -> bool:
        """Whether bytes were swallowed."""
        return bool(self._torn)

    async def run(self, upstream: tuple[str, int]) -> None:
        """Until both sides closed, or one of them was reset."""
        try:
            server = await asyncio.open_connection(*upstream)
            self._writers.append(server[1])
            async with asyncio.TaskGroup() as tasks:
                for way, reader, writer in (("up", self._client[0], server[1]), ("down", server[0], self._client[1])):
                    # The chunks wait in line, each until it is due: a delay is latency and narrows nothing.
                    line: _Line = asyncio.Queue(_QUEUED)
                    self._tasks.append(tasks.create_task(self._receive(reader, line)))
                    self._tasks.append(tasks.create_task(self._pass_on(way, line, writer)))
            for writer in self._writers:
                writer.close()
                await writer.wait_closed()
        except* OSError:
            pass  # a side was reset, or there is no server: the other side is reset as well
        finally:
            self.reset()

    def reset_after(self, count: int) -> None:
        """Resets once `count` more bytes passed, in either direction."""
        self._left = count
        if count == 0:
            self.reset()

    def reset(self) -> None:
        """RST to both sides; what was on its way is gone."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            with contextlib.suppress(OSError):  # it is closed
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _receive(self, reader: asyncio.StreamReader, line: _Line) -> None:
        now = asyncio.get_running_loop().time
        chunk = b"-"
        while chunk:
            chunk = await reader.read(_CHUNK)  # at last nothing: the side closed
            await line.put((now() + self._network.delay, chunk))

    async def _pass_on(self, way: str, line: _Line, writer: asyncio.StreamWriter) -> None:
        chunk = b"-"
        while chunk:
            due, chunk = await line.get()
            await self._network.wait_until(due)
            if self._network.swallow[way] or way in self._torn:
                self._torn.add(way)
                if not chunk:
                    await asyncio.Event().wait()  # the other side must not hear of it; only a reset ends this
            elif chunk:
                await self._write(chunk, writer)
        writer.write_eof()

    async def _write(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        network = self._network
        if network.random.random() < network.loss:
            self._left = network.random.randrange(len(chunk) + 1)
        if self._left is not None:
            chunk = chunk[: self._left]
            self._left -= len(chunk)
        writer.write(chunk)
        await writer.drain()
        if self._left == 0:
            self.reset()
