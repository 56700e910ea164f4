"""The commands against a running `wf dev`: data on stdout, progress on stderr, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

FINE = {
    "name": "fine",
    "nodes": {
        "one": {"task": "core.echo", "params": {"value": {"n": 123456789012345678901234567890}}},
        "two": {"task": "core.echo", "params": {"value": "${{ nodes.one.output }}"}},
    },
}
BAD = {
    "name": "bad",
    "nodes": {
        "flaky": {
            "task": "core.fail",
            "params": {"times": 9, "message": "no luck"},
            "retry": {"policy": "fixed", "max_retries": 1, "delay": "10ms"},
        }
    },
}
SLOW = {"name": "slow", "nodes": {"nap": {"task": "core.sleep", "params": {"seconds": 60}}}}


@pytest.fixture
def cli(wf, dev) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `wf` with the shared server."""

    def run(*arguments: str | Path, **rest) -> subprocess.CompletedProcess[str]:
        return wf(*arguments, WF_SERVER=dev.url, **rest)

    return run


def submitted(cli, document: dict, *arguments: str) -> str:
    """The id of a new execution."""
    done = cli("submit", "-", *arguments, "-o", "name", stdin=json.dumps(document))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_run_prints_the_output(cli):
    """`wf run` prints the output as JSON on stdout, its progress on stderr, and exits 0."""
    done = cli("run", "-", stdin=json.dumps(FINE))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"n": 123456789012345678901234567890}
    assert "COMPLETED  two" in done.stderr


def test_run_of_a_yaml_file_with_input(cli, tmp_path):
    """`--input` reaches the workflow."""
    (tmp_path / "w.yaml").write_text(
        "name: w\nnodes:\n  a: {task: core.echo, params: {value: 'day ${{ input.day }}'}}\n", "utf-8"
    )
    done = cli("run", "w.yaml", "--input", "day=2026-01-01")
    assert json.loads(done.stdout) == "day 2026-01-01", done.stderr


def test_failed_run_shows_its_first_failure(cli):
    """A run that fails exits 1 and names the node, the attempts, the error and the command that tells more."""
    done = cli("run", "-", stdin=json.dumps(BAD))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "flaky failed after 2 attempts" in done.stderr
    assert "no luck" in done.stderr
    assert "→ tries again in" in done.stderr
    hint = next(line for line in done.stderr.splitlines() if "wf node" in line)
    shown = cli(*hint.split()[1:])
    assert shown.returncode == 0
    assert "attempt 2  FAILED (user)" in shown.stdout


def test_a_failure_inside_a_map_is_told_in_its_own_words(cli):
    """The line names the inner node; what its map makes of it is not what it said."""
    document = {"name": "mapped", "nodes": {"m": {"kind": "map", "items": [1], "nodes": BAD["nodes"]}}}
    done = cli("run", "-", stdin=json.dumps(document))
    line = next(line for line in done.stderr.splitlines() if "m[0]/flaky failed after 2 attempts" in line)
    assert "no luck" in line
    assert "of 1 item failed" not in line


def test_a_map_that_fails_throughout_does_not_flood_the_terminal(cli):
    """The first lines of what failed inside it, and where to find the others."""
    one = {"task": "core.fail", "retry": {"max_retries": 0}}
    each = {"kind": "map", "items": list(range(40)), "tolerate": 40, "nodes": {"one": one}}
    execution_id = submitted(cli, {"name": "flood", "nodes": {"each": each}}, "--trigger")
    told = cli("watch", execution_id).stderr
    assert "FAILED" in told
    assert told.count("each[") <= 25
    assert f"wf nodes {execution_id} --under each --status FAILED" in told


def test_submit_trigger_watch(cli):
    """An execution is created, started and followed by three commands; a second trigger is refused."""
    execution = submitted(cli, FINE, "--label", "team=a")
    assert cli("show", execution, "-o", "json").stdout.find('"PENDING"') > 0
    assert cli("trigger", execution).returncode == 0
    watched = cli("watch", execution)
    assert watched.returncode == 0, watched.stderr
    assert json.loads(watched.stdout)["n"] == 123456789012345678901234567890
    again = cli("trigger", execution)
    assert again.returncode == 2
    assert "error:" in again.stderr


def test_outputs_for_programs(cli):
    """Every look prints a table, JSON, JSON lines or names."""
    execution = submitted(cli, FINE, "--trigger", "--label", "team=programs")
    cli("watch", execution)
    listed = json.loads(cli("ls", "--label", "team=programs", "-o", "json").stdout)
    assert [item["execution_id"] for item in listed] == [execution]
    assert cli("ls", "--label", "team=programs", "-o", "name").stdout == f"{execution}\n"
    assert "COMPLETED" in cli("ls").stdout
    lines = cli("nodes", execution, "-o", "jsonl").stdout.splitlines()
    assert {json.loads(line)["node"] for line in lines} == {"one", "two"}
    assert json.loads(cli("results", execution).stdout).keys() == {"one", "two"}
    assert json.loads(cli("results", execution, "--node", "two").stdout)["n"] == 123456789012345678901234567890
    kinds = [json.loads(line)["kind"] for line in cli("events", execution, "-o", "jsonl").stdout.splitlines()]
    assert kinds[0] == "execution.created"
    assert kinds[-1] == "execution.ended"
    assert "fine" in cli("show", execution).stdout
    assert "core.echo" in cli("tasks").stdout
    assert len(cli("workers", "-o", "name").stdout.split()) == 1


def test_not_found(cli):
    """What is not there is exit code 3."""
    execution = submitted(cli, FINE)
    assert cli("show", "0" * 28).returncode == 3
    assert cli("show", "zzzzzzzz").returncode == 3
    missing = cli("node", execution, "nowhere")
    assert missing.returncode == 3
    assert f"`wf nodes {execution}` lists them" in missing.stderr
    assert cli("results", execution, "--node", "nowhere").returncode == 3


def test_ids_may_be_short(cli, dev):
    """@latest and the unique beginning of an id name an execution; an ambiguous one names the candidates."""
    execution = submitted(cli, FINE)
    assert cli("show", "@latest", "-o", "name").stdout.strip() == execution
    assert cli("show", execution[:14], "-o", "name").stdout.strip() == execution
    assert cli("show", execution.upper(), "-o", "name").stdout.strip() == execution
    child = {"name": "parent", "nodes": {"c": {"kind": "workflow", "nodes": FINE["nodes"]}}}
    parent = cli("submit", "-", "--trigger", "-o", "name", stdin=json.dumps(child)).stdout.strip()
    assert cli("watch", parent).returncode == 0
    assert cli("show", "@latest", "-o", "name").stdout.strip() == parent  # never the child, which is newer
    # Ids that the server chooses begin with the time.
    two = [httpx.post(f"{dev.url}/workflow", json=FINE).json()["execution_id"] for _ in range(2)]
    ambiguous = cli("show", two[0][:4])
    assert ambiguous.returncode == 2
    assert two[0] in ambiguous.stderr


def test_refused_documents(cli):
    """A document that the server refuses is exit code 2, with a line for each problem."""
    wrong = {"name": "w", "nodes": {"a": {"task": "core.eco"}, "b": {"task": "core.noop", "depends_on": ["c"]}}}
    done = cli("submit", "-", stdin=json.dumps(wrong))
    assert done.returncode == 2
    # The places in the document, not in the envelope that carries it; those that the catalogue knows of as well.
    assert "  /nodes/b/depends_on/0: " in done.stderr
    assert "  /nodes/a/task: " in done.stderr


def test_watch_gives_up(cli):
    """A watch with a timeout ends with exit code 5, and the execution goes on."""
    execution = submitted(cli, SLOW, "--trigger")
    done = cli("watch", execution, "--timeout", "300ms")
    assert done.returncode == 5
    assert "still RUNNING" in done.stderr
    cancelled = cli("cancel", execution, "--reason", "enough")
    assert cancelled.returncode == 0
    assert json.loads(cli("show", execution, "-o", "json").stdout)["status"] == "CANCELLED"


def test_interrupted_watch_detaches(cli, dev, tmp_path):
    """Ctrl-C on a watch is exit code 130, says how to go on, and cancels nothing. On a terminal it shows the tree."""
    execution = submitted(cli, SLOW, "--trigger")
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wf_core.cli", "watch", execution],
        env={**os.environ, "WF_SERVER": dev.url, "TERM": "xterm", "COLUMNS": "90", "LINES": "20"},
        stdout=subprocess.DEVNULL,
        stderr=child,
        cwd=tmp_path,
    )
    os.close(child)
    shown = read_until(parent, b"RUNNING  0/1", 20)
    process.send_signal(signal.SIGINT)
    rest = read_until(parent, b"wf watch", 20)
    assert process.wait(20) == 130
    os.close(parent)
    assert "●".encode() in shown
    assert b"detached" in rest
    assert json.loads(cli("show", execution, "-o", "json").stdout)["status"] == "RUNNING"
    cli("cancel", execution)


def read_until(descriptor: int, wanted: bytes, seconds: float) -> bytes:
    """What a terminal shows up to `wanted`."""
    deadline, seen = time.monotonic() + seconds, b""
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        seen += os.read(descriptor, 65536)
    return seen


def test_doctor_of_a_healthy_dev(wf, dev):
    """In the folder of a `wf dev`, `wf doctor` examines it and finds nothing wrong."""
    done = wf("doctor", "-o", "json", folder=dev.folder)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert checks["log"]["found"].find("8 partitions") > 0
    assert checks["workers"]["found"].startswith("1 alive")


def test_doctor_without_servers(wf):
    """Without Redis, `wf doctor` says so with a remedy and exits 1."""
    done = wf("doctor", APP_REDIS_PORT="1")
    assert done.returncode == 1
    assert "APP_REDIS" in done.stdout


def test_a_retry_tells_its_own_story(cli):
    """What was told before an execution ended is not told again when its retry is watched."""
    document = {"name": "w", "nodes": {"a": {"task": "core.fail", "retry": {"max_retries": 0}}}}
    execution = submitted(cli, document, "--trigger")
    assert "attempt 1 failed" in cli("watch", execution).stderr
    again = cli("retry", execution, "--watch").stderr
    assert "attempt 2 failed" in again
    assert "attempt 1 failed" not in again
