"""The command `wf worker`."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command()
@click.option("--queues", metavar="A,B", help="Queues to take from.  [default: APP_WORKER_QUEUES or default]")
@click.option("--slots", type=click.IntRange(min=1), help="Tasks to run at once.  [default: APP_WORKER_SLOTS or 16]")
@click.option("--allow", metavar="TASKS", help="Tasks that run a document's own code and may run here; * for all.")
def worker(queues: str | None, slots: int | None, allow: str | None) -> None:
    """Run a worker: it takes tasks from queues and runs them.

    Servers and limits come from APP_* variables. SIGTERM lets what runs finish for APP_WORKER_GRACE seconds, hands back
    the rest and leaves.
    """
    # Imported here: `wf worker --help` needs neither Redis nor a log.
    from wf_core.lean import import_structlog

    import_structlog()
    from pydantic import ValidationError

    from wf_core.run_service import EXIT_SETUP, run_service, settings_sentence
    from wf_core.settings import Settings
    from wf_worker.service import WorkerService

    said = {"worker_queues": queues, "worker_slots": slots, "worker_allow": allow}
    given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        click.echo(settings_sentence(error), err=True)
        sys.exit(EXIT_SETUP)
    sys.exit(run_service(WorkerService.early(), "worker", settings))
