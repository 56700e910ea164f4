"""`wf submit --each`: an execution for each line of a file."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wf_core.cli.console import note, print_json, print_list
from wf_core.cli.documents import STDIN, read_document
from wf_core.cli.failures import MOST_PROBLEMS, UsageError
from wf_core.client import ApiError
from wf_core.client.batches import Part, parts_of
from wf_core.errors import DocumentError, Problem, UnparsableError, WfError
from wf_core.schema.loading import load_json

_PLACE = re.compile(r"/inputs/(\d+)(.*)", re.DOTALL)


class Line(NamedTuple):
    """A line of the file and the input in it."""

    number: int
    value: Any


def submit_each(  # noqa: PLR0913 - what the command line says
    document: Path,
    file: Path,
    key: str | None,
    connect: Callable[[], Any],
    said: dict[str, Any],
    form: str,
) -> None:
    """Creates an execution of `document` for each line of `file` and prints their ids.

    `said` are the other arguments of the client's `submit_batch`. Raises UsageError with every line that is wrong.
    """
    if STDIN == document == file:
        raise UsageError("DOCUMENT and --each cannot both be read from stdin")
    workflow = read_document(document)
    name = "stdin" if file == STDIN else str(file)
    data = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    lines = read_lines(name, data, workflow, starts=said["trigger"])
    base = key or secrets.token_hex(16)
    made: list[Any] = []
    try:
        with connect() as client:
            for part in parts_of([line.value for line in lines], base):
                with_key = {**said, "idempotency_key": part.key}
                try:
                    batch = client.submit_batch(workflow, part.inputs, **with_key)
                except WfError as error:
                    raise _told(error, part, lines, name, base) from error
                made += batch.executions
                if form != "json":
                    print_list(batch.executions, "name" if form == "table" else form, [], lambda one: one.execution_id)
    finally:
        if form == "json":
            print_json(made)
    if form == "table":
        note(f"{len(made):,} executions, {made[0].status}; `wf ls` lists them")


def read_lines(name: str, data: bytes, workflow: Any, *, starts: bool) -> list[Line]:
    """The inputs in JSON lines, without blank ones, checked against the `input` of the document when that is a schema.

    `name` is the file's. Raises UsageError with every line that is wrong, and when there is none.
    """
    problems: list[tuple[int, Problem]] = []
    lines: list[Line] = []
    for number, text in enumerate(data.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            lines.append(Line(number, load_json(text)))
        except UnparsableError as error:
            problems += [(number, problem) for problem in error.problems]
    problems += _refused(workflow, lines, starts=starts)
    if problems:
        raise _wrong_lines(name, sorted(problems, key=lambda found: found[0]), "nothing was sent")
    if not lines:
        raise UsageError(f"{name} holds no line with an input")
    return lines


def _refused(workflow: Any, lines: Sequence[Line], *, starts: bool) -> Iterator[tuple[int, Problem]]:
    """What the server would say of the inputs, batch after batch. It says what is wrong with a schema, too."""
    import jsonschema_rs

    from wf_core.schema.inputs import Inputs

    schema = workflow.get("input") if isinstance(workflow, dict) else None
    if not isinstance(schema, dict):
        return
    try:
        inputs = Inputs(schema)
    except (jsonschema_rs.ValidationError, ValueError):
        return
    for number, value in lines:
        if value is None and not starts:
            continue
        try:
            inputs.filled(value, "")
        except DocumentError as error:
            yield from ((number, problem) for problem in error.problems)


def _told(error: WfError, part: Part, lines: Sequence[Line], name: str, key: str) -> WfError:
    """The error of a batch in terms of lines, having said how to go on where executions were or may be created."""
    is_refused = isinstance(error, ApiError) and error.status < 500  # noqa: PLR2004 - HTTP's bound of server errors
    if part.first or not is_refused:
        note(
            f"{part.first:,} executions were created; the same command with --key {key} creates those that are missing"
        )
    found = [
        (lines[part.first + int(place[1])].number, Problem(place[2], problem.code, problem.detail))
        for problem in (error.problems if isinstance(error, ApiError) else ())
        if (place := _PLACE.fullmatch(problem.pointer))
    ]
    return _wrong_lines(name, found, "of this batch nothing was accepted") if found else error


def _wrong_lines(name: str, problems: Sequence[tuple[int, Problem]], outcome: str) -> UsageError:
    told = [
        f"  {name}:{number}: {f'{problem.pointer}: ' if problem.pointer else ''}{problem.detail}"
        for number, problem in problems[:MOST_PROBLEMS]
    ]
    if len(problems) > MOST_PROBLEMS:
        told.append(f"  ... and {len(problems) - MOST_PROBLEMS:,} more")
    count = len({number for number, _ in problems})
    what = "a line is wrong" if count == 1 else f"{count:,} lines are wrong"
    return UsageError("\n".join([f"{what}, and {outcome}", *told]))
