"""The command line `wf`. Nothing heavy is imported before a command asks for it."""

from __future__ import annotations

import sys

from wf_core.collector import collect_rarely

_NEEDED = "The command line needs click, rich and httpx: pip install 'wf-core[cli]'"


def main() -> None:
    """The console script `wf`."""
    collect_rarely()
    try:
        from wf_core.cli.app import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write(_NEEDED + "\n")
        sys.exit(2)
    sys.exit(run())
