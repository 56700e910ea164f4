"""`wf validate`, `wf graph`, `wf schema`: documents, without running them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wf_core.cli import exits, options
from wf_core.cli.commands.submit import DOCUMENT
from wf_core.cli.console import note, print_json, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wf_core.errors import Problem


@click.command(short_help="Check documents without running them.")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)
)
@click.option("--server", metavar="URL", help="Ask this API as well: it knows which tasks the workers have.")
@click.option("-o", "--output", "form", type=click.Choice(options.FORMATS), default="table", help="How to print.")
def validate(files: tuple[Path, ...], server: str | None, form: str) -> int:
    """Check FILES (YAML or JSON, `-` for stdin) and report every problem with its line and JSON pointer.

    Exits 2 when one of them is not valid. No server is needed.
    """
    reports = [_check(file, server) for file in files]
    if form == "json":
        print_json(reports)
    for report in reports:
        if form == "jsonl":
            write(json.dumps(report, ensure_ascii=False))
        elif form == "name" and report["valid"]:
            write(report["file"])
        elif form == "table":
            _tell(report)
    return exits.OK if all(report["valid"] for report in reports) else exits.USAGE


def _check(file: Path, server: str | None) -> dict[str, Any]:
    """One file's report: file, valid, nodes, problems with line, pointer, code and detail."""
    from wf_core.cli.documents import read_document
    from wf_core.client import ApiError
    from wf_core.errors import DocumentError
    from wf_core.schema.validation import parse_document

    nodes: int | None = None
    problems: tuple[Problem, ...] = ()
    try:
        value = read_document(file)
        nodes = len(parse_document(value).nodes)
        if server is not None:
            with options.connect(server) as client:
                client.validate(value)
    except DocumentError as error:
        problems = error.problems
    except ApiError as error:
        if not error.problems:
            raise
        problems = error.problems
    return {"file": str(file), "valid": not problems, "nodes": nodes, "problems": _placed(file, problems)}


def _placed(file: Path, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    from wf_core.cli.documents import STDIN, lines_of

    lines = lines_of(file, {p.pointer for p in problems}) if problems and file != STDIN else {}
    return [{"line": lines.get(p.pointer), "pointer": p.pointer, "code": p.code, "detail": p.detail} for p in problems]


def _tell(report: dict[str, Any]) -> None:
    if report["valid"]:
        write(f"{report['file']}: ok, {report['nodes']} node{'s' if report['nodes'] != 1 else ''}")
    for problem in report["problems"]:
        line = f":{problem['line']}" if problem["line"] else ""
        note(f"{report['file']}{line}: {problem['pointer'] or '/'}: {problem['detail']}")


@click.command(short_help="Draw a document's graph.")
@DOCUMENT
@click.option("--format", "kind", type=click.Choice(["levels", "mermaid", "dot"]), default="levels", show_default=True)
def graph(document: Path, kind: str) -> None:
    """Draw the graph of DOCUMENT as text levels, for Mermaid or for Graphviz."""
    from wf_core.cli.documents import read_document
    from wf_core.cli.drawing import dot, levels, mermaid
    from wf_core.cli.follow import outline

    drawn = outline(read_document(document))
    draw = {"levels": levels, "mermaid": mermaid, "dot": dot}[kind]
    for line in draw(drawn.graph, drawn.tasks):
        write(line)


@click.command(short_help="Print the JSON Schema of documents.")
def schema() -> None:
    """Print the JSON Schema of documents, for editors and generators."""
    from wf_core.schema.validation import workflow_json_schema

    print_json(workflow_json_schema())
