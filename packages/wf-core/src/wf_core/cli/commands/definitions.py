"""`wf definitions ls`, `get`, `put`, `run`, `rm`: registered definitions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wf_core.cli import options
from wf_core.cli.commands.submit import DOCUMENT
from wf_core.cli.console import cell, note, print_json, print_list, print_one

if TYPE_CHECKING:
    from wf_core.client import Version

_AT_A_TIME = 100
_name = click.argument("name", metavar="NAME[@VERSION]")
_version = click.option("--version", metavar="TEXT", help="A document's own version, or its hash; default: the newest.")


@click.group(short_help="List, show, register and remove definitions.")
def definitions() -> None:
    """Deal with registered definitions: documents that are run by their name, every version of which is kept.

    A node `{kind: workflow, workflow: NAME}` runs one as a child.
    """


@definitions.command(short_help="List definitions.")
@options.limit
@options.looking
def ls(limit: int, server: str | None, form: str) -> None:
    """List definitions by name, each with its newest version."""
    from wf_core.cli.paging import print_pages

    columns = [
        ("NAME", lambda d: d.name),
        ("VERSION", lambda d: d.version),
        ("HASH", lambda d: d.hash),
        ("REGISTERED", lambda d: d.created_at),
        ("VERSIONS", lambda d: d.versions),
    ]
    with options.connect(server) as client:
        print_pages(client.definitions, limit, _AT_A_TIME, form, columns, lambda d: d.name, first="first")


@definitions.command(short_help="Print a definition's document.")
@_name
@_version
@click.option("--versions", "only_versions", is_flag=True, help="List its versions instead.")
@options.looking
def get(name: str, version: str | None, only_versions: bool, server: str | None, form: str) -> None:
    """Print the document of definition NAME as JSON, which `wf definitions put` takes back."""
    name, version = _reference(name, version)
    with options.connect(server) as client:
        found = client.registered(name, version=version)
    if only_versions:
        columns = [
            ("VERSION", lambda v: v.version),
            ("HASH", lambda v: v.hash),
            ("REGISTERED", lambda v: v.created_at),
        ]
        print_list(found.versions, form, columns, _called)
    elif form == "table":
        print_json(found.document)
    else:
        print_one(found, form, list, found.name)


@definitions.command(short_help="Register a document.")
@DOCUMENT
@click.option("--allow-unknown", is_flag=True, help="Accept tasks and definitions that nobody knows yet.")
@options.looking
def put(document: Path, allow_unknown: bool, server: str | None, form: str) -> None:
    """Make the workflow in DOCUMENT (YAML or JSON, `-` for stdin) the newest version of the definition of its name."""
    from wf_core.cli.documents import read_document

    value = read_document(document)
    with options.connect(server) as client:
        done = client.register(value, allow_unknown=allow_unknown)
    print_one(done, form, lambda: [f"{done.name}  {_called(done)}"], done.name)
    for warning in done.warnings:
        note(warning)


@definitions.command(short_help="Create an execution of a definition.")
@_name
@_version
@options.inputs
@options.labels
@click.option("--trigger", "start", is_flag=True, help="Start it at once.")
@click.option("--key", metavar="TEXT", help="Idempotency key: the same key and request create one execution only.")
@options.looking
def run(  # noqa: PLR0913 - one argument per option
    name: str,
    version: str | None,
    inputs: tuple[str, ...],
    labels: tuple[str, ...],
    start: bool,
    key: str | None,
    server: str | None,
    form: str,
) -> None:
    """Create an execution of definition NAME."""
    from wf_core.cli.inputs import read_inputs, read_labels

    name, version = _reference(name, version)
    with options.connect(server) as client:
        made = client.submit_registered(
            name,
            version=version,
            input=read_inputs(inputs),
            labels=read_labels(labels),
            trigger=start,
            idempotency_key=key,
        )
    print_one(made, form, lambda: [made.execution_id], made.execution_id)
    if form == "table":
        note(f"{made.status}; go on with: wf {'watch' if start else 'trigger'} {made.execution_id}")


@definitions.command(short_help="Remove a definition.")
@_name
@click.option("--version", metavar="TEXT", help="Only this version, named as in the list or by its hash.")
@options.looking
def rm(name: str, version: str | None, server: str | None, form: str) -> None:
    """Remove definition NAME with all its versions. Executions keep the documents that they run."""
    name, version = _reference(name, version)
    with options.connect(server) as client:
        done = client.unregister(name, version=version)
    print_one(done, form, lambda: [f"{done.name}  {cell(done.removed)} removed"], done.name)


def _reference(name: str, version: str | None) -> tuple[str, str | None]:
    """The name and the version in NAME@VERSION, or those that stand apart."""
    name, at, after = name.partition("@")
    if at and version is not None:
        raise click.UsageError("the version stands behind @ or comes with --version, not both")
    return name, after if at else version


def _called(version: Version) -> str:
    return version.version or version.hash
