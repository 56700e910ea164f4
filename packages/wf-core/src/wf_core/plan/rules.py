"""Which version of the rules a document needs."""

from __future__ import annotations

from wf_core.schema.document import WorkflowSchema
from wf_core.schema.nodes import TaskSchema


def rules_of(document: WorkflowSchema) -> int:
    """The lowest version of the rules that knows everything in the document (see `wf_core.wire.RULES`)."""
    if document.finally_ is not None or document.concurrency is not None:
        return 2
    return 1 if all(isinstance(node, TaskSchema) and _is_plain(node) for node in document.nodes.values()) else 2


def _is_plain(node: TaskSchema) -> bool:
    """Whether a task has only what the first rules had."""
    return not node.catch and all(
        part is None for part in (node.compensate, node.cache, node.heartbeat, node.queue_timeout, node.total_timeout)
    )
