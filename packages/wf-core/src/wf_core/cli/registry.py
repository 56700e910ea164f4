"""The commands: entry points of the group `wf.commands`, listed without importing one.

Our own packages' commands stand here too, with their help, so that `wf --help` imports none of them and a missing
package can be named. This table is about help only: what runs is always the entry point.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from wf_core.plugins import groups
from wf_core.plugins.entries import entries

SECTIONS = {
    "Run": {
        "dev": "Start everything on this machine: no Kafka, Redis or Docker needed.",
        "run": "Run a workflow to its end and print its output.",
        "submit": "Create an execution of a workflow, or many.",
        "trigger": "Start an execution that was submitted.",
        "validate": "Check documents without running them.",
        "graph": "Draw a document's graph.",
        "schema": "Print the JSON Schema of documents.",
        "test": "Test workflows: cases in YAML, a virtual clock, no server.",
    },
    "Look": {
        "ls": "List executions.",
        "show": "Show one execution.",
        "watch": "Follow an execution until it ends.",
        "results": "Print what an execution's nodes returned.",
        "nodes": "List an execution's nodes.",
        "node": "Show one node with all its attempts.",
        "why": "Say why an execution or a node is where it is.",
        "events": "List what happened to an execution.",
        "tasks": "List the tasks that live workers can run.",
        "workers": "List the live workers.",
    },
    "Act": {
        "cancel": "Cancel an execution.",
        "pause": "Let what runs finish, and start nothing.",
        "resume": "Go on with a paused execution.",
        "retry": "Go on with an execution that failed or was cancelled.",
        "signal": "Give a signal to an execution.",
        "approve": "Answer an approval.",
    },
    "Operate": {
        "api": "Serve the REST API.",
        "orchestrator": "Run an orchestrator.",
        "worker": "Run a worker.",
        "definitions": "List, show, register and remove definitions.",
        "doctor": "Check servers, topics, clocks and versions.",
        "verify": "Fold the log again and compare it with Redis.",
        "rebuild": "Restore Redis from the log, or from a backup of Redis and the log.",
        "dlq": "List, show, send again or discard dead letters.",
        "plugins": "List plugins and their import errors.",
    },
}
PACKAGES = {
    "api": "wf-api",
    "orchestrator": "wf-orchestrator",
    "verify": "wf-orchestrator",
    "rebuild": "wf-orchestrator",
    "test": "wf-orchestrator",
    "worker": "wf-worker",
}
"""Commands that other packages of this project ship."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A command that is installed: its entry point, or two of one name."""

    entry: importlib.metadata.EntryPoint
    package: str
    rival: str | None = None


def installed() -> dict[str, Registered]:
    """The installed commands by name.

    Not read by the drivers module: its plugin library would cost half of the time that `wf --help` may take.
    """
    found: dict[str, Registered] = {}
    for listed in entries(groups.COMMANDS):
        entry, package = listed.point, listed.distribution
        before = found.get(entry.name)
        if before is None:
            found[entry.name] = Registered(entry, package)
        elif (before.entry.value, before.package) != (entry.value, package):
            found[entry.name] = Registered(before.entry, before.package, package)
    return found


def listing() -> dict[str, list[tuple[str, str]]]:
    """Section → (command, short help) for `wf --help`; third parties' commands come last."""
    present = installed()
    sections = {
        title: [(name, text if name in present else missing_hint(name)) for name, text in commands.items()]
        for title, commands in SECTIONS.items()
    }
    known = {name for commands in SECTIONS.values() for name in commands}
    others = [(name, f"(from {command.package})") for name, command in sorted(present.items()) if name not in known]
    return {**sections, "Plugins": others} if others else sections


def missing_hint(name: str) -> str:
    """What to install for a command of this project that is not here."""
    return f"Not installed: pip install {PACKAGES.get(name, 'wf-core')}"
