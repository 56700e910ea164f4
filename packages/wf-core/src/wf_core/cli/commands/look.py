"""`wf ls`, `wf show`, `wf results`, `wf nodes`, `wf node`, `wf events`, `wf tasks`, `wf workers`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from wf_core.cli import options
from wf_core.cli.console import cell, lasted, note, plain, print_json, print_list, print_one, short, write

if TYPE_CHECKING:
    from wf_core.client import Event, Execution, Node, Summary

_STATUSES = click.Choice(["PENDING", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"], case_sensitive=False)
_NODE_STATUSES = click.Choice(
    ["PENDING", "QUEUED", "RUNNING", "RETRYING", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED", "UPSTREAM_FAILED"],
    case_sensitive=False,
)
_AT_A_TIME = 200


@click.command(short_help="List executions.")
@click.option("--status", type=_STATUSES, help="Only those in this status.")
@click.option("--name", help="Only this workflow, by its exact name.")
@click.option("--label", metavar="KEY=VALUE", help="Only those with this label.")
@click.option("--since", metavar="TIME", help="Only those created since then (2026-01-31T08:00:00Z).")
@click.option("-q", "search", metavar="TEXT", help="Search.")
@options.limit
@options.looking
def ls(  # noqa: PLR0913 - one argument per option
    status: str | None,
    name: str | None,
    label: str | None,
    since: str | None,
    search: str | None,
    limit: int,
    server: str | None,
    form: str,
) -> None:
    """List executions, newest first."""
    found: list[Summary] = []
    cursor: str | None = None
    with options.connect(server) as client:
        while len(found) < limit:
            page = client.list(
                status=status.upper() if status else None,
                name=name,
                label=label,
                since=since,
                q=search,
                cursor=cursor,
                limit=min(limit - len(found), _AT_A_TIME),
            )
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
    columns = [
        ("EXECUTION", lambda e: e.execution_id),
        ("NAME", lambda e: e.name),
        ("STATUS", lambda e: e.status),
        ("NODES", _progress),
        ("CREATED", lambda e: e.created_at),
        ("TOOK", lambda e: lasted(e.started_at, e.ended_at)),
    ]
    print_list(found, form, columns, lambda e: e.execution_id)
    if cursor is not None and form == "table":
        note(f"the newest {len(found)}; more with --limit")


def _progress(execution: Summary) -> str:
    total = sum(execution.counts.values())
    return f"{execution.counts.get('COMPLETED', 0)}/{total}" if total else "-"


@click.command(short_help="Show one execution.")
@options.execution
@options.looking
def show(execution: str, server: str | None, form: str) -> None:
    """Show EXECUTION: its status, times, first failure, input and output."""
    from wf_core.cli.identity import resolve

    with options.connect(server) as client:
        found = client.get(resolve(client, execution))
    print_one(found, form, lambda: _execution_lines(found), found.execution_id)


def _execution_lines(found: Execution) -> list[str]:
    facts = {
        "execution": found.execution_id,
        "name": found.name + (f" {found.version}" if found.version else ""),
        "status": found.status,
        "labels": ", ".join(f"{key}={value}" for key, value in found.labels.items()),
        "nodes": ", ".join(f"{count} {status}" for status, count in sorted(found.counts.items()) if count),
        "created": found.created_at,
        "started": found.started_at,
        "ended": found.ended_at,
        "took": lasted(found.started_at, found.ended_at),
        "error": f"{found.error.type}: {found.error.message}" if found.error else None,
        "failed node": found.error.node if found.error else None,
        "input": short(found.input),
        "output": short(found.output) if found.output is not None else None,
    }
    return [f"{title:<12} {cell(value)}" for title, value in facts.items() if value not in (None, "", "-")]


@click.command(short_help="Print what an execution's nodes returned.")
@options.execution
@click.option("--node", help="Only this node's output.")
@options.looking
def results(execution: str, node: str | None, server: str | None, form: str) -> None:
    """Print the outputs of EXECUTION's completed nodes as JSON."""
    from wf_core.cli.failures import NotFoundError
    from wf_core.cli.identity import resolve

    with options.connect(server) as client:
        found = client.results(resolve(client, execution))
    if node is not None:
        if node not in found.results:
            raise NotFoundError(f"{found.execution_id} has no output of a node {node!r} (so far)")
        print_json(found.results[node])
    elif form == "jsonl":
        for name, value in found.results.items():
            write(json.dumps({"node": name, "output": plain(value)}, ensure_ascii=False))
    elif form == "name":
        for name in found.results:
            write(name)
    else:
        print_json(found if form == "json" else found.results)


@click.command(short_help="List an execution's nodes.")
@options.execution
@click.option("--status", type=_NODE_STATUSES, help="Only those in this status.")
@click.option("--task", help="Only those of this task.")
@options.looking
def nodes(execution: str, status: str | None, task: str | None, server: str | None, form: str) -> None:
    """List the nodes of EXECUTION."""
    from wf_core.cli.identity import resolve

    with options.connect(server) as client:
        found = client.all_nodes(resolve(client, execution), status=status.upper() if status else None, task=task)
    columns = [
        ("NODE", lambda n: n.node),
        ("TASK", lambda n: n.task),
        ("STATUS", lambda n: n.status),
        ("ATTEMPTS", lambda n: n.attempts),
        ("WORKER", lambda n: n.worker),
        ("STARTED", lambda n: n.started_at),
        ("TOOK", lambda n: lasted(n.started_at, n.ended_at)),
        ("ERROR", lambda n: n.error and f"{n.error.type}: {n.error.message}"[:80]),
    ]
    print_list(found, form, columns, lambda n: n.node)


@click.command(short_help="Show one node with all its attempts.")
@options.execution
@click.argument("node")
@options.looking
def node(execution: str, node: str, server: str | None, form: str) -> None:
    """Show NODE of EXECUTION: input, output, and every attempt with its error and what was decided."""
    from wf_core.cli.identity import resolve

    with options.connect(server) as client:
        found = client.node(resolve(client, execution), node)
    print_one(found, form, lambda: _node_lines(found), found.node)


def _node_lines(found: Node) -> list[str]:
    lines = [f"{'node':<9} {found.node}", f"{'task':<9} {cell(found.task)}", f"{'status':<9} {found.status}"]
    lines += [f"{'input':<9} {short(found.input)}"] if found.input is not None else []
    lines += [f"{'output':<9} {short(found.output)}"] if found.output is not None else []
    for attempt in found.history:
        budget = f" ({attempt.class_})" if attempt.class_ else ""
        took = lasted(attempt.started_at, attempt.ended_at) if attempt.ended_at else "-"
        lines += ["", f"attempt {attempt.attempt}  {attempt.status}{budget}  {took}  on {cell(attempt.worker)}"]
        if attempt.error:
            lines += [f"  {attempt.error.type}: {attempt.error.message}"]
            lines += [f"  {line}" for line in (attempt.error.traceback or "").rstrip().splitlines()]
        if attempt.decision:
            lines += [f"  -> {attempt.decision}{f': {attempt.reason}' if attempt.reason else ''}"]
    return lines


@click.command(short_help="List what happened to an execution.")
@options.execution
@click.option("--after", metavar="SEQ", help="Only what came after this event.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
@options.looking
def events(execution: str, after: str | None, limit: int, server: str | None, form: str) -> None:
    """List what happened to EXECUTION, oldest first."""
    from wf_core.cli.identity import resolve

    found: list[Event] = []
    with options.connect(server) as client:
        execution_id = resolve(client, execution)
        while len(found) < limit:
            page = client.events(execution_id, after=after, limit=min(limit - len(found), _AT_A_TIME))
            found += page.items
            if not page.items or page.next_cursor is None:
                break
            after = page.items[-1].seq
    columns = [
        ("TIME", lambda e: e.ts),
        ("KIND", lambda e: e.kind),
        ("NODE", lambda e: e.node),
        ("ATTEMPT", lambda e: e.attempt),
        ("STATUS", lambda e: e.status),
        ("DATA", lambda e: short(e.data, 100) if e.data else None),
    ]
    print_list(found, form, columns, lambda e: e.seq)


@click.command(short_help="List the tasks that live workers can run.")
@options.looking
def tasks(server: str | None, form: str) -> None:
    """List the tasks that live workers can run."""
    with options.connect(server) as client:
        found = client.tasks()
    columns = [
        ("TASK", lambda t: t.name),
        ("PACKAGE", lambda t: " ".join(part for part in (t.package, t.version) if part)),
        ("EXECUTOR", lambda t: t.executor),
        ("PARAMETERS", lambda t: ", ".join((t.params or {}).get("properties", {}))),
        ("DOES", lambda t: (t.doc or "").split("\n", 1)[0]),
    ]
    print_list(found, form, columns, lambda t: t.name)


@click.command(short_help="List the live workers.")
@options.looking
def workers(server: str | None, form: str) -> None:
    """List the live workers."""
    with options.connect(server) as client:
        found = client.workers()
    columns = [
        ("WORKER", lambda w: w.id),
        ("HOST", lambda w: w.host),
        ("PID", lambda w: w.pid),
        ("QUEUES", lambda w: w.queues),
        ("FREE", lambda w: f"{cell(w.free)}/{cell(w.slots)}"),
        ("STARTED", lambda w: w.started_at),
    ]
    print_list(found, form, columns, lambda w: w.id)
