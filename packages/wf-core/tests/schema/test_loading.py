"""Bytes at the door."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wf_core.errors import UnparsableError
from wf_core.schema.loading import load_document_file, load_json, load_yaml, yaml_lines

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refused(load, data):
    with pytest.raises(UnparsableError) as caught:
        load(data)
    return [(p.pointer, p.code) for p in caught.value.problems]


@given(JSON, st.booleans(), st.sampled_from([None, 2]))
def test_json_is_read_as_the_standard_library_reads_it(value, ascii_only, indent):
    """Every JSON value is read exactly, integers of any size too."""
    assert load_json(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


@given(st.binary(max_size=30) | st.text(alphabet='{}[]",:0e1-\\ua tru', max_size=20).map(str.encode))
def test_bytes_are_read_as_strict_json_or_refused(data):
    """Nothing that the strict standard says is no JSON gets in, and nothing crashes."""
    try:
        value = load_json(data)
    except UnparsableError as error:
        assert error.problems  # noqa: PT017 - either outcome is right, a crash is not
    else:
        assert json.loads(data) == value


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        (b"", [("", "bad_json")]),
        (b"{", [("", "bad_json")]),
        (b"{}{}", [("", "bad_json")]),
        (b"[NaN]", [("", "bad_json")]),
        (b"-Infinity", [("", "bad_json")]),
        (b'"\\ud800"', [("", "bad_json")]),
        (b'"\xed\xa0\x80"', [("", "bad_json")]),
        (b"\xff", [("", "bad_json")]),
        (b"[1e400]", [("", "bad_number")]),
        (b"[%b.0]" % (b"9" * 400), [("", "bad_number")]),
        (b"9" * 5000, [("", "bad_json")]),
        (b"[" * 101 + b"]" * 101, [("", "too_deep")]),
        (b"[" * 500 + b"]" * 500, [("", "too_deep")]),
        (b'{"a":' * 100_000, [("", "too_deep")]),
        (b'{"a": 1, "b": 2, "a": 3}', [("/a", "duplicate_key")]),
        (
            b'{"n": {"x/y": {}, "x/y": {"k": 1, "k": 2}}}',
            [("/n/x~1y", "duplicate_key"), ("/n/x~1y/k", "duplicate_key")],
        ),
        (b'[{"\\u0061": 1, "a": 2}]', [("/0/a", "duplicate_key")]),
    ],
)
def test_json_that_is_refused(data, problems):
    """NaN, infinities, lone surrogates, duplicate keys and deep nesting are refused, with the place."""
    assert refused(load_json, data) == problems


def test_json_within_the_limits():
    """A hundred levels, integers of any length up to 4,300 digits and colons in strings are fine."""
    assert load_json(b"[" * 100 + b"]" * 100)
    assert load_json(b'\xef\xbb\xbf{"a:b": "\\"}{:\\""}') == {"a:b": '"}{:"'}
    assert load_json(b"9" * 400) == 10**400 - 1
    assert load_json(b"[1e308, 1E+2]") == [1e308, 100.0]


def test_the_messages_name_the_thing():
    """The author reads what is wrong and where, and never the input itself."""
    with pytest.raises(UnparsableError, match=r"NaN is no JSON value.*line 2 column 2"):
        load_json(b"[1,\n NaN]")
    with pytest.raises(UnparsableError, match="a lone surrogate"):
        load_json(b'["\\udc00"]')


def test_yaml_is_read_by_the_core_schema_of_1_2():
    """A node may be called `no`; `012` is the integer 12; dates stay text."""
    text = b"""
    words: [no, on, yes, y, 2026-01-01, '1', "true", 0b1, 1_000, 12:30:00]
    numbers: [012, 1e3, 0x1F, 0o17, .5, -3, +4, 1.]
    nulls: [~, null, NULL, ]
    booleans: [true, False]
    empty:
    no: {on: 1, 012: 2, ~: 3}
    folded: >-
      a
      b
    """
    assert load_yaml(text) == {
        "words": ["no", "on", "yes", "y", "2026-01-01", "1", "true", "0b1", "1_000", "12:30:00"],
        "numbers": [12, 1000.0, 31, 15, 0.5, -3, 4, 1.0],
        "nulls": [None, None, None],
        "booleans": [True, False],
        "empty": None,
        "no": {"on": 1, "012": 2, "~": 3},
        "folded": "a b",
    }


def _is_yaml(value):
    """Libyaml refuses some characters that JSON allows."""
    return json.dumps(value, ensure_ascii=True).isascii() and all(c.isprintable() for c in _texts(value))


def _texts(value):
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(_texts(k) + _texts(v) for k, v in value.items())
    return "".join(map(_texts, value)) if isinstance(value, list) else ""


@given(JSON.filter(_is_yaml))
def test_yaml_and_json_are_the_same_document(value):
    """What is JSON is YAML of the same value, and so is what a YAML writer makes of it."""
    assert load_yaml(json.dumps(value, ensure_ascii=False).encode()) == value


@given(
    st.dictionaries(
        st.sampled_from(["a", "no", "1", "x y", ""]), st.lists(st.integers() | st.text("ab'\n"), max_size=3)
    )
)
def test_yaml_that_others_wrote(value):
    """Block style with quotes as a writer chooses them is read back."""
    assert load_yaml(yaml.safe_dump(value).encode()) == value


@pytest.mark.parametrize(
    ("data", "problems", "line"),
    [
        (b"", [("", "bad_yaml")], "empty"),
        (b"a: [1\n", [("", "bad_yaml")], "line 2"),
        (b"a: 1\n---\nb: 2", [("", "bad_yaml")], "several"),
        (b"a: 1\nb: c: d", [("", "bad_yaml")], "line 2, column 5"),
        (b"a: 1\nb: \xff", [("", "bad_yaml")], "line 2: this is not UTF-8"),
        (b"a: \x00", [("", "bad_yaml")], "control characters"),
        (b"n:\n  a: 1\n  a: 2\nx: {k: 1, k: 2}", [("/n/a", "duplicate_key"), ("/x/k", "duplicate_key")], "line 3"),
        (b"a: !!str 1", [("/a", "bad_tag")], "line 1"),
        (b"- !x {}\n- !!python/name:os.system", [("/0", "bad_tag"), ("/1", "bad_tag")], "line 2"),
        (b"a: [.inf, -.INF, .nan, 1e999]", [(f"/a/{i}", "bad_number") for i in range(4)], "line 1"),
        (b"a: " + b"9" * 5000, [("/a", "bad_number")], "5000 digits"),
        (b"a:\n  ? [1]\n  : 2", [("/a", "bad_key")], "line 2"),
        (b"a: &k x\n*k : 1", [("", "bad_key")], "line 2"),
        (b"a: *b", [("/a", "bad_alias")], "*b"),
        (b"a: &a [*a]", [("/a/0", "bad_alias")], "*a"),
        (b"[" * 101 + b"]" * 101, [("/0" * 100, "too_deep")], "100 deep"),
        (b"- " * 5000, [("/0" * 100, "too_deep")], "100 deep"),
    ],
)
def test_yaml_that_is_refused(data, problems, line):
    """Duplicate keys, tags, odd keys, infinities and deep nesting are refused with pointer and line."""
    assert refused(load_yaml, data) == problems
    with pytest.raises(UnparsableError, match=line.replace("*", r"\*")):
        load_yaml(data)


def test_aliases_are_values():
    """An alias stands for what its anchor named."""
    assert load_yaml(b"a: &x {k: [1]}\nb: *x\nc: [*x]") == {"a": {"k": [1]}, "b": {"k": [1]}, "c": [{"k": [1]}]}


def test_aliases_do_not_multiply():
    """A billion laughs are refused before they are laughed."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert refused(load_yaml, "\n".join(lines).encode())[0][1] == "too_many_aliases"


def test_lines_of_pointers():
    """The line of a problem can be found from its pointer."""
    data = b"name: x\nnodes:\n  a/b:\n    task: t\n    depends_on:\n      - q\n"
    assert yaml_lines(data, ["/name", "/nodes/a~1b", "/nodes/a~1b/depends_on/0", "/nope"]) == {
        "/name": 1,
        "/nodes/a~1b": 3,
        "/nodes/a~1b/depends_on/0": 6,
    }


def test_files_are_read_by_their_ending(tmp_path):
    """`.yaml`, `.yml` and `.json` files hold documents; others are refused."""
    for name, text in (("a.yaml", "no: 1"), ("a.YML", "no: 1"), ("a.json", '{"no": 1}')):
        (tmp_path / name).write_text(text)
        assert load_document_file(tmp_path / name) == {"no": 1}
    with pytest.raises(UnparsableError, match=r"a\.txt must end in"):
        load_document_file(tmp_path / "a.txt")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_every_digit(number):
    """A double is the same double in JSON and in YAML."""
    for load in (load_json, load_yaml):
        (read,) = load(f"[{number!r}]".encode())
        assert read == number
        assert math.copysign(1, read) == math.copysign(1, number)
