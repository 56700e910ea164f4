"""`wf api`."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command()
@click.option("--host", help="Address to listen on.  [default: APP_API_HOST or 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: APP_API_PORT or 8080]")
@click.option("--insecure", is_flag=True, help="Let other machines in without APP_API_KEY.")
def api(host: str | None, port: int | None, insecure: bool) -> None:
    """Runs the REST API until SIGTERM or Ctrl-C."""
    # Imported here: `wf api --help` needs neither FastAPI nor Redis.
    from wf_core.lean import import_structlog

    import_structlog()
    from pydantic import ValidationError

    from wf_api.service import ApiService
    from wf_core.run_service import EXIT_SETUP, run_service, settings_sentence
    from wf_core.settings import Settings

    said: dict[str, Any] = {
        name: value for name, value in (("api_host", host), ("api_port", port)) if value is not None
    }
    try:
        settings = Settings(**said)
    except ValidationError as error:
        click.echo(settings_sentence(error), err=True)
        sys.exit(EXIT_SETUP)
    sys.exit(run_service(lambda chosen: ApiService(chosen, insecure=insecure), "api", settings))
