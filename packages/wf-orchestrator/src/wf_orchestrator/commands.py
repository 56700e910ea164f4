"""The command `wf orchestrator`."""

from __future__ import annotations

import sys

import click


@click.command()
def orchestrator() -> None:
    """Run an orchestrator: it decides what runs next.

    Servers and limits come from APP_* variables. Any number of orchestrators share the partitions; SIGTERM gives them
    back and leaves.
    """
    from wf_core.run_service import run_service
    from wf_orchestrator.service import OrchestratorService

    sys.exit(run_service(OrchestratorService, "orchestrator"))
