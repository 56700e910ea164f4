"""`wf ls`, `wf show`, `wf results`, `wf nodes`, `wf node`, `wf events`, `wf tasks`, `wf workers`."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from wf_core.cli import options
from wf_core.cli.console import cell, lasted, plain, print_json, print_list, print_one, short, write

if TYPE_CHECKING:
    from wf_core.client import Attempt, Client, Event, Execution, Node, Summary

_STATUSES = click.Choice(["PENDING", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"], case_sensitive=False)
_NODE_STATUSES = click.Choice(
    [
        "PENDING",
        "QUEUED",
        "RUNNING",
        "RETRYING",
        "WAITING",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "SKIPPED",
        "UPSTREAM_FAILED",
    ],
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
    from wf_core.cli.paging import print_pages

    filters = {"status": status and status.upper(), "name": name, "label": label, "since": since, "q": search}
    columns = [
        ("EXECUTION", lambda e: e.execution_id),
        ("NAME", lambda e: e.name),
        ("STATUS", lambda e: e.status),
        ("NODES", _progress),
        ("CREATED", lambda e: e.created_at),
        ("TOOK", lambda e: lasted(e.started_at, e.ended_at)),
    ]
    with options.connect(server) as client:
        print_pages(partial(client.list, **filters), limit, _AT_A_TIME, form, columns, lambda e: e.execution_id)


def _progress(execution: Summary) -> str:
    total = sum(execution.counts.values())
    return f"{execution.counts.get('COMPLETED', 0)}/{total}" if total else "-"


@click.command(short_help="Show one execution.")
@options.execution
@options.ascii_only
@options.looking
def show(execution: str, server: str | None, form: str, ascii_only: bool) -> None:
    """Show EXECUTION: its status, times, first failure, input, output, and the tree of its nodes."""
    from wf_core.cli.identity import resolve

    with options.connect(server) as client:
        found = client.get(resolve(client, execution))
        tree = _tree(client, found, ascii_only=ascii_only) if form == "table" else []
    print_one(found, form, lambda: [*_execution_lines(found), *tree], found.execution_id)


def _tree(client: Client, execution: Execution, *, ascii_only: bool) -> list[str]:
    """Nothing for an execution that is too large for it (`wf watch` shows those) or whose document is not there."""
    from wf_core.cli.follow import look
    from wf_core.cli.screen import speaks_unicode
    from wf_core.cli.tree import render
    from wf_core.client import ApiError
    from wf_core.errors import DocumentError

    if execution.nodes_omitted:
        return []
    try:
        view = look(client, execution)
    except (ApiError, DocumentError):
        return []
    size = shutil.get_terminal_size((100, 40))
    ascii_only = ascii_only or not speaks_unicode(sys.stdout)
    lines = render(view, datetime.now(UTC), size.columns, size.lines, ascii_only=ascii_only)
    return ["", *(line.text for line in lines)] if view.nodes else []


def _execution_lines(found: Execution) -> list[str]:
    facts = {
        "execution": found.execution_id,
        "name": found.name + (f" {found.version}" if found.version else ""),
        "status": found.status + (f" (ends {found.ending})" if found.ending else ""),
        "parent": found.parent and f"{found.parent.execution_id} {found.parent.node}",
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
        # Results hold the top level; what is inside a container is asked for by itself.
        inner = client.node(found.execution_id, node) if node is not None and node not in found.results else None
    if node is not None:
        if inner is not None and inner.status != "COMPLETED":
            raise NotFoundError(f"{found.execution_id} has no output of the node {node!r}: it is {inner.status}")
        print_json(found.results[node] if inner is None else inner.output)
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
@click.option(
    "--under",
    metavar="NODE",
    help="Those inside this map, loop or dynamic node (price), item (price[3]) or pass (poll#2).",
)
@options.looking
def nodes(  # noqa: PLR0913 - one argument per option
    execution: str, status: str | None, task: str | None, under: str | None, server: str | None, form: str
) -> None:
    """List the nodes of EXECUTION: those of its top level, or those inside one of them."""
    from wf_core.cli.identity import resolve
    from wf_core.cli.view import progress_text

    wanted = status.upper() if status else None
    with options.connect(server) as client:
        found = client.all_nodes(resolve(client, execution), under=under, status=wanted, task=task)
    columns = [
        ("NODE", lambda n: n.node),
        ("TASK", lambda n: n.task or f"({n.kind})"),
        ("STATUS", lambda n: n.status),
        ("ATTEMPTS", lambda n: n.attempts),
        ("WORKER", lambda n: n.worker),
        ("STARTED", lambda n: n.started_at),
        ("TOOK", lambda n: lasted(n.started_at, n.ended_at)),
        ("PROGRESS", lambda n: progress_text(n.kind, n.progress)),
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
    from wf_core.cli.view import progress_text

    undo = found.compensation
    facts = {
        "node": found.node,
        "task": found.task or f"({found.kind})",
        "status": found.status,
        "queue": found.queue if found.status in ("QUEUED", "RUNNING") else None,
        "runs": _runs(found),
        "progress": progress_text(found.kind, found.progress),
        "child": found.child and found.child.execution_id,
        "undone": undo and f"{undo.status} by {undo.task} ({undo.node})",
        "input": None if found.input is None else short(found.input),
        "output": None if found.output is None else short(found.output),
    }
    lines = [f"{title:<9} {cell(value)}" for title, value in facts.items() if value not in (None, "")]
    for attempt in found.history:
        lines += ["", *_attempt_lines(attempt)]
    return lines


def _runs(found: Node) -> str | None:
    """Where and since when, of an attempt that has not ended: it is no part of the history yet."""
    if found.status != "RUNNING":
        return None
    return f"attempt {found.attempts} on {cell(found.worker)}"


def _attempt_lines(attempt: Attempt) -> list[str]:
    budget = f" ({attempt.class_})" if attempt.class_ else ""
    took = lasted(attempt.started_at, attempt.ended_at) if attempt.ended_at else "-"
    host = f" at {attempt.host}" if attempt.host else ""
    lines = [f"attempt {attempt.attempt}  {attempt.status}{budget}  {took}  on {cell(attempt.worker)}{host}"]
    if attempt.error:
        lines += [f"  {attempt.error.type}: {attempt.error.message}"]
        lines += [f"  because of {cause.type}: {cause.message}" for cause in attempt.error.causes]
        lines += [f"  {line}" for line in (attempt.error.traceback or "").rstrip().splitlines()]
    if attempt.log_tail:
        lines += ["  it said last:", *(f"  | {line}" for line in attempt.log_tail.rstrip().splitlines())]
    if said := ": ".join(filter(None, (attempt.decision, attempt.reason))):
        lines.append(f"  -> {said}")
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
    from wf_core.cli.missing import note_missing

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
    note_missing(found)


@click.command(short_help="Say why an execution or a node is where it is.")
@options.execution
@click.argument("node", required=False)
@options.looking
def why(execution: str, node: str | None, server: str | None, form: str) -> None:
    """Say why EXECUTION, or its NODE, is where it is: a sentence for each cause."""
    from wf_core.cli.identity import resolve

    with options.connect(server) as client:
        found = client.why(resolve(client, execution), node)
    print_one(found, form, lambda: [reason.sentence for reason in found.causes], found.node or found.execution_id)
