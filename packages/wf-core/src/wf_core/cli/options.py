"""Options that commands share, and the client that they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from wf_core.cli.address import find_server

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "json", "jsonl", "name")

server = click.option(
    "--server", metavar="URL", help="Address of the API; default: WF_SERVER, `wf dev` here, or port 8080."
)
output = click.option("-o", "--output", "form", type=click.Choice(FORMATS), default="table", help="How to print.")
ascii_only = click.option("--ascii", "ascii_only", is_flag=True, help="Only ASCII characters.")
execution = click.argument("execution", metavar="EXECUTION")
limit = click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
inputs = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="KEY=VALUE|@FILE",
    help="Input of the workflow: a key with a JSON value or text, or a JSON or YAML file; repeatable, later ones win.",
)
labels = click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label of the execution; repeatable."
)


def looking(command: F) -> F:
    """The options of a command that asks the server for something and prints it."""
    return server(output(command))


def connect(address: str | None) -> Any:
    """A client of the server that the options, the environment or a running `wf dev` name."""
    from wf_core.client import Client

    return Client(find_server(address).url, api_key=os.environ.get("WF_API_KEY"))
