"""The pytest plugin: fixtures, and no cost for those who do not use them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from wf_orchestrator.testing import stub

DOCUMENT: dict[str, Any] = {"nodes": {"a": {"task": "t"}}}


def test_a_fixture_runs_a_workflow(run_workflow: Any):
    """In one call."""
    assert run_workflow(DOCUMENT, tasks={"t": 1}).output == 1


def test_a_fixture_goes_step_by_step(workflow_harness: Any):
    """As far as the test tells it."""
    harness = workflow_harness(DOCUMENT, tasks={"t": stub(1, takes="24h")})
    assert harness.advance("23h").status == "RUNNING"
    assert harness.run_until_idle().elapsed == timedelta(hours=24)


def test_it_costs_nothing_where_it_is_not_used(tmp_path: Path):
    """A run of pytest that uses no fixture of it imports nothing of the engine but the plugin itself."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_other():\n"
        "    names = {name for name in sys.modules if name.partition('.')[0] in ('wf_core', 'wf_orchestrator')}\n"
        "    assert names == {'wf_orchestrator', 'wf_orchestrator.pytest_plugin'}, names\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "wf_orchestrator.pytest_plugin"]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_no_server_is_needed():
    """Who tests workflows loads no client of a server."""
    program = "import sys, wf_orchestrator.testing; assert not {'redis', 'aiokafka', 'httpx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
