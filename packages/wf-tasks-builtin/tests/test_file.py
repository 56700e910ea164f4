"""Files."""

from __future__ import annotations

import base64
import stat

import pytest

from wf_core import Fatal
from wf_tasks_builtin import file


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("text", "Grüße\n"),
        ("json", {"n": 10**30, "t": [None, True]}),
        ("base64", base64.b64encode(b"\x00\xff").decode()),
    ],
)
def test_what_is_written_is_read_back(tmp_path, form, content):
    """Every format survives a round trip; missing folders are made."""
    path = tmp_path / "a" / "b"
    written = file.write.function(str(path), content, form)
    assert written.path == str(path)
    assert written.bytes == path.stat().st_size
    assert file.read.function(str(path), form) == content


def test_a_write_replaces_the_file_as_a_whole_and_leaves_nothing_else(tmp_path):
    """There is the old content or the new, and no temporary file."""
    path = tmp_path / "f"
    file.write.function(str(path), "old" * 1000)
    file.write.function(str(path), "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_wrong_content_is_named_and_writes_nothing(tmp_path):
    """An object is no text; the message says what to do."""
    with pytest.raises(Fatal, match="use format: json"):
        file.write.function(str(tmp_path / "f"), {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path):
    """The message has the path and the working directory."""
    with pytest.raises(FileNotFoundError, match="there is no file"):
        file.read.function(str(tmp_path / "none"))
