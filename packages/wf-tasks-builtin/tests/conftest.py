"""A context as a worker would give it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog


@dataclass
class Context:
    """The facts of one attempt."""

    execution_id: str = "01jd1kxa00ez58x47y27f1pjbj1z"
    node: str = "n"
    attempt: int = 1
    cancelled: bool = False
    log: Any = field(default_factory=structlog.get_logger)

    @property
    def idempotency_key(self) -> str:
        """`execution/node`."""
        return f"{self.execution_id}/{self.node}"

    @property
    def fence(self) -> int:
        """The attempt."""
        return self.attempt

    def heartbeat(self, progress: Any = None) -> None:
        """Nobody listens here."""


@pytest.fixture
def ctx() -> Context:
    """The first attempt of a node."""
    return Context()
