"""`wf dlq ls`, `wf dlq show`, `wf dlq send`, `wf dlq discard`: records that nobody could use."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

from wf_core.cli import options
from wf_core.cli.console import cell, print_one, short

if TYPE_CHECKING:
    from wf_core.client import DeadLetter, Settled

_AT_A_TIME = 100
_number = click.argument("number", metavar="ID", type=click.IntRange(0))


@click.group(short_help="List, show, send again or discard dead letters.")
def dlq() -> None:
    """Deal with dead letters: records that nobody could use, with the reason.

    To mend one: wf dlq show ID -o json > letter.json, edit `record` in the file, wf dlq send ID --record letter.json.
    """


@dlq.command(short_help="List dead letters.")
@options.limit
@options.looking
def ls(limit: int, server: str | None, form: str) -> None:
    """List dead letters, newest first."""
    from wf_core.cli.paging import print_pages

    columns = [
        ("ID", lambda d: d.id),
        ("STATUS", lambda d: d.status),
        ("TIME", lambda d: d.ts),
        ("FROM", _origin),
        ("KIND", lambda d: _member(d, "kind")),
        ("EXECUTION", lambda d: _member(d, "execution")),
        ("REASON", lambda d: d.reason[:80]),
    ]
    with options.connect(server) as client:
        print_pages(client.dead_letters, limit, _AT_A_TIME, form, columns, lambda d: str(d.id))


@dlq.command(short_help="Show one dead letter.")
@_number
@options.looking
def show(number: int, server: str | None, form: str) -> None:
    """Show dead letter ID with its record."""
    with options.connect(server) as client:
        found = client.dead_letter(number)
    print_one(found, form, lambda: _lines(found), str(found.id))


@dlq.command(short_help="Send a dead letter's record back, as it is or edited.")
@_number
@click.option(
    "--record", "file", type=click.File("rb"), help="JSON of the record to send, or of the whole letter; - is stdin."
)
@click.option("--again", is_flag=True, help="Although it was sent or discarded before.")
@options.looking
def send(number: int, file: IO[bytes] | None, again: bool, server: str | None, form: str) -> None:
    """Send the record of dead letter ID back to where it belongs."""
    record = None if file is None else _record(file)
    with options.connect(server) as client:
        done = client.send_dead_letter(number, record=record, again=again)
    print_one(done, form, lambda: [_sentence(done)], str(done.id))


@dlq.command(short_help="Mark a dead letter as of no use.")
@_number
@options.looking
def discard(number: int, server: str | None, form: str) -> None:
    """Mark dead letter ID as of no use. It stays listed until the log forgets it."""
    with options.connect(server) as client:
        done = client.discard_dead_letter(number)
    print_one(done, form, lambda: [_sentence(done)], str(done.id))


def _record(file: IO[bytes]) -> dict[str, Any]:
    """The record in a file; of a whole letter, as `show -o json` prints it, its `record`."""
    import msgspec

    from wf_core.cli.failures import UsageError

    try:
        value: Any = msgspec.json.decode(file.read())
    except msgspec.MsgspecError as error:
        raise UsageError(f"{file.name} is no JSON: {error}") from error
    if isinstance(value, dict) and "reason" in value and "record" in value:
        value = value["record"]
    if not isinstance(value, dict):
        raise UsageError(f"{file.name} holds no record: an object is needed, as `wf dlq show ID -o json` prints it")
    return value


def _lines(found: DeadLetter) -> list[str]:
    facts = {
        "id": found.id,
        "status": found.status,
        "settled": found.settled_at,
        "sent to": found.position,
        "time": found.ts,
        "from": _origin(found),
        "laid by": found.source,
        "reason": found.reason,
        "bytes": found.bytes,
        "record": None if found.record is None else short(found.record, 2000),
        "base64": found.data and found.data[:2000],
    }
    return [f"{title:<8} {cell(value)}" for title, value in facts.items() if value not in (None, "")]


def _origin(found: DeadLetter) -> str:
    return f"{found.topic}/{found.partition}" + ("" if found.offset is None else f":{found.offset}")


def _member(found: DeadLetter, name: str) -> str | None:
    value = (found.record or {}).get(name)
    return value if isinstance(value, str) else None


def _sentence(done: Settled) -> str:
    return f"{done.id}  {done.status}" + (f" to {done.position}" if done.position else "")
