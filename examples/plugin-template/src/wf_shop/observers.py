"""An observer: plain functions marked with `hookimpl`, called in batches, away from the hot path."""

from __future__ import annotations

import logging

from wf_core.plugins.hookspecs import Change, hookimpl

log = logging.getLogger(__name__)


@hookimpl
def wf_execution_changed(changes: list[Change]) -> None:
    """Writes a line for each execution that failed."""
    for change in changes:
        if change.status == "FAILED":
            log.warning("%s %s failed", change.workflow, change.execution_id)
