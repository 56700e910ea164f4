"""Tasks that a worker should have and has not, with the reasons."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from wf_core.cli.console import note
from wf_core.errors import Problem, WfError

if TYPE_CHECKING:
    from wf_core.client import Client, Worker

_UNKNOWN = "unknown_task"


def note_missing(workers: Sequence[Worker], tasks: Collection[str] | None = None) -> None:
    """Says of each worker what does not load there: all of it, or what may be why it has not these `tasks`."""
    for worker in workers:
        for name, reason in worker.broken.items():
            # Which tasks a file has is not known when it does not load.
            if tasks is None or name in tasks or name.endswith(".py"):
                note(f"missing on {worker.id}: {reason}")


def submit_or_explain(client: Client, document: Any, **said: Any) -> Any:
    """Submits. When a task is not known, says first what does not load: a server of one's own is gone soon after."""
    from wf_core.client import ApiError

    try:
        return client.submit(document, **said)
    except ApiError as error:
        if tasks := set(_unknown(document, error.problems)):
            with contextlib.suppress(WfError):  # the refusal is what the user has to hear of
                note_missing(client.workers(), tasks)
        raise


def _unknown(document: Any, problems: Sequence[Problem]) -> Iterator[str]:
    """The tasks in the document that no worker knows."""
    from wf_core.schema.pointers import parts

    for problem in problems:
        value = document
        for key in parts(problem.pointer.removeprefix("/workflow")) if problem.code == _UNKNOWN else ():
            try:
                value = value[int(key) if isinstance(value, list) else key]
            except (LookupError, TypeError, ValueError):
                break
        if isinstance(value, str):
            yield value
