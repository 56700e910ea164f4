"""`wf run`: submits, triggers, follows, prints the output; without a server it brings its own."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from wf_core.cli import exits, options
from wf_core.cli.commands.submit import DOCUMENT
from wf_core.cli.console import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wf_core.dev.private import PrivateServer


@click.command(short_help="Run a workflow to its end and print its output.")
@DOCUMENT
@options.inputs
@options.labels
@click.option("--timeout", metavar="DURATION", help="Give up waiting after 90s, 5m …: exit code 5.")
@click.option(
    "--allow", default="", metavar="TASKS", help="With a server of its own: tasks that run code, e.g. shell.run."
)
@options.ascii_only
@options.looking
def run(  # noqa: PLR0913 - one argument per option
    document: Path,
    inputs: tuple[str, ...],
    labels: tuple[str, ...],
    timeout: str | None,
    allow: str,
    server: str | None,
    form: str,
    ascii_only: bool,
) -> int:
    """Run the workflow in DOCUMENT (YAML or JSON, `-` for stdin) to its end and print its output.

    Exits 0 when it completed, 1 when it did not. When no server is named and none runs here, it starts a `wf dev` for
    this one run and stops it afterwards; the state stays in ./.wf. It then knows the tasks in ./tasks/*.py and in
    tasks/*.py beside DOCUMENT.
    """
    from wf_core.cli.commands.watch import follow_to_end, seconds
    from wf_core.cli.documents import read_document
    from wf_core.cli.inputs import read_inputs, read_labels
    from wf_core.cli.missing import submit_or_explain

    value, chosen, tags, limit = read_document(document), read_inputs(inputs), read_labels(labels), seconds(timeout)
    if not isinstance(value, dict):
        raise click.BadParameter("the document must be an object with `name` and `nodes`", param_hint="DOCUMENT")
    try:
        with (
            _server(server, document, value, allow) as (url, private),
            _client(url) as client,
        ):
            if allow and (private is None or not private.ours):
                note(
                    f"warning: --allow means nothing to the server at {url}, which runs already; start it with --allow"
                )
            made = submit_or_explain(client, value, input=chosen, labels=tags, trigger=True)
            words = _words(private, made.execution_id)
            return follow_to_end(client, made.execution_id, form, ascii_only=ascii_only, timeout=limit, **words)
    except KeyboardInterrupt:
        return exits.DETACHED


@contextlib.contextmanager
def _server(option: str | None, file: Path, document: Any, allow: str) -> Iterator[tuple[str, PrivateServer | None]]:
    from wf_core.cli.address import STATE, find_server

    address = find_server(option)
    if address.named:
        yield address.url, None
        return
    from wf_core.dev.private import private_server
    from wf_core.schema.validation import parse_document

    # A wrong document is refused before the seconds that a server takes to start.
    parse_document(document)
    tasks = file.absolute().parent / "tasks"
    with private_server(Path(STATE).absolute(), allow, tasks, meanwhile=_import_client) as private:
        yield private.url, private


def _client(url: str) -> Any:
    from wf_core.client import Client

    return Client(url, api_key=os.environ.get("WF_API_KEY"))


def _import_client() -> None:
    """What is needed once the server is there."""
    import wf_core.cli.follow
    import wf_core.cli.screen
    import wf_core.plan  # noqa: F401 - as the others, to be there


def _words(private: PrivateServer | None, execution_id: str) -> dict[str, Any]:
    """What to say at Ctrl-C and after a failure when the server ends with us."""
    if private is None or not private.ours:
        return {}
    if not private.kept:
        note("(another run holds ./.wf: this one is forgotten when it ends)")
        return {"detached": "stopped", "hint": lambda _node: "(start `wf dev` before `wf run` to look at it later)"}
    return {
        "detached": f"stopped; `wf dev` in this folder goes on with it: wf watch {execution_id}",
        "hint": lambda node: f"more with `wf dev` in this folder and: wf node {execution_id} {quote(node)}",
    }
