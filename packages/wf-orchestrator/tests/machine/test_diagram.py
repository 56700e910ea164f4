"""The documentation of states is made from the tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wf_orchestrator.machine import diagram

STATES = Path(__file__).parents[4] / "docs" / "states.md"


@pytest.mark.skipif(not STATES.exists(), reason="this package is tested without the repository around it")
def test_states_are_current():
    """docs/states.md is what the tables give: `python -m wf_orchestrator.machine.diagram` writes it."""
    assert STATES.read_text(encoding="utf-8") == diagram.render()


def test_the_command_writes_its_file(tmp_path, monkeypatch, capsys):
    """The command writes the file that it is given."""
    path = tmp_path / "states.md"
    monkeypatch.setattr(sys, "argv", ["diagram", str(path)])
    diagram.main()
    assert path.read_text(encoding="utf-8") == diagram.render()
    assert str(path) in capsys.readouterr().err


def test_everything_has_its_place():
    """Each status and each join rule appears."""
    text = diagram.render()
    for word in (*diagram.NODE, *diagram.EXECUTION, *diagram.RULES):
        if word != "PAUSED":
            assert str(word) in text
