"""Files."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wf_core import Fatal
from wf_tasks_builtin import file


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of file.* in each test."""
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv("APP_WORKER_FILES", str(folder))
    return folder


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("text", "Grüße\n"),
        ("json", {"n": 10**30, "t": [None, True]}),
        ("base64", base64.b64encode(b"\x00\xff").decode()),
    ],
)
def test_what_is_written_is_read_back(root, form, content):
    """Every format survives a round trip; missing folders are made."""
    path = root / "a" / "b"
    written = file.write.function(str(path), content, form)
    assert written.path == str(path)
    assert written.bytes == path.stat().st_size
    assert file.read.function(str(path), form) == content


def test_a_write_replaces_the_file_as_a_whole_and_leaves_nothing_else(root):
    """There is the old content or the new, and no temporary file."""
    path = root / "f"
    file.write.function(str(path), "old" * 1000)
    file.write.function(str(path), "new")
    assert path.read_text() == "new"
    assert [p.name for p in root.iterdir()] == ["f"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_wrong_content_is_named_and_writes_nothing(root):
    """An object is no text; the message says what to do."""
    with pytest.raises(Fatal, match="use format: json"):
        file.write.function(str(root / "f"), {"a": 1})
    assert list(root.iterdir()) == []


def test_a_missing_file_is_named(root):
    """The message has the path and the folder."""
    with pytest.raises(FileNotFoundError, match=f"there is no file 'none' in {root}"):
        file.read.function("none")


def test_paths_are_relative_to_the_folder(root, tmp_path, monkeypatch):
    """It is what APP_WORKER_FILES names, and without that where the worker was started."""
    file.write.function("a/b", "1")
    assert (root / "a" / "b").read_text() == "1"
    monkeypatch.delenv("APP_WORKER_FILES")
    monkeypatch.chdir(tmp_path)
    assert file.read.function("root/a/b") == "1"


@pytest.mark.parametrize("path", ["../outside", "{outside}", "a/../../outside", "link", "folder/outside", ".", ""])
def test_nothing_outside_is_touched(root, tmp_path, path):
    """Neither by a path nor through a link."""
    outside = tmp_path / "outside"
    outside.write_text("secret")
    (root / "link").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    for act in (file.read.function, lambda path: file.write.function(path, "x")):
        with pytest.raises(Fatal, match="APP_WORKER_FILES"):
            act(path.format(outside=outside))
    assert outside.read_text() == "secret"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outside", "root"]


@pytest.mark.parametrize("path", [".env", ".git/hooks/pre-commit", "a/.b/c"])
def test_nothing_hidden_is_touched(root, path):
    """Keys, hooks and the state of `wf dev` lie there."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("secret")
    for act in (file.read.function, lambda path: file.write.function(path, "x")):
        with pytest.raises(Fatal, match="hidden"):
            act(path)
    assert (root / path).read_text() == "secret"


@pytest.mark.parametrize("path", ["tasks/evil.py", "tasks/deep/evil.txt", "tasks", "Tasks/evil.py", "venv/bin/wf"])
def test_nothing_is_written_where_python_finds_code(root, monkeypatch, path):
    """Not into a folder of task files, which a worker has on its path, nor into an environment."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(root / "tasks")])
    monkeypatch.setattr(sys, "prefix", str(root / "venv"))
    with pytest.raises(Fatal, match="finds its code"):
        file.write.function(path, "x")
    assert list(root.iterdir()) == []


def test_no_module_is_written_where_the_folder_is_on_the_path(root, monkeypatch):
    """As with `python -m` or `--tasks .`: other files are."""
    file.write.function("report/plain.py", "x = 1")
    monkeypatch.setattr(sys, "path", [*sys.path, str(root)])
    for name in ("httpx.py", "pkg/__init__.PY", "fast.so"):
        with pytest.raises(Fatal, match="finds its code"):
            file.write.function(name, "x")
    file.write.function("report/r.json", {}, "json")
    assert file.read.function("report/r.json", "json") == {}


def test_no_module_is_written_where_the_worker_was_started(tmp_path):
    """`python -m` finds modules there, though a child, which runs with a safe path (`-P`), does not."""
    start = """
from wf_core import Fatal
from wf_tasks_builtin import file

for path in ("httpx.py", "pkg/__init__.py", "report/r.json"):
    try:
        file.write.function(path, "x")
    except Fatal:
        pass
"""
    environment = {name: value for name, value in os.environ.items() if name != "APP_WORKER_FILES"}
    subprocess.run([sys.executable, "-P", "-c", start], cwd=tmp_path, env=environment, timeout=60, check=True)
    assert {path.name for path in tmp_path.rglob("*.*")} == {"r.json"}
