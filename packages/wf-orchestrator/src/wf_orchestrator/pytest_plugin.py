"""The pytest plugin: fixtures that run workflows in the test's own process. Nothing is imported until one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from wf_orchestrator.testing import Harness, Run


class RunWorkflow(Protocol):
    """What the fixture `run_workflow` is."""

    def __call__(self, document: Any, **options: Any) -> Run:
        """Runs a document to its end; see `wf_orchestrator.testing.Harness` for the options."""
        ...


@pytest.fixture
def run_workflow() -> RunWorkflow:
    """Runs a wf workflow in this process with a virtual clock: `run_workflow(document, tasks={…}, input={…})`."""
    from wf_orchestrator.testing import run

    return run


@pytest.fixture
def workflow_harness() -> type[Harness]:
    """Runs a wf workflow step by step: `workflow_harness(document).advance("2h")`."""
    from wf_orchestrator.testing import Harness

    return Harness
