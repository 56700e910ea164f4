"""Documents that are generated are current, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wf_core.settings import markdown

ROOT = Path(__file__).parents[2]


def test_the_readme_lists_every_variable():
    """The table in the README is what `python -m wf_core.settings` writes."""
    text = (ROOT / "README.md").read_text()
    assert markdown() in text, "run `python -m wf_core.settings` and put its table into the README"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_lead_somewhere(page: str):
    """Relative links and paths of commands point to files of the repository."""
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(r"(?:-r|run|-f) ((?:requirements|examples|deploy)/[\w./-]+)", text)
    missing = [name for name in [*((ROOT / page).parent / link for link in links), *(ROOT / path for path in paths)]
               if not name.exists()]  # fmt: skip
    assert missing == []
