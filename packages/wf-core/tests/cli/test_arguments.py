"""Arguments: inputs, labels, addresses."""

from __future__ import annotations

import pytest

from wf_core.cli.address import DEFAULT, find_server
from wf_core.cli.failures import UsageError
from wf_core.cli.inputs import read_inputs, read_labels, read_value


def test_inputs_are_json_or_text():
    """`--input k=v` takes a JSON value, and text where it is none; later ones win."""
    given = ("n=1", "big=123456789012345678901234567890", "day=2026-01-01", "l=[1, null]", "x=NaN", "e=", "n=2")
    assert read_inputs(given) == {
        "n": 2,
        "big": 123456789012345678901234567890,
        "day": "2026-01-01",
        "l": [1, None],
        "x": "NaN",
        "e": "",
    }


def test_no_input_is_none():
    """Without `--input` nothing is sent, so that the document's defaults count."""
    assert read_inputs(()) is None


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ("{amount: 12}", "(column 2)"),
        ('{"n":1', "(column 7)"),
        ("[1, 'a']", "(column 5)"),
        ('"a', "(column 1)"),
        ('{"a": 1,\n "b": c}', "(line 2, column 7)"),
        ("[NaN]", "NaN is no JSON"),
    ],
)
def test_broken_json_is_no_text(wrong, place):
    """What begins as JSON and is none is refused with its place, wherever a value may stand."""
    for read, where in (
        (lambda: read_value(wrong, "--payload"), "--payload: "),
        (lambda: read_inputs((f"k={wrong}",)), "--input k=: "),
    ):
        with pytest.raises(UsageError) as caught:
            read()
        assert str(caught.value).startswith(where)
        assert place in str(caught.value)


@pytest.mark.parametrize("wrong", ["day", "=1"])
def test_wrong_pair(wrong):
    """An input without a key or a value is a usage error."""
    with pytest.raises(UsageError):
        read_inputs((wrong,))


def test_labels():
    """Labels are text, whatever it looks like."""
    assert read_labels(("team=a=b", "n=1")) == {"team": "a=b", "n": "1"}


def test_input_file(tmp_path):
    """`--input @file` merges an object from a file."""
    pytest.importorskip("wf_core.schema.loading")
    (tmp_path / "in.yaml").write_text("a: 1\nb: no\n")
    assert read_inputs(("a=0", f"@{tmp_path / 'in.yaml'}", "c=3")) == {"a": 1, "b": "no", "c": 3}


def test_input_file_that_cannot_be_read(tmp_path):
    """What is wrong with an input file is not said of the document."""
    pytest.importorskip("wf_core.schema.loading")
    (tmp_path / "in.json").write_text("{")
    for name in ("in.json", "in.toml"):
        with pytest.raises(UsageError, match=rf"^--input @.*{name}: "):
            read_inputs((f"@{tmp_path / name}",))


def test_input_file_must_hold_an_object(tmp_path):
    """A file that holds a list is no input."""
    pytest.importorskip("wf_core.schema.loading")
    (tmp_path / "in.json").write_text("[1]")
    with pytest.raises(UsageError, match="object"):
        read_inputs((f"@{tmp_path / 'in.json'}",))


def test_server_by_option_then_variable_then_default(monkeypatch, tmp_path):
    """--server comes before WF_SERVER, and both before the default."""
    monkeypatch.delenv("WF_SERVER", raising=False)
    assert find_server(None, tmp_path) == find_server(None, tmp_path)
    assert find_server(None, tmp_path).url == DEFAULT
    assert not find_server(None, tmp_path).named
    monkeypatch.setenv("WF_SERVER", "http://variable")
    assert find_server(None, tmp_path).url == "http://variable"
    assert find_server("option:1", tmp_path).url == "http://option:1"


def test_server_of_a_killed_dev_is_ignored(tmp_path, monkeypatch):
    """What a `wf dev` that no longer lives left behind leads nowhere."""
    monkeypatch.delenv("WF_SERVER", raising=False)
    (tmp_path / ".wf").mkdir()
    (tmp_path / ".wf" / "dev.json").write_text(
        '{"pid": 999999999, "url": "http://x", "private": false, "socket": null}'
    )
    assert not find_server(None, tmp_path).named
