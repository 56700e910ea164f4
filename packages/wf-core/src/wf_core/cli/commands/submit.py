"""`wf submit`, `wf trigger`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wf_core.cli import options
from wf_core.cli.console import note, print_one

DOCUMENT = click.argument("document", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))


@click.command(short_help="Create an execution of a workflow, or many.")
@DOCUMENT
@options.inputs
@click.option(
    "--each",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="An execution for each line of FILE (`-` for stdin), its input in JSON; they are sent in batches of up to "
    "1,000, each of which is accepted whole or not at all.",
)
@options.labels
@click.option("--trigger", "start", is_flag=True, help="Start it at once.")
@click.option("--key", metavar="TEXT", help="Idempotency key: the same key and request create nothing twice.")
@click.option("--allow-unknown", is_flag=True, help="Accept tasks that no live worker knows.")
@options.looking
def submit(  # noqa: PLR0913 - one argument per option
    document: Path,
    inputs: tuple[str, ...],
    each: Path | None,
    labels: tuple[str, ...],
    start: bool,
    key: str | None,
    allow_unknown: bool,
    server: str | None,
    form: str,
) -> None:
    """Create an execution of the workflow in DOCUMENT (YAML or JSON, `-` for stdin).

    With --each create many. A line that is no JSON, or that the document's `input` refuses, is named and nothing is
    sent. Run again with the same --key and file it creates what is missing.
    """
    from wf_core.cli.documents import read_document
    from wf_core.cli.inputs import read_inputs, read_labels

    said: dict[str, Any] = {"labels": read_labels(labels), "trigger": start, "allow_unknown": allow_unknown}
    if each is not None:
        from wf_core.cli.many import submit_each

        if inputs:
            raise click.UsageError("--each and --input do not go together: a line is the whole input")
        submit_each(document, each, key, lambda: options.connect(server), said, form)
        return
    value, chosen = read_document(document), read_inputs(inputs)
    with options.connect(server) as client:
        made = client.submit(value, input=chosen, idempotency_key=key, **said)
    print_one(made, form, lambda: [made.execution_id], made.execution_id)
    if form == "table":
        note(f"{made.status}; go on with: wf {'watch' if start else 'trigger'} {made.execution_id}")


@click.command(short_help="Start an execution that was submitted.")
@options.execution
@options.inputs
@click.option("--watch", "and_watch", is_flag=True, help="Follow it until it ends.")
@options.ascii_only
@options.looking
def trigger(  # noqa: PLR0913 - one argument per option
    execution: str, inputs: tuple[str, ...], and_watch: bool, server: str | None, form: str, ascii_only: bool
) -> int | None:
    """Start EXECUTION; an input given here replaces the one that it was submitted with."""
    from wf_core.cli.commands.watch import follow_to_end
    from wf_core.cli.identity import resolve
    from wf_core.cli.inputs import read_inputs

    with options.connect(server) as client:
        execution_id = resolve(client, execution)
        done = client.trigger(execution_id, input=read_inputs(inputs))
        if and_watch:
            return follow_to_end(client, execution_id, form, ascii_only=ascii_only)
    print_one(done, form, lambda: [f"{done.execution_id}  {done.status}"], done.execution_id)
    return None
