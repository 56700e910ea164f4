"""Every example in docs/language.md runs and gives what the page says; its table of joins is that of the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from wf_core.schema.loading import load_yaml
from wf_core.schema.nodes import KINDS
from wf_orchestrator import testing
from wf_orchestrator.machine.diagram import render

PAGE = Path(__file__).parents[2] / "docs" / "language.md"
TEXT = PAGE.read_text()
_EXAMPLE = re.compile(r"```yaml\n(?P<document>name: .*?)```\n(?P<lines>(?:>[^\n]*\n)*)", re.DOTALL)
_LINE = re.compile(r"> (?P<given>.*?)→ \*\*(?P<status>[A-Z]+)\*\*(?P<rest>.*)")
_GIVEN = re.compile(r"(?P<what>input|signal|approval)(?: `(?P<name>[^`]+)`)?? `(?P<value>[^`]*)`")
_REST = re.compile(r"^(?: `(?P<value>[^`]*)`)?(?P<nodes>(?: · `[^`]+` `[^`]*`)*)$")


def _examples() -> Iterator[Any]:
    for match in _EXAMPLE.finditer(TEXT):
        document = load_yaml(match["document"].encode())
        for number, line in enumerate(match["lines"].splitlines(), 1):
            yield pytest.param(document, line, id=f"{document['name']}-{number}")


def _given(text: str) -> dict[str, Any]:
    """The harness's options that stand before the arrow."""
    options: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split("·"))):
        match = _GIVEN.fullmatch(part)
        assert match, f"{part!r} is no input, signal or approval"
        value = json.loads(match["value"])
        if match["what"] == "input":
            options["input"] = value
        else:
            options.setdefault(f"{match['what']}s", {})[match["name"]] = value
    return options


@pytest.mark.parametrize(("document", "line"), list(_examples()))
def test_an_example_gives_what_the_page_says(document: Mapping[str, Any], line: str):
    """Status, output or type of the error, and outputs of nodes that the line names."""
    match = _LINE.fullmatch(line)
    assert match, f"the line {line!r} says no result"
    rest = _REST.fullmatch(match["rest"])
    assert rest, f"the result {match['rest']!r} is not understood"
    run = testing.run(document, **_given(match["given"]))
    assert run.status == match["status"], run.error
    if rest["value"] is not None and run.status == "COMPLETED":
        assert run.output == json.loads(rest["value"])
    elif rest["value"] is not None:
        assert run.error is not None
        assert run.error.type == rest["value"]
    for path, value in re.findall(r"`([^`]+)` `([^`]*)`", rest["nodes"]):
        assert run.node(path).output == json.loads(value)


def test_every_example_says_its_result():
    """No document without a line under it."""
    examples = _EXAMPLE.findall(TEXT)
    assert len(examples) == TEXT.count("```yaml")
    assert [document.splitlines()[0] for document, lines in examples if not lines] == []


def test_every_kind_has_an_example():
    """And a section of its own, but for `task`."""
    shown = {kind for kind in KINDS if f"kind: {kind}" in TEXT}
    assert shown == set(KINDS) - {"task"}
    assert [kind for kind in shown if f"\n## {kind}\n" not in TEXT] == []


def test_the_table_of_joins_is_that_of_the_code():
    """As `python -m wf_orchestrator.machine.diagram` writes it into docs/states.md."""
    table = "\n".join(line for line in render().partition("## Joins")[2].splitlines() if line.startswith("|"))
    assert table in TEXT, "put the table of joins in docs/states.md into docs/language.md"
