"""Stands in for a worker's children: each attempt completes at once, in the order of the starts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.states import AttemptStatus
from wf_core.wire import TaskMessage
from wf_worker.attempts import Attempt, Ended

TASK = "core.noop"


class _Runners:
    async def keep(self) -> None:
        """Nothing comes and goes."""
        await asyncio.get_running_loop().create_future()


class Executors:
    """What `wf_worker.executors.Executors` is to the supervisor; the only task gives `null`."""

    def __init__(
        self,
        configure: Any,
        now_ms: Callable[[], int],
        on_end: Callable[[Attempt, Ended], None],
        on_free: Callable[[], None],
        grace: float = 0.0,  # noqa: ARG002 - attempts end at once
        forks: object = None,  # noqa: ARG002 - there are no children
    ) -> None:
        self.configure = configure
        self.runners = _Runners()
        self.catalogue = Catalogue(tasks={TASK: TaskInfo(name=TASK)})
        self.slots = configure.slots
        self._now_ms = now_ms
        self._on_end = on_end
        self._on_free = on_free
        self._attempts: dict[str, Attempt] = {}
        self._ids = itertools.count()
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def free(self) -> int:
        """Slots that nothing holds."""
        return self.slots - len(self._attempts)

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""

    def running(self) -> list[str]:
        """Tokens whose end was not reported yet."""
        return list(self._attempts)

    def runs(self, token: str) -> bool:
        """Whether the end of this token was not reported yet."""
        return token in self._attempts

    def progress(self) -> dict[str, bytes]:
        """Nobody tells of any."""
        return {}

    def run(self, token: str, message: TaskMessage) -> None:
        """The attempt ends in the loop's next round."""
        self._attempts[token] = Attempt(
            id=next(self._ids),
            token=token,
            message=message,
            executor="async",
            package="",
            timeout_ms=message.timeout_ms,
            started_at=self._now_ms(),
        )
        self._settled.clear()
        asyncio.get_running_loop().call_soon(self._end, token)

    def cancel(self, token: str) -> bool:
        """Whether it runs; it ends anyway."""
        return token in self._attempts

    async def idle(self) -> None:
        """Returns when every attempt was reported."""
        await self._settled.wait()

    def hand_back(self) -> None:
        """Nothing lasts so long."""

    def _end(self, token: str) -> None:
        attempt = self._attempts.pop(token)
        self._on_end(attempt, Ended(AttemptStatus.COMPLETED, output=b"null"))
        self._on_free()
        if not self._attempts:
            self._settled.set()
