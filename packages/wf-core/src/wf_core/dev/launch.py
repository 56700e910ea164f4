"""Starts `wf dev`: holds the folder, starts Redis, builds the settings, runs the services, says when they are ready."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wf_core.dev import redis_server, state
from wf_core.errors import SetupError
from wf_core.lean import import_structlog

PARTITIONS = 8
DEFAULT_PORT = 8080
SAMPLE = """echo '{"name":"hello","nodes":{"hi":{"task":"core.echo","params":{"value":"Hello"}}}}' | wf run -"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said. `port` None: 8080 if it is free, else any."""

    folder: Path
    port: int | None = None
    memory: bool = False
    reset: bool = False
    kafka: str | None = None
    redis: str | None = None
    allow: str = ""
    tasks: tuple[Path, ...] = ()
    """Directories of task files besides ./tasks and those of APP_WORKER_TASK_PATHS."""
    log_level: str = "WARNING"
    private: bool = False


def launch(options: Options, announce: Callable[[str], None] | None = None) -> int:
    """Runs until a signal comes; returns the exit code. Raises SetupError before anything is started.

    `announce` gets the API's URL in place of the lines that people read.
    """
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_held(options))
        if options.reset:
            state.reset(options.folder)
        server = None if options.redis else stack.enter_context(_redis(options, lock))
        import_structlog()
        # What comes next takes longer to import than Redis needs to start: both happen at once.
        from wf_core.dev.apart import apart
        from wf_core.dev.stack import Stack, check_services, early
        from wf_core.run_service import run_service

        check_services()
        settings = _settings(options, server)
        api = stack.enter_context(apart("api", settings))
        factories = {**early(), "api": lambda _settings: api}
        if server is not None:
            server.wait_ready()

        def ready(url: str) -> None:
            socket_path = None if server is None else str(server.socket)
            state.publish(
                options.folder, state.Running(os.getpid(), url, options.private, socket_path, settings.broker)
            )
            if announce is not None:
                announce(url)
            else:
                _say_ready(options, url, server, time.monotonic() - began)

        def gone() -> bool:
            return server is not None and server.ended

        return run_service(lambda chosen: Stack(chosen, factories, ready, gone), "dev", settings)


@contextlib.contextmanager
def _held(options: Options) -> Iterator[int]:
    left = _left_behind(options.folder)
    if left is not None:
        redis_server.ask_to_stop(Path(left))
    with state.held(options.folder) as lock:
        yield lock


def _left_behind(folder: Path) -> str | None:
    """The socket of a `wf dev` that was killed."""
    if state.running(folder) is not None:
        return None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        path = json.loads((folder / state.INFO).read_text()).get("socket")
        return path if isinstance(path, str) else None
    return None


@contextlib.contextmanager
def _redis(options: Options, lock: int) -> Iterator[redis_server.RedisServer]:
    binary = redis_server.find_binary()
    with redis_server.started(binary, options.folder, keep=not options.memory, lock=lock) as server:
        yield server


def _settings(options: Options, server: redis_server.RedisServer | None) -> Any:
    """The settings of all services: what `APP_*` says, save for what makes it a `wf dev`."""
    from wf_core.settings import Settings

    chosen: dict[str, Any] = {
        "partitions": PARTITIONS,
        "task_partitions": PARTITIONS,
        "api_host": "127.0.0.1",
        "api_port": _port(options.port),
        "log_level": options.log_level,
        "worker_allow": options.allow,
        "worker_task_paths": _task_paths(options),
        "broker": "kafka" if options.kafka else "redis",
    }
    if options.private:
        chosen["log_format"] = "console"  # people read its log, and only when something went wrong
    if options.kafka:
        chosen["kafka_bootstrap_servers"] = options.kafka
    if server is None:
        chosen |= {"redis_url": options.redis, "redis_socket": None}
    else:
        chosen |= {"redis_socket": str(server.socket), "redis_url": None, "redis_db": 0, "redis_password": None}
        chosen["redis_allow_volatile"] = options.memory
    return Settings(**chosen)


def _task_paths(options: Options) -> str:
    said = os.environ.get("APP_WORKER_TASK_PATHS", "").split(":")
    places = [Path("tasks"), *options.tasks, *(Path(path) for path in said if path)]
    return ":".join(dict.fromkeys(str(place.absolute()) for place in places))


def _port(asked: int | None) -> int:
    """A port that is free now. Raises SetupError when the one that was asked for is not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT if asked is None else asked))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if asked is not None:
                raise SetupError(f"port {asked} is taken; choose another one with --port") from error
            return 0
    return DEFAULT_PORT if asked is None else asked


def _say_ready(options: Options, url: str, server: redis_server.RedisServer | None, seconds: float) -> None:
    redis = f"redis-server {server.binary.text}" if server else options.redis
    log = f"Kafka at {options.kafka}" if options.kafka else "redis streams"
    kept = "kept in memory only" if options.memory else f"kept in {options.folder}"
    lines = [
        f"wf dev is ready after {seconds:.2f} s",
        f"  API     {url}",
        f"  docs    {url}/openapi.json",
        f"  store   {redis}, {kept if server else 'kept there'}; log: {log}",
        f"  try     {SAMPLE}",
        "  Ctrl-C stops it",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
