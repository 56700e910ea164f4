"""What docs/operations.md names is there: commands with their options, tests, metrics, variables, fail points."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import get_args

import click
import pytest

from wf_core.failpoints import Point
from wf_core.settings import Settings
from wf_orchestrator.gauges import MEANINGS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
PAGES = ("README.md", "docs/operations.md")


def _commands(text: str) -> set[str]:
    """`wf …` as it is shown in blocks of shell and between backticks, without comments and paths."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    shown = [part for line in blocks.splitlines() for part in re.split(r"#|;|&&", line)]
    shown += re.findall(r"`([^`\n]+)`", text)
    return {" ".join(line.split()) for line in shown if re.match(r"\s*wf [a-z]", line)}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_shown_exists(page: str):
    """With each of its options."""
    entries = {entry.name: entry for entry in importlib.metadata.entry_points(group="wf.commands")}
    found = _commands((ROOT / page).read_text())
    assert found
    for line in found:
        words = line.split()[1:]
        command = entries[words.pop(0)].load()
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, line


def test_every_test_that_is_named_exists():
    """Files and folders, at least one in each row of the table of faults."""
    named = set(re.findall(r"`((?:tests|packages)/[\w./-]+)`", PAGE))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
    table = PAGE.partition("## What survives what")[2].partition("###")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][2:]
    assert [row for row in rows if not re.search(r"`(tests|packages)/", row)] == []


def test_every_number_is_explained():
    """Each metric that is named exists, and each of an orchestrator is named."""
    named = set(re.findall(r"`wf_([a-z_]+)(?:\{[a-z,]+\})?`", PAGE))
    sources = "".join(path.read_text() for path in ROOT.glob("packages/*/src/**/*.py"))
    assert [name for name in named if f'"{name}"' not in sources] == []
    assert [name for name in MEANINGS if name not in named] == []


def test_every_variable_exists():
    """Of those that begin with APP_."""
    known = {f"APP_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"APP_[A-Z_]+[A-Z]", PAGE)) <= known


def test_every_fail_point_is_listed():
    """All of them, and no other."""
    assert set(re.findall(r"`((?:orchestrator|worker|api)\.[a-z_]+)`", PAGE)) == set(get_args(Point))


def test_every_alarm_has_its_runbook():
    """Links inside the page lead to its headings."""
    headings = {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    wanted = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert len(wanted) > 10
    assert wanted <= headings
