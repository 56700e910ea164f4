"""The commands `wf orchestrator`, `wf verify` and `wf rebuild`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from wf_core.cli import exits, options
from wf_core.cli.console import note, print_list

if TYPE_CHECKING:
    from wf_orchestrator.reports import Report
    from wf_orchestrator.survey import Place

_form = click.option(
    "-o", "--output", "form", type=click.Choice(options.FORMATS), default="table", help="How to print."
)
_MOST_DIFFERENCES = 20


@click.command()
def orchestrator() -> None:
    """Run an orchestrator: it decides what runs next.

    Servers and limits come from APP_* variables. Any number of orchestrators share the partitions; SIGTERM gives them
    back and leaves.
    """
    from wf_core.lean import import_structlog

    import_structlog()
    from wf_core.run_service import run_service
    from wf_orchestrator.service import OrchestratorService

    sys.exit(run_service(OrchestratorService, "orchestrator"))


@click.command(short_help="Fold the log again and compare it with Redis.")
@click.option("--partition", "partitions", multiple=True, type=click.IntRange(0), help="Only this one; repeatable.")
@_form
def verify(partitions: tuple[int, ...], form: str) -> int:
    """Fold each partition's log from its beginning and compare the result with Redis, byte for byte.

    Works on the servers of the APP_* variables, or on the `wf dev` that runs in this folder, and may be used while the
    engine works. Exits 0 when all is equal, 1 when something differs, 2 when a partition cannot be verified.
    """
    import asyncio

    from wf_core.cli.servers import servers, settings_here
    from wf_orchestrator.reports import verify_all

    async def work() -> list[Report]:
        settings = settings_here()
        async with servers(settings, "verify") as (redis, log):
            return await verify_all(redis, log, settings.namespace, partitions)

    return _print_reports(asyncio.run(work()), form)


@click.command(short_help="Restore Redis from the log, or from a backup of Redis and the log.")
@click.option("--check", is_flag=True, help="Only say what would be done.")
@_form
def rebuild(check: bool, form: str) -> int:
    """Bring Redis to the end of the log: after it was emptied, or after a backup of it was restored.

    Stop orchestrators and workers first. Whatever Redis lacks of the log is folded, nothing is sent or run; then all of
    it is verified. Exits as `wf verify`, and with 2 when there is nothing to rebuild from.
    """
    import asyncio

    from wf_core.cli.servers import servers, settings_here
    from wf_orchestrator.rebuild import rebuild as rebuild_all
    from wf_orchestrator.reports import verify_all
    from wf_orchestrator.survey import check_gaps, survey

    async def look() -> list[Place]:
        settings = settings_here()
        async with servers(settings, "rebuild") as (redis, log):
            return await survey(redis, log, settings)

    async def work() -> list[Report]:
        settings = settings_here(log_level="WARNING", connect_seconds=30.0)
        async with servers(settings, "rebuild") as (redis, log):
            await rebuild_all(redis, log, settings, _Progress())
            return await verify_all(redis, log, settings.namespace, ())

    if not check:
        return _print_reports(asyncio.run(work()), form)
    places = asyncio.run(look())
    _print_places(places, form)
    check_gaps(places)
    return exits.OK


class _Progress:
    """Says how far a rebuild is, but not each time that it is asked to."""

    def __init__(self) -> None:
        self._said = 0

    def __call__(self, left: int) -> None:
        """`left` records are still to be folded."""
        if not self._said or left <= 0.9 * self._said:
            note(f"{left:,} records to fold")
        self._said = left


def _print_reports(reports: list[Report], form: str) -> int:
    columns = [
        ("PARTITION", lambda r: r.partition),
        ("RECORDS", lambda r: r.records),
        ("EXECUTIONS", lambda r: r.executions),
        ("DIFFERENCES", lambda r: len(r.differences)),
        ("STATE", lambda r: r.state),
        ("REASON", lambda r: r.reason),
    ]
    print_list(reports, form, columns, lambda r: str(r.partition))
    differences = [difference for report in reports for difference in report.differences]
    if form == "table":
        for difference in differences[:_MOST_DIFFERENCES]:
            field = f" {difference.field}" if difference.field else ""
            note(f"{difference.key}{field}: the log says {difference.expected}, Redis holds {difference.found}")
        if (more := len(differences) - _MOST_DIFFERENCES) > 0:
            note(f"... and {more} more: -o json has all")
    if differences:
        return exits.FAILED
    return exits.USAGE if any(report.state == "unverifiable" for report in reports) else exits.OK


def _print_places(places: list[Place], form: str) -> None:
    columns = [
        ("PARTITION", lambda p: p.partition),
        ("LOG", lambda p: f"{p.begin}-{p.end}"),
        ("FOLDED", lambda p: p.offset),
        ("TO FOLD", lambda p: p.to_fold),
        ("STATE", lambda p: p.state),
    ]
    print_list(places, form, columns, lambda p: str(p.partition))
