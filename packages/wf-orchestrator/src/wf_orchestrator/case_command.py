"""The command `wf test`: cases of workflows, run in this process with a virtual clock."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wf_core.cli import exits, options
from wf_core.cli.console import note, print_list

if TYPE_CHECKING:
    from wf_orchestrator.testing.cases import CasesSchema

_Row = dict[str, Any]


@click.command(short_help="Test workflows: cases in YAML, a virtual clock, no server.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", "form", type=click.Choice(options.FORMATS), default="table", help="How to print.")
def test(files: tuple[Path, ...], form: str) -> int:
    """Run the cases in FILES (YAML or JSON) with the engine's own state machine and a virtual clock.

    Each case names its input, what stands in for tasks, and what is expected; tasks without a stand-in run for real.
    Exits 0 when every case is as expected, 1 when one is not, 2 when a file, a document or an input is wrong.
    """
    from wf_orchestrator.testing.cases import read_cases

    rows = [row for file in files for row in _run(file, read_cases(file))]
    for row in rows:
        for problem in row["problems"]:
            note(f"{row['file']}: {row['case']}: {problem}")
    columns = [("FILE", itemgetter("file")), ("CASE", itemgetter("case")), ("RESULT", itemgetter("result"))]
    print_list(rows, form, columns, itemgetter("case"))
    return exits.OK if all(row["result"] == "passed" for row in rows) else exits.FAILED


def _run(file: Path, cases: CasesSchema) -> list[_Row]:
    from wf_orchestrator.testing.cases import run_case
    from wf_orchestrator.testing.known import UnknownStubError
    from wf_orchestrator.testing.stubs import UnknownTaskError

    rows: list[_Row] = []
    for case in cases.cases:
        try:
            problems = run_case(cases, case, file.parent)
        except (UnknownStubError, UnknownTaskError) as unknown:
            problems = [str(unknown)]
        result = "failed" if problems else "passed"
        rows.append({"file": str(file), "case": case.name, "result": result, "problems": problems})
    return rows
