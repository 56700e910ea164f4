"""What runs in a process: each service package registers one class in the group `wf.services`."""

from __future__ import annotations

import asyncio
from typing import Protocol

from wf_core.settings import Settings


class Service(Protocol):
    """The API, an orchestrator or a worker, constructed with `Settings`; several may share one loop (`wf dev`).

    A worker's class also has `early()`, which gives a factory: called while the process has one thread and no loop, the
    time to fork.
    """

    def __init__(self, settings: Settings) -> None: ...

    async def start(self) -> None:
        """Connects. Raises SetupError or UnavailableError, having released what it took."""

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains and disconnects. Raises when it cannot go on."""
