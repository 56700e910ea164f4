"""`wf dev`, and the private one of `wf run`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from http import HTTPStatus

import httpx
import pytest

DOCUMENT = json.dumps({"name": "hello", "nodes": {"hi": {"task": "core.echo", "params": {"value": "Hello"}}}})


def test_state_is_kept_over_restarts(start_dev, wf, record_property):
    """What ran before a restart is there after it; the commands of the same folder find the server by themselves."""
    first = start_dev("--port", "0")
    done = wf("run", "-", stdin=DOCUMENT, folder=first.folder)
    assert (done.returncode, done.stdout) == (0, '"Hello"\n'), done.stderr
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(30) == 0
    assert not (first.folder / ".wf" / "dev.json").exists()
    began = time.monotonic()
    start_dev("--port", "0", folder=first.folder)
    record_property("wf_dev_ready_seconds", time.monotonic() - began)
    assert "hello" in wf("ls", folder=first.folder).stdout


def test_printed_addresses_answer(start_dev):
    """The address of the documentation that `wf dev` prints is there."""
    dev = start_dev("--memory", "--port", "0")
    printed = (dev.process.stdout.readline() for _ in range(5))
    docs = next(line for line in printed if line.startswith("  docs")).split()[1]
    assert httpx.get(docs, trust_env=False).status_code == HTTPStatus.OK


def test_second_one_in_the_folder(start_dev, wf):
    """A second `wf dev` in a folder says that one runs, where, and ends with a usage error."""
    first = start_dev("--port", "0", "--memory")
    done = wf("dev", folder=first.folder)
    assert done.returncode == 2
    assert first.url in done.stderr


def test_a_killed_one_blocks_nothing(start_dev, wf):
    """After kill -9 the next `wf dev` starts with what was acknowledged, and its predecessor's processes are gone."""
    first = start_dev("--port", "0")
    assert wf("run", "-", stdin=DOCUMENT, folder=first.folder).returncode == 0
    first.process.kill()
    first.process.wait()
    start_dev("--port", "0", folder=first.folder)
    assert "COMPLETED" in wf("ls", folder=first.folder).stdout


def test_reset(start_dev, wf):
    """`--reset` forgets every execution."""
    first = start_dev("--port", "0")
    wf("run", "-", stdin=DOCUMENT, folder=first.folder)
    first.process.terminate()
    first.process.wait(30)
    start_dev("--port", "0", "--reset", folder=first.folder)
    assert "hello" not in wf("ls", folder=first.folder).stdout


def test_taken_port(wf, start_dev):
    """A port that is taken is named, with the remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = wf("dev", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_tasks_of_the_folder(start_dev, wf, tmp_path):
    """Tasks in ./tasks/*.py can be used."""
    (tmp_path / "tasks").mkdir()
    source = (
        "from wf_core import task\n\n@task('mine.greet')\ndef greet(name: str) -> str:\n    return 'Hello ' + name\n"
    )
    (tmp_path / "tasks" / "mine.py").write_text(source)
    start_dev("--port", "0", "--memory", folder=tmp_path)
    document = {"name": "g", "nodes": {"a": {"task": "mine.greet", "params": {"name": "you"}}}}
    done = wf("run", "-", stdin=json.dumps(document))
    assert (done.returncode, done.stdout) == (0, '"Hello you"\n'), done.stderr


@pytest.mark.parametrize("allow", [False, True])
def test_tasks_that_run_code_need_allow(start_dev, wf, allow):
    """`shell.run` runs only where `--allow` names it."""
    dev = start_dev("--port", "0", "--memory", *(["--allow", "shell.run"] if allow else []))
    document = {
        "name": "s",
        "nodes": {"a": {"task": "shell.run", "params": {"command": "echo hi"}, "retry": {"max_retries": 0}}},
    }
    done = wf("run", "-", stdin=json.dumps(document), folder=dev.folder)
    assert (done.returncode == 0) is allow, done.stderr


@pytest.mark.parametrize(("path", "is_written"), [("out/a.txt", True), ("tasks/evil.py", False)])
def test_files_are_written_in_the_folder_and_not_among_its_tasks(start_dev, wf, path, is_written):
    """`file.write` needs no permission, so it must not reach the task files, which run as soon as they change."""
    dev = start_dev("--port", "0", "--memory")
    document = {
        "name": "f",
        "nodes": {"a": {"task": "file.write", "params": {"path": path, "content": "x"}, "retry": {"max_retries": 0}}},
    }
    done = wf("run", "-", stdin=json.dumps(document), folder=dev.folder)
    assert (done.returncode == 0) is is_written, done.stderr
    assert (dev.folder / path).exists() is is_written


def test_run_brings_its_own_server(wf, tmp_path, request):
    """`wf run` without a server starts one, stops it, and leaves the execution for a later `wf dev`."""
    start_dev = request.getfixturevalue("start_dev")
    done = wf("run", "-", stdin=DOCUMENT)
    assert (done.returncode, done.stdout) == (0, '"Hello"\n'), done.stderr
    start_dev("--port", "0", folder=tmp_path)
    assert "COMPLETED" in wf("ls").stdout


def test_run_finds_tasks_beside_the_document(wf, start_dev, tmp_path):
    """With its own server, `wf run` knows the tasks in `tasks/*.py` beside the document, wherever it is called."""
    (tmp_path / "flows" / "tasks").mkdir(parents=True)
    source = "from wf_core import task\n\n@task('mine.two')\ndef two() -> int:\n    return 2\n"
    (tmp_path / "flows" / "tasks" / "mine.py").write_text(source)
    (tmp_path / "flows" / "two.yaml").write_text("name: two\nnodes: {a: {task: mine.two}}\n")
    done = wf("run", "flows/two.yaml")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_run_says_why_a_task_is_missing(wf, request, tmp_path):
    """What does not load is told before the server of its own ends, and the remedy is a command."""
    request.getfixturevalue("start_dev")  # skips where nothing can be started
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "bad.py").write_text("def f(x) return x\n")
    done = wf("run", "-", stdin='{"name": "x", "nodes": {"a": {"task": "bad.one"}}}')
    assert done.returncode == 2
    assert "missing on " in done.stderr
    assert "bad.py does not import: SyntaxError" in done.stderr
    assert "`wf tasks` lists" in done.stderr


def test_allow_means_nothing_to_a_server_that_runs(start_dev, wf):
    """`wf run --allow` beside a running `wf dev` says so, and that the task is there but may not run."""
    dev = start_dev("--port", "0", "--memory")
    document = {"name": "sh", "nodes": {"a": {"task": "shell.run", "params": {"command": "echo hi"}}}}
    done = wf("run", "-", "--allow", "shell.run", stdin=json.dumps(document), folder=dev.folder)
    assert done.returncode == 2
    assert f"--allow means nothing to the server at {dev.url}" in done.stderr
    assert "'shell.run' is installed, but no live worker is allowed to run it" in done.stderr
    assert "with --allow shell.run" in done.stderr


def test_wrong_document_starts_no_server(wf, tmp_path):
    """A document that is wrong is refused before a server is started."""
    pytest.importorskip("wf_core.schema.validation")
    done = wf("run", "-", stdin='{"name": "x", "nodes": {}}')
    assert done.returncode == 2
    assert not (tmp_path / ".wf").exists()


def test_interrupted_run_with_its_own_server(tmp_path, start_dev, wf):
    """Ctrl-C ends a run with its own server by exit code 130 and says how to go on; `wf dev` then finishes it."""
    document = {"name": "nap", "nodes": {"a": {"task": "core.sleep", "params": {"seconds": 2, "value": 1}}}}
    (tmp_path / "nap.json").write_text(json.dumps(document))
    process = subprocess.Popen(
        [sys.executable, "-m", "wf_core.cli", "run", "nap.json"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    started = tmp_path / ".wf" / "dev.json"
    deadline = time.monotonic() + 30
    while (
        not started.exists()
        or "running" not in wf("ls", "--server", json.loads(started.read_text())["url"]).stdout.lower()
    ):
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "wf dev" in said
    start_dev("--port", "0", folder=tmp_path)
    assert wf("watch", "@latest", "--timeout", "30s").returncode == 0
