"""`wf watch`: follows an execution; Ctrl-C detaches and never cancels."""

from __future__ import annotations

import os
from shlex import quote
from typing import TYPE_CHECKING

import click

from wf_core.cli import exits, options
from wf_core.cli.console import note, print_one

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from wf_core.client import Client, Execution

_PATIENCE = 8


@click.command(short_help="Follow an execution until it ends.")
@options.execution
@click.option("--timeout", metavar="DURATION", help="Give up after 90s, 5m …; the execution goes on. Exit code 5.")
@options.ascii_only
@options.looking
def watch(execution: str, timeout: str | None, server: str | None, form: str, ascii_only: bool) -> int:
    """Follow EXECUTION until it ends, then print its output.

    Ctrl-C detaches: the execution goes on.
    """
    from wf_core.cli.address import find_server
    from wf_core.cli.identity import resolve
    from wf_core.client import Client, Delivery

    url = find_server(server).url
    # A watcher outlives a restart of the server.
    with Client(url, api_key=os.environ.get("WF_API_KEY"), delivery=Delivery(attempts=_PATIENCE)) as client:
        execution_id = resolve(client, execution)
        return follow_to_end(client, execution_id, form, timeout=seconds(timeout), ascii_only=ascii_only)


def seconds(text: str | None) -> float | None:
    """Seconds of a `--timeout`."""
    from wf_core.durations import parse_duration_ms

    if text is None:
        return None
    try:
        return parse_duration_ms(text) / 1000
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error


def follow_to_end(  # noqa: PLR0913 - what `run` and `watch` say differently
    client: Client,
    execution_id: str,
    form: str,
    *,
    ascii_only: bool,
    timeout: float | None = None,
    detached: str = "",
    hint: Callable[[str], str] | None = None,
    since: datetime | None = None,
) -> int:
    """Follows, prints the output or the failure, returns the exit code. Tells nothing that happened up to `since`.

    `detached` is what to say after Ctrl-C, `hint` makes of a failed node's name a line that says where to look.
    """
    from wf_core.cli.follow import Follower, failure_lines, own_error
    from wf_core.cli.screen import open_screen

    try:
        with open_screen(ascii_only=ascii_only) as screen:
            execution, view = Follower(client, execution_id, screen, since).follow(timeout)
    except KeyboardInterrupt:
        note(detached or f"detached; the execution goes on: wf watch {execution_id}")
        return exits.DETACHED
    print_output(execution, form)
    if execution.completed:
        return exits.OK
    hint = hint or (lambda node: f"wf node {execution_id} {quote(node)}")
    for line in failure_lines(execution, view, hint, own_error(client, execution, view)):
        note(line, "red")
    return exits.FAILED


def print_output(execution: Execution, form: str) -> None:
    """The output on stdout; all of the execution with `-o json`."""
    from wf_core.cli.follow import output_text

    print_one(
        execution,
        form,
        lambda: [output_text(execution.output)] if execution.completed and execution.output is not None else [],
        execution.execution_id,
    )
