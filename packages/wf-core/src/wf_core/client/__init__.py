"""Talk to a wf API server from Python: `Client` blocks, `AsyncClient` awaits; both have the same operations.

Needs the extra `client` (`pip install "wf-core[client]"`).
"""

from __future__ import annotations

from wf_core.client.clients import AsyncClient, Client
from wf_core.client.flows import (
    ApiError,
    BadAnswerError,
    Delivery,
    ServerUnreachableError,
    StillRunningError,
)
from wf_core.client.models import (
    Attempt,
    Command,
    DeadLetter,
    Event,
    Execution,
    Failure,
    Node,
    NodeItem,
    NodeSummary,
    Page,
    Results,
    Settled,
    Submitted,
    Summary,
    TaskItem,
    Validation,
    Worker,
)

__all__ = [
    "ApiError",
    "AsyncClient",
    "Attempt",
    "BadAnswerError",
    "Client",
    "Command",
    "DeadLetter",
    "Delivery",
    "Event",
    "Execution",
    "Failure",
    "Node",
    "NodeItem",
    "NodeSummary",
    "Page",
    "Results",
    "ServerUnreachableError",
    "Settled",
    "StillRunningError",
    "Submitted",
    "Summary",
    "TaskItem",
    "Validation",
    "Worker",
]
