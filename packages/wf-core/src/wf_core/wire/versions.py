"""What this release can read, and what it leaves to a newer one."""

from __future__ import annotations

from wf_core.errors import WfError

RULES = 2
"""The newest version of decide, CEL and built-in functions that this release has; it knows all before it as well.

1: tasks, joins, guards, retries. 2: every other kind, nested bodies, and commands beside trigger and cancel. An
execution is pinned to the lowest one that its document needs (`wf_core.plan.rules_of`), so that releases may be mixed.
"""
VERSION = 2
"""The newest form of records and task messages that this release reads: `v`.

1: whatever does not need more. 2: a result that begins the next node, which an older orchestrator must not fold.
"""
BEGINS = 2
"""The `v` of a result that begins the next node."""


class NewerRecordError(WfError):
    """The operator must act: a newer release wrote this. It is no dead letter: leave it to a process that knows it."""


def check_rules(rules: int) -> None:
    """Raises NewerRecordError for an execution that is pinned to rules which this release does not have."""
    if rules > RULES:
        raise NewerRecordError(f"it needs rules {rules}, this release has {RULES}")
