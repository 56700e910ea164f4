"""Documents that are generated are current, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wf_core.schema.document import RetrySchema, WorkflowSchema
from wf_core.schema.loading import load_document_file, load_yaml
from wf_core.schema.models import keys_of
from wf_core.schema.nodes import KINDS
from wf_core.schema.validation import parse_document
from wf_core.settings import markdown

ROOT = Path(__file__).parents[2]


def test_the_readme_lists_every_variable():
    """The table in the README is what `python -m wf_core.settings` writes."""
    text = (ROOT / "README.md").read_text()
    assert markdown() in text, "run `python -m wf_core.settings` and put its table into the README"


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str):
    """Relative links and paths of commands point to files of the repository."""
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(r"(?:-r|run|-f) ((?:requirements|examples|deploy)/[\w./-]+)", text)
    missing = [name for name in [*((ROOT / page).parent / link for link in links), *(ROOT / path for path in paths)]
               if not name.exists()]  # fmt: skip
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "docs/workflows.md"])
def test_documents_in_prose_are_valid(page: str):
    """Every YAML document that is shown is one that the engine takes."""
    shown = re.findall(r"```yaml\n(name: .*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert shown
    for text in shown:
        parse_document(load_yaml(text.encode()))


@pytest.mark.parametrize("file", sorted((ROOT / "examples/workflows").glob("*.[yj]*")), ids=lambda file: file.name)
def test_example_documents_are_valid(file: Path):
    """So is every example."""
    parse_document(load_document_file(file))


def test_every_field_of_a_document_is_listed():
    """docs/workflows.md names every field and every kind."""
    listed = set(re.findall(r"[\w]+", (ROOT / "docs/workflows.md").read_text()))
    known = set(KINDS).union(*(keys_of(model) for model in (WorkflowSchema, RetrySchema, *KINDS.values())))
    assert known <= listed, known - listed
