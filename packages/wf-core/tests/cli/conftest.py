"""A `wf dev` that the command line's tests share, and a way to run `wf`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("APP_", "WF_"))}


def environment(**extra: str) -> dict[str, str]:
    """Our variables without those that the tests themselves run with."""
    return {**CLEAN, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **extra}


@pytest.fixture
def wf(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `wf ARGUMENTS` in a folder of the test's own."""

    def run(*arguments: str | Path, folder: Path | None = None, stdin: str = "", **extra: str):
        return subprocess.run(
            [sys.executable, "-m", "wf_core.cli", *map(str, arguments)],
            cwd=folder or tmp_path,
            env=environment(**extra),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@dataclass
class Dev:
    """A running `wf dev`."""

    url: str
    folder: Path
    process: subprocess.Popen[str]


@pytest.fixture
def start_dev(tmp_path_factory) -> Iterator[Callable[..., Dev]]:
    """Starts `wf dev` in a folder; whatever still runs after the test is stopped."""
    needs_services()
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, folder: Path | None = None) -> Dev:
        place = folder or tmp_path_factory.mktemp("dev")
        dev = launch_dev(place, *arguments)
        started.append(dev.process)
        return dev

    yield start
    for process in started:
        stop(process)


@pytest.fixture(scope="session")
def dev(tmp_path_factory) -> Iterator[Dev]:
    """One `wf dev --memory` for all tests that only need some server."""
    needs_services()
    found = launch_dev(tmp_path_factory.mktemp("shared"), "--memory", "--port", "0")
    yield found
    stop(found.process)


def needs_services() -> None:
    """Skips where only wf-core is installed: there is nothing to talk to."""
    for name in ("wf_api", "wf_orchestrator", "wf_worker", "wf_tasks_builtin"):
        pytest.importorskip(name)


def launch_dev(folder: Path, *arguments: str) -> Dev:
    """Starts `wf dev` and waits until it says that it is ready (it ends by itself when it cannot)."""
    with (folder / "stderr.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "wf_core.cli", "dev", *arguments],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if "ready" not in line:
        stop(process)
        raise RuntimeError(f"wf dev did not start: {line}{(folder / 'stderr.log').read_text()}")
    return Dev(json.loads((folder / ".wf" / "dev.json").read_text())["url"], folder, process)


def stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM, and SIGKILL for one that does not heed it."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
