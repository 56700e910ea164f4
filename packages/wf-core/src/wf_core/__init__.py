"""Schema, log, store, settings and command line of the wf workflow engine.

Importing this package loads no Redis, Kafka or HTTP library; what needs them lives in `store`, `broker` and `client`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wf_core.tasks import Fatal, RetryAfter, Task, TaskContext, task

__all__ = ["Fatal", "RetryAfter", "Task", "TaskContext", "task"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("wf_core.tasks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
