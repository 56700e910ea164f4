"""The tests that docs/testing.md shows pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from wf_core.schema.loading import load_yaml
from wf_orchestrator.testing import Harness, run
from wf_orchestrator.testing.cases import read_cases, run_case

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
FIXTURES: dict[str, Any] = {"run_workflow": run, "workflow_harness": Harness}


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", CODE, re.MULTILINE))
def test_the_page_shows_tests_that_pass(name: str):
    """Each with the fixture that it asks for."""
    shown: dict[str, Any] = {}
    exec(compile(CODE, str(PAGE), "exec"), shown)  # noqa: S102 - the code is ours
    (fixture,) = re.findall(rf"^def {name}\((\w+)\)", CODE, re.MULTILINE)
    shown[name](FIXTURES[fixture])


def test_the_page_shows_cases_that_pass(tmp_path: Path):
    """Each as `wf test` runs it."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "cases.yaml"
    file.write_text(shown)
    cases = read_cases(file)
    assert {case.name: run_case(cases, case, tmp_path) for case in cases.cases} == {
        case.name: [] for case in cases.cases
    }


def test_the_builder_gives_the_document_that_its_page_shows():
    """Byte for byte of its JSON values."""
    page = (PAGE.parent / "python.md").read_text()
    (code,), (shown,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "yaml"))
    names: dict[str, Any] = {}
    exec(compile(code, "docs/python.md", "exec"), names)  # noqa: S102 - the code is ours
    assert names["wf"].to_dict() == load_yaml(shown.encode())
