"""The private redis-server and the folder that it lives in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from wf_core.dev import redis_server, state
from wf_core.errors import SetupError


@pytest.fixture(scope="module")
def binary() -> redis_server.Binary:
    """A redis-server of this machine."""
    try:
        return redis_server.find_binary()
    except SetupError:
        pytest.skip("no redis-server here")


def until(what: str, holds: Callable[[], bool], seconds: float = 15) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"still not {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def script(folder: Path, name: str, version: str) -> Path:
    """An executable that says it is a redis-server of this version."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0:0 malloc=libc bits=64'\n")
    path.chmod(0o755)
    return path


def test_newest_binary_wins(tmp_path, monkeypatch):
    """Of all redis-servers on the PATH the newest is taken, wherever it stands."""
    script(tmp_path / "a", "redis-server", "6.2.1")
    newest = script(tmp_path / "b", "redis-server", "99.10.0")
    script(tmp_path / "c", "redis-server", "99.9.0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'a'}:{tmp_path / 'b'}:{tmp_path / 'c'}")
    assert redis_server.find_binary() == redis_server.Binary(newest, (99, 10, 0))


def test_binary_is_called_by_the_name_it_was_found_under(tmp_path, monkeypatch):
    """Debian links redis-server to a binary that is another program under its real name."""
    script(tmp_path / "a", "redis-check-rdb", "99.0.0")
    (tmp_path / "a" / "redis-server").symlink_to("redis-check-rdb")
    monkeypatch.setenv("PATH", str(tmp_path / "a"))
    assert redis_server.find_binary().path == tmp_path / "a" / "redis-server"


def test_no_binary_says_how_to_get_one(tmp_path, monkeypatch):
    """Without a redis-server of a version that will do, the message says how to get one."""
    script(tmp_path / "a", "redis-server", "5.0.0")
    monkeypatch.setenv("PATH", str(tmp_path / "a"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SetupError, match=r"apt install redis-server"):
        redis_server.find_binary()


def test_state_is_kept(binary, tmp_path):
    """What was written is there after a restart; nothing listens on a port, nothing is evicted."""
    with state.held(tmp_path) as lock, redis_server.started(binary, tmp_path, keep=True, lock=lock) as server:
        server.wait_ready()
        with redis.Redis(unix_socket_path=str(server.socket)) as client:
            client.set("k", "v")
            found = client.config_get("*")
    assert (found["port"], found["appendonly"], found["maxmemory-policy"]) == ("0", "yes", "noeviction")
    with state.held(tmp_path) as lock, redis_server.started(binary, tmp_path, keep=True, lock=lock) as server:
        server.wait_ready()
        with redis.Redis(unix_socket_path=str(server.socket)) as client:
            assert client.get("k") == b"v"
    assert not server.socket.exists()


def test_long_folder_gets_a_short_socket(binary, tmp_path):
    """A folder whose path is too long for a socket works: the socket lies in a temporary folder, which is removed."""
    folder = tmp_path / ("d" * 100)
    with state.held(folder) as lock, redis_server.started(binary, folder, keep=False, lock=lock) as server:
        server.wait_ready()
        place = server.socket.parent
        assert len(os.fsencode(server.socket)) <= redis_server.LONGEST_SOCKET
    assert not place.exists()


def test_server_that_cannot_start(binary, tmp_path):
    """A server that ends at once is reported with its last words."""
    (tmp_path / "redis").mkdir()
    appended = tmp_path / "redis" / "appendonlydir"
    appended.mkdir()
    (appended / "appendonly.aof.manifest").write_text("nonsense\n")
    if binary.version < (7, 0, 0):
        pytest.skip("writes another format")
    with (
        state.held(tmp_path) as lock,
        redis_server.started(binary, tmp_path, keep=True, lock=lock) as server,
        pytest.raises(SetupError, match="redis-server ended"),
    ):
        server.wait_ready()


def test_downgrade_is_refused(binary, tmp_path):
    """State written by Redis 7 is not silently ignored by Redis 6."""
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    old = redis_server.Binary(binary.path, (6, 2, 14))
    with state.held(tmp_path) as lock, pytest.raises(SetupError, match="--reset"):
        redis_server.started(old, tmp_path, keep=True, lock=lock).__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans only on Linux")
def test_dies_with_its_parent(binary, tmp_path):
    """A redis-server whose parent was killed ends too, and the next holder of the folder waits for that."""
    code = f"""
        import sys, time
        from pathlib import Path
        from wf_core.dev import redis_server, state
        folder = Path({str(tmp_path)!r})
        with state.held(folder) as lock:
            with redis_server.started(redis_server.find_binary(), folder, keep=True, lock=lock) as server:
                server.wait_ready()
                print(server._process.pid, flush=True)
                time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    with state.held(tmp_path):
        until("ended", lambda: not alive(child), 1)


def test_folder_is_held_once(tmp_path):
    """While one holds the folder and says where it listens, another one is told so."""
    with state.held(tmp_path):
        state.publish(tmp_path, state.Running(os.getpid(), "http://x:1", private=False, socket=None))
        with pytest.raises(state.AlreadyRunningError, match=r"http://x:1"), state.held(tmp_path):
            pass
    assert state.running(tmp_path) is None
    with state.held(tmp_path):
        pass


def test_folder_keeps_itself_out_of_git(tmp_path):
    """The state folder is ignored by git by itself."""
    with state.held(tmp_path / ".wf"):
        assert (tmp_path / ".wf" / ".gitignore").read_text() == "*\n"


def test_reset_forgets(tmp_path):
    """`--reset` removes the data, not the lock."""
    with state.held(tmp_path):
        (tmp_path / "redis").mkdir()
        state.reset(tmp_path)
        assert not (tmp_path / "redis").exists()
        assert (tmp_path / state.LOCK).exists()
    shutil.rmtree(tmp_path)
