"""Schema, log, store, settings and command line of the wf workflow engine.

Importing this package loads no Redis, Kafka or HTTP library; what needs them lives in `store`, `broker` and `client`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wf_core.builder import workflow
    from wf_core.client import Client
    from wf_core.tasks import Fatal, RetryAfter, Task, TaskContext, task

__all__ = ["Client", "Fatal", "RetryAfter", "Task", "TaskContext", "task", "workflow"]
_ELSEWHERE = {"Client": "wf_core.client", "workflow": "wf_core.builder"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(_ELSEWHERE.get(name, "wf_core.tasks")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
