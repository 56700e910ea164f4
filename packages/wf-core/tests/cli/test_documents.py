"""`wf validate`, `wf graph`, `wf schema`: documents without a server."""

from __future__ import annotations

import json

import pytest

from wf_core.cli.documents import lines_of

pytest.importorskip("wf_core.schema.validation")

GOOD = """\
name: good
nodes:
  load: {task: core.echo, params: {value: 1}}
  clean:
    task: core.echo
    params: {value: "${{ nodes.load.output }}"}
  report: {task: core.noop, depends_on: [clean, load]}
"""
WRONG = """\
name: wrong
nodes:
  a:
    task: core.echo
    depends_on:
      - b
      - nowhere
  b: {task: core.noop, depends_on: [a], tiemout: 5s}
"""


@pytest.fixture
def good(tmp_path):
    """A file with a valid document."""
    (tmp_path / "good.yaml").write_text(GOOD)
    return "good.yaml"


def test_valid(wf, good):
    """A valid document is said to be, with exit code 0."""
    done = wf("validate", good)
    assert (done.returncode, done.stdout) == (0, "good.yaml: ok, 3 nodes\n")


def test_every_problem_with_its_line(wf, tmp_path, good):
    """Each problem is told with file, line, pointer and remedy; one wrong file among several makes exit code 2."""
    (tmp_path / "wrong.yaml").write_text(WRONG)
    done = wf("validate", good, "wrong.yaml")
    assert done.returncode == 2
    assert done.stdout == "good.yaml: ok, 3 nodes\n"
    assert "wrong.yaml:8: /nodes/b/tiemout" in done.stderr
    assert "timeout" in done.stderr


def test_semantic_problems(wf, tmp_path):
    """What is wrong between nodes is told at its line, too."""
    (tmp_path / "wrong.yaml").write_text(WRONG.replace(", tiemout: 5s", ""))
    done = wf("validate", "wrong.yaml", "-o", "json")
    problems = json.loads(done.stdout)[0]["problems"]
    assert done.returncode == 2
    assert {p["line"] for p in problems if p["pointer"].startswith("/nodes/a/depends_on/1")} == {7}
    assert any(p["code"] == "cycle" for p in problems)


def test_no_document(wf, tmp_path):
    """A file that is no YAML is exit code 2 with the line."""
    (tmp_path / "broken.yaml").write_text("name: [\n")
    done = wf("validate", "broken.yaml")
    assert done.returncode == 2
    assert "broken.yaml" in done.stderr


def test_stdin(wf):
    """`-` reads a document from stdin, YAML or JSON."""
    assert wf("validate", "-", stdin=GOOD).returncode == 0
    assert wf("validate", "-", stdin='{"name": "x", "nodes": {"a": {"task": "t"}}}').stdout == "-: ok, 1 node\n"


def test_levels(wf, good):
    """`wf graph` shows levels; a template that names a node is an edge."""
    assert wf("graph", good).stdout.splitlines() == [
        "level 0",
        "  load    core.echo",
        "level 1",
        "  clean   core.echo  after load",
        "level 2",
        "  report  core.noop  after load, clean",
    ]


def test_mermaid_and_dot(wf, good):
    """`wf graph` writes Mermaid and DOT."""
    mermaid = wf("graph", good, "--format", "mermaid").stdout
    assert mermaid.startswith('flowchart TD\n  n0["load<br/>core.echo"]')
    assert "n0 --> n1" in mermaid
    dot = wf("graph", good, "--format", "dot").stdout
    assert dot.startswith("digraph workflow {")
    assert "n1 -> n2;" in dot


def test_schema(wf):
    """`wf schema` prints a JSON Schema."""
    assert json.loads(wf("schema").stdout)["type"] == "object"


def test_lines_of_pointers(tmp_path):
    """A pointer leads to the line of its key, escaped keys included; one that is not there to its nearest parent's."""
    file = tmp_path / "a.yaml"
    file.write_text("a:\n  b/c:\n    - 1\n    - x: 2\n")
    asked = ["/a/b~1c", "/a/b~1c/1", "/a/b~1c/1/y/z"]
    assert lines_of(file, asked) == {"/a/b~1c": 2, "/a/b~1c/1": 4, "/a/b~1c/1/y/z": 4}
    file.write_text("a: [")
    assert lines_of(file, asked) == {}
