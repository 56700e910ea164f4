"""`wf cancel`, `wf pause`, `wf resume`, `wf retry`, `wf signal`, `wf approve`: what is asked of an execution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wf_core.cli import options
from wf_core.cli.console import print_one

if TYPE_CHECKING:
    from collections.abc import Callable

    from wf_core.client import Client, Command

_reason = click.option("--reason", default="", help="Kept in the execution's history.")


def _order(execution: str, server: str | None, form: str, ask: Callable[[Client, str], Command]) -> None:
    """Sends a command and prints what it came to."""
    from wf_core.cli.identity import resolve

    with options.connect(server) as client:
        done = ask(client, resolve(client, execution))
    later = "" if done.applied else "  (accepted; no orchestrator has applied it yet)"
    print_one(done, form, lambda: [f"{done.execution_id}  {done.status}{later}"], done.execution_id)


@click.command(short_help="Cancel an execution.")
@options.execution
@_reason
@options.looking
def cancel(execution: str, reason: str, server: str | None, form: str) -> None:
    """Cancel EXECUTION: nothing new starts, what runs is cancelled."""
    _order(execution, server, form, lambda client, it: client.cancel(it, reason=reason))


@click.command(short_help="Let what runs finish, and start nothing.")
@options.execution
@_reason
@options.looking
def pause(execution: str, reason: str, server: str | None, form: str) -> None:
    """Pause EXECUTION: what runs finishes, nothing starts until `wf resume`."""
    _order(execution, server, form, lambda client, it: client.pause(it, reason=reason))


@click.command(short_help="Go on with a paused execution.")
@options.execution
@options.looking
def resume(execution: str, server: str | None, form: str) -> None:
    """Resume EXECUTION, which was paused."""
    _order(execution, server, form, lambda client, it: client.resume(it))


@click.command(short_help="Go on with an execution that failed or was cancelled.")
@options.execution
@click.option(
    "--from", "nodes", multiple=True, metavar="NODE", help="Also from this node and all after it; repeatable."
)
@options.inputs
@click.option("--watch", "and_watch", is_flag=True, help="Follow it until it ends.")
@options.ascii_only
@options.looking
def retry(  # noqa: PLR0913 - one argument per option
    execution: str,
    nodes: tuple[str, ...],
    inputs: tuple[str, ...],
    and_watch: bool,
    server: str | None,
    form: str,
    ascii_only: bool,
) -> int | None:
    """Retry EXECUTION from its failed nodes; what has completed is kept.

    With --from it goes on from these nodes, too, even when it has completed. An input given here replaces the old one.
    """
    from wf_core.cli.commands.watch import follow_to_end
    from wf_core.cli.identity import resolve
    from wf_core.cli.inputs import read_inputs

    chosen = read_inputs(inputs)
    if not and_watch:
        _order(execution, server, form, lambda client, it: client.retry(it, nodes=nodes, input=chosen))
        return None
    with options.connect(server) as client:
        execution_id = resolve(client, execution)
        ended = client.get(execution_id, nodes=False).ended_at
        client.retry(execution_id, nodes=nodes, input=chosen)
        return follow_to_end(client, execution_id, form, ascii_only=ascii_only, since=ended)


@click.command(short_help="Give a signal to an execution.")
@options.execution
@click.argument("name")
@click.option("--payload", metavar="VALUE|@FILE", help="JSON or text, or a JSON or YAML file.")
@options.looking
def signal(execution: str, name: str, payload: str | None, server: str | None, form: str) -> None:
    """Give the signal NAME to EXECUTION. One that nobody waits for yet is kept."""
    value = _value(payload, "--payload")
    _order(execution, server, form, lambda client, it: client.signal(it, name, payload=value))


@click.command(short_help="Answer an approval.")
@options.execution
@click.argument("node")
@click.option("--answer", metavar="VALUE|@FILE", help="JSON or text, or a JSON or YAML file.")
@options.looking
def approve(execution: str, node: str, answer: str | None, server: str | None, form: str) -> None:
    """Answer the approval NODE of EXECUTION."""
    value = _value(answer, "--answer")
    _order(execution, server, form, lambda client, it: client.approve(it, node, answer=value))


def _value(argument: str | None, option: str) -> Any:
    from wf_core.cli.inputs import read_value

    return None if argument is None else read_value(argument, option)
