"""`wf definitions` against a running `wf dev`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

DOCUMENT = """
name: cli-pair
version: "1"
nodes:
  a: {task: core.echo, params: {value: "day ${{ input.day }}"}}
"""


@pytest.fixture
def cli(wf, dev) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `wf` with the shared server."""

    def run(*arguments: str | Path, **rest) -> subprocess.CompletedProcess[str]:
        return wf(*arguments, WF_SERVER=dev.url, **rest)

    return run


def test_a_life_of_a_definition(cli, tmp_path):
    """Registered, listed, printed as `put` takes it back, run, and removed."""
    (tmp_path / "pair.yaml").write_text(DOCUMENT, "utf-8")
    put = cli("definitions", "put", "pair.yaml")
    assert put.returncode == 0, put.stderr
    assert put.stdout.split() == ["cli-pair", "1"]
    listed = cli("definitions", "ls", "-o", "json")
    (found,) = [one for one in json.loads(listed.stdout) if one["name"] == "cli-pair"]
    assert (found["version"], found["versions"]) == ("1", 1)
    printed = cli("definitions", "get", "cli-pair")
    assert json.loads(printed.stdout)["nodes"]["a"]["task"] == "core.echo"
    again = cli("definitions", "put", "-", stdin=printed.stdout)
    assert again.returncode == 0, again.stderr
    assert cli("definitions", "get", "cli-pair", "--versions", "-o", "name").stdout.split() == ["1"]
    made = cli("definitions", "run", "cli-pair", "--input", "day=7", "--trigger", "-o", "name")
    assert made.returncode == 0, made.stderr
    watched = cli("watch", made.stdout.strip())
    assert watched.returncode == 0, watched.stderr
    assert "day 7" in cli("results", made.stdout.strip()).stdout
    versioned = cli("definitions", "get", "cli-pair@1")
    assert versioned.stdout == printed.stdout
    assert "has no version '2'" in cli("definitions", "get", "cli-pair@2").stderr
    twice = cli("definitions", "get", "cli-pair@1", "--version", "1")
    assert (twice.returncode, "not both" in twice.stderr) == (2, True)
    near = cli("definitions", "get", "cli-pai")
    assert near.stderr.rstrip().endswith("did you mean 'cli-pair'?")
    removed = cli("definitions", "rm", "cli-pair")
    assert removed.returncode == 0, removed.stderr
    gone = cli("definitions", "get", "cli-pair")
    assert gone.returncode == 3
    assert "'cli-pair'" in gone.stderr


def test_a_wrong_document_is_not_registered(cli):
    """What the server refuses is shown with its place, and the exit code is that of a wrong document."""
    done = cli("definitions", "put", "-", stdin='{"name": "wrong", "nodes": {"a": {"tusk": "core.echo"}}}')
    assert done.returncode == 2
    assert "tusk" in done.stderr
