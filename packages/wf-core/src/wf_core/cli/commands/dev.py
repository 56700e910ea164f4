"""`wf dev`: everything on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from wf_core.cli import exits
from wf_core.cli.address import STATE


@click.command(short_help="Start everything on this machine: no Kafka, Redis or Docker needed.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API; default 8080, or a free one.")
@click.option("--memory", is_flag=True, help="Keep nothing on disk.")
@click.option("--reset", is_flag=True, help="Forget every execution first.")
@click.option("--kafka", metavar="HOST:PORT", help="Use this Kafka as the log.")
@click.option("--redis", metavar="URL", help="Use this Redis; none is started.")
@click.option(
    "--allow", multiple=True, metavar="TASKS", help="Tasks that run code and are allowed: shell.run,python.call."
)
@click.option(
    "--tasks",
    "tasks",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of task files besides ./tasks; repeatable.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="WARNING",
    show_default=True,
)
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), default=Path(STATE), show_default=True)
def dev(  # noqa: PLR0913 - one argument per option
    port: int | None,
    memory: bool,
    reset: bool,
    kafka: str | None,
    redis: str | None,
    allow: tuple[str, ...],
    tasks: tuple[Path, ...],
    log_level: str,
    state: Path,
) -> int:
    """Start the API, an orchestrator and a worker on a private Redis: no Kafka, Redis or Docker needed.

    Executions are kept in ./.wf over restarts. Tasks in ./tasks/*.py are picked up, and again
    when they change.
    """
    from wf_core.dev.launch import Options, launch

    options = Options(
        folder=state.absolute(),
        port=port,
        memory=memory,
        reset=reset,
        kafka=kafka,
        redis=redis,
        allow=",".join(allow),
        tasks=tasks,
        log_level=log_level.upper(),
    )
    try:
        return launch(options)
    except KeyboardInterrupt:
        return exits.OK
