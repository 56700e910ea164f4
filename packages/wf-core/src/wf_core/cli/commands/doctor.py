"""`wf doctor`: whether the servers that the `APP_*` variables name fit, and what to do where they do not."""

from __future__ import annotations

import click

from wf_core.cli import exits, options
from wf_core.cli.console import print_list


@click.command(short_help="Check servers, topics, clocks and versions.")
@click.option("-o", "--output", "form", type=click.Choice(options.FORMATS), default="table", help="How to print.")
def doctor(form: str) -> int:
    """Check Redis, the log, its topics, clocks, versions and workers as the APP_* variables name them.

    In a folder where `wf dev` runs, that one is examined. Exits 1 when something is wrong.
    """
    import asyncio

    from wf_core.cli.examination import examine

    checks = asyncio.run(examine())
    columns = [
        ("CHECK", lambda c: c.name),
        ("STATE", lambda c: c.state),
        ("FOUND", lambda c: c.found),
        ("REMEDY", lambda c: c.remedy),
    ]
    print_list(checks, form, columns, lambda c: c.name)
    return exits.FAILED if any(check.state == "wrong" for check in checks) else exits.OK
