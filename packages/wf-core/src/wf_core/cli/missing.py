"""Tasks that a worker should have and has not, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wf_core.cli.console import note

if TYPE_CHECKING:
    from wf_core.client import Client, Worker

_UNKNOWN = "unknown_task"


def note_missing(workers: Sequence[Worker]) -> None:
    """Says of each worker what does not load there."""
    for worker in workers:
        for reason in worker.broken.values():
            note(f"missing on {worker.id}: {reason}")


def submit_or_explain(client: Client, document: Any, **said: Any) -> Any:
    """Submits. When a task is not known, says first what does not load: a server of one's own is gone soon after."""
    from wf_core.client import ApiError

    try:
        return client.submit(document, **said)
    except ApiError as error:
        if any(problem.code == _UNKNOWN for problem in error.problems):
            note_missing(client.workers())
        raise
