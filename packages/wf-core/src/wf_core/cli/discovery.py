"""Every plugin of every group; run as a program it tries which of them import."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import sys
from typing import Any

from wf_core.plugins import groups

GROUPS = tuple(value for name, value in sorted(vars(groups).items()) if name.isupper())


def every_plugin() -> list[dict[str, Any]]:
    """Group, name, target, package, version and error (a name that two packages ship) of each plugin."""
    found = []
    for group in GROUPS:
        entries = sorted(importlib.metadata.entry_points(group=group), key=lambda entry: entry.name)
        # An editable and an installed copy of one package give one plugin.
        unique = {(e.name, e.value, e.dist.name if e.dist else ""): e for e in entries}
        names = [name for name, _, _ in unique]
        for (name, target, package), entry in unique.items():
            double = "two packages ship this name: uninstall one" if names.count(name) > 1 else None
            version = entry.dist.version if entry.dist else ""
            plugin = {
                "group": group,
                "name": name,
                "target": target,
                "package": package,
                "version": version,
                "error": double,
            }
            found.append(plugin)
    return found


def import_errors(targets: list[str]) -> dict[str, str]:
    """Target → error of those that do not import."""
    errors = {}
    for target in targets:
        try:
            importlib.metadata.EntryPoint("", target, "").load()
        except BaseException as error:  # noqa: BLE001 - a plugin's import may raise anything, SystemExit too
            errors[target] = f"{type(error).__name__}: {error}"
    return errors


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    # A plugin that prints while it is imported must not be mistaken for the answer.
    with contextlib.redirect_stdout(sys.stderr):
        answer = import_errors(asked)
    sys.stdout.write(json.dumps(answer) + "\n")
