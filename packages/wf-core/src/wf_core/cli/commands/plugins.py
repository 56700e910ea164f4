"""`wf plugins`: what is installed, by whom, and whether it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import click

from wf_core.cli import exits, options
from wf_core.cli.console import print_list

_SECONDS = 60


@click.command(short_help="List plugins and their import errors.")
@click.option("--group", help="Only this group, e.g. wf.tasks.")
@click.option("--no-import", is_flag=True, help="Do not try whether they import.")
@click.option("-o", "--output", "form", type=click.Choice(options.FORMATS), default="table", help="How to print.")
def plugins(group: str | None, no_import: bool, form: str) -> int:
    """List the plugins of every group with their packages, and whether they import.

    They are imported in a process of their own. Exits 1 when one of them is broken.
    """
    from wf_core.cli.discovery import every_plugin

    found = [plugin for plugin in every_plugin() if group in (None, plugin["group"])]
    errors = {} if no_import else _import_errors([(p["group"], p["name"], p["target"]) for p in found])
    for plugin in found:
        plugin["error"] = plugin["error"] or errors.get(plugin["target"])
    columns = [
        ("GROUP", lambda p: p["group"]),
        ("NAME", lambda p: p["name"]),
        ("PACKAGE", lambda p: p["package"]),
        ("VERSION", lambda p: p["version"]),
        ("STATE", lambda p: "not tried" if no_import else (p["error"] or "ok")),
    ]
    print_list(found, form, columns, lambda p: f"{p['group']}:{p['name']}")
    return exits.FAILED if any(plugin["error"] for plugin in found) else exits.OK


def _import_errors(wanted: list[tuple[str, str, str]]) -> dict[str, str]:
    """Target → error of what does not import. One process tries all; what takes it down is tried alone after that."""
    targets = list(dict.fromkeys(target for _, _, target in wanted))
    said = _try(targets)
    if said is not None:
        return said
    errors: dict[str, str] = {}
    for target in targets:
        alone = _try([target])
        errors |= {target: "its import ended the process, or took too long"} if alone is None else alone
    return errors


def _try(targets: list[str]) -> dict[str, str] | None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wf_core.cli.discovery"],
            input=json.dumps(targets),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
        errors: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return None
    return errors
