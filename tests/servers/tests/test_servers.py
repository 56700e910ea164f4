"""The servers of the tests: they keep their data over a kill, and never outlive whoever started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wf_testservers import start_redis
from wf_testservers.kafka import choose
from wf_testservers.process import Process, ServerError, answers


def ask(port: int, command: str) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(100).decode().strip()


def test_redis_keeps_its_data_and_port_when_it_is_killed(tmp_path: Path):
    """What was written before SIGKILL is there after a restart, at the same address."""
    with start_redis(tmp_path) as server:
        assert ask(server.port, "SET key value") == "+OK"
        server.restart()
        assert ask(server.port, "GET key").split() == ["$5", "value"]
    assert not server.process.running
    assert not answers(server.port)


def test_a_server_that_does_not_start_says_why(tmp_path: Path):
    """The error ends with what the server said."""
    with pytest.raises(ServerError, match="no-such-option"), start_redis(tmp_path, ["--no-such-option", "1"]):
        pass


def test_a_server_dies_with_a_parent_that_is_killed(tmp_path: Path):
    """SIGKILL of the process that started a server ends the server too."""
    program = f"""
from pathlib import Path
from wf_testservers import start_redis
with start_redis(Path({str(tmp_path)!r})) as server:
    print(server.process.pid, flush=True)
    input()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    server = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    parent.stdin.close()
    deadline = time.monotonic() + 10
    while _is_alive(server):
        assert time.monotonic() < deadline, "the server is still there"
        time.sleep(0.02)


def test_a_stopped_server_is_ended_even_when_it_ignores_sigterm(tmp_path: Path):
    """`stop` waits for the end, and makes it."""
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = Process([sys.executable, "-c", stubborn], tmp_path / "log")
    process.start(lambda: "up" in process.tail())
    process.stop(0.2)
    assert not process.running


def test_external_brokers_are_used_when_they_are_named(monkeypatch: pytest.MonkeyPatch):
    """`APP_KAFKA_BOOTSTRAP_SERVERS` goes before everything else."""
    monkeypatch.setenv("APP_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert choose()[0] == "external"


def test_the_stand_in_is_refused_when_kafka_is_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Without Java the stand-in is chosen, and `WF_REQUIRE_KAFKA=1` makes that an error."""
    monkeypatch.delenv("APP_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("WF_REQUIRE_KAFKA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose()[0] == "stand-in"
    monkeypatch.setenv("WF_REQUIRE_KAFKA", "1")
    with pytest.raises(ServerError, match="no java"):
        choose()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
